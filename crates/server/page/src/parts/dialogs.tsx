/** The dialogs for the list of keys and for the token that a protected server requires. */

import { useEffect, useRef, useState } from "preact/hooks";
import { token } from "../api.ts";
import { KEYS, keyName } from "../logic/keys.ts";

const LETTERS = "polylance.letters";

/** Whether single letters are keys. */
export const letters = {
  get: (): boolean => localStorage.getItem(LETTERS) !== "off",
  set: (on: boolean): void => (on ? localStorage.removeItem(LETTERS) : localStorage.setItem(LETTERS, "off")),
};

/** A dialog that is open as long as `open` is true. The browser keeps the focus in it and restores it afterwards. */
function useDialog(open: boolean) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open && !dialog.current?.open) dialog.current?.showModal();
    if (!open) dialog.current?.close();
  }, [open]);
  return dialog;
}

export function KeysDialog({ open, onClose }: { open: boolean; onClose: () => void }) {
  const dialog = useDialog(open);
  const [on, setOn] = useState(letters.get);
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="keys-title">
      <h2 id="keys-title">Keys</h2>
      <dl class="keys">
        {KEYS.map(({ keys, says }) => (
          <div key={says}>
            <dt>{keys.map((key) => <kbd key={key}>{keyName(key)}</kbd>)}</dt>
            <dd>{says}</dd>
          </div>
        ))}
      </dl>
      <label class="check">
        <input
          type="checkbox"
          checked={on}
          onChange={(event) => {
            letters.set(event.currentTarget.checked);
            setOn(event.currentTarget.checked);
          }}
        />
        Letters and digits are keys
      </label>
      <form method="dialog" class="dialog-actions">
        <button class="primary" autofocus>Close</button>
      </form>
    </dialog>
  );
}

interface TokenProps {
  open: boolean;
  onToken: () => void;
  onClose: () => void;
}

export function TokenDialog({ open, onToken, onClose }: TokenProps) {
  const dialog = useDialog(open);
  const input = useRef<HTMLInputElement>(null);
  // Whether a token was refused before: that needs another message than a missing token.
  const refused = token.get() !== "";
  return (
    <dialog ref={dialog} onClose={onClose} aria-labelledby="token-title">
      <h2 id="token-title">This server asks for a token</h2>
      <form
        method="dialog"
        onSubmit={() => {
          token.set(input.current?.value.trim() ?? "");
          onToken();
        }}
      >
        <label class="field" for="token">{refused ? "The last one was refused. Another token" : "Token"}</label>
        <input id="token" ref={input} type="password" autocomplete="off" required />
        <p class="muted">It is kept until this tab is closed, and sent to this server alone.</p>
        <div class="dialog-actions">
          <button type="button" onClick={() => dialog.current?.close()}>Not now</button>
          <button class="primary">Use token</button>
        </div>
      </form>
    </dialog>
  );
}
