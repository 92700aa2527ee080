/** The page's address and the server's responses as state. */

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ApiError } from "./api.ts";
import { formatRoute, parseRoute, type Route } from "./logic/route.ts";

export type Go = (change: Partial<Route>) => void;

/** How many entries of the browser's history before the current one are this page's; each entry keeps its number. */
function depth(): number {
  return Number((history.state as { depth?: number } | null)?.depth ?? 0);
}

let latest = 0;

function numberEntry(): void {
  const known = (history.state as { depth?: number } | null)?.depth;
  if (known === undefined) history.replaceState({ depth: latest + 1 }, "");
  latest = depth();
}

/** The route in the address, and a function that changes it. */
export function useRoute(): [Route, Go] {
  const [route, setRoute] = useState(() => parseRoute(location.hash));
  const current = useRef(route);
  useEffect(() => {
    if (history.state === null) history.replaceState({ depth: 0 }, "");
    latest = depth();
    const read = (): void => {
      numberEntry();
      current.current = parseRoute(location.hash);
      setRoute(current.current);
    };
    addEventListener("hashchange", read);
    return () => removeEventListener("hashchange", read);
  }, []);
  const go = useCallback((change: Partial<Route>) => {
    location.hash = formatRoute({ ...current.current, ...change });
  }, []);
  return [route, go];
}

/** Leaves a document for the view it was opened from, or for the search if it was opened by a link. */
export function close(go: Go): void {
  if (depth() > 0) history.back();
  else go({ view: "search" });
}

export interface Answer<T> {
  /** The latest response; it stays while another is awaited. */
  value: T | undefined;
  error: ApiError | undefined;
  busy: boolean;
}

/** The last responses by request, so that Back shows them at once. */
const kept = new Map<string, unknown>();
const KEPT = 40;

export function forget(): void {
  kept.clear();
}

function keep(key: string, value: unknown): void {
  kept.delete(key);
  kept.set(key, value);
  const oldest = kept.keys().next();
  if (kept.size > KEPT && !oldest.done) kept.delete(oldest.value);
}

/** Sends a request whenever `key` changes, and aborts the earlier one. A `key` of `null` sends none. */
export function useAnswer<T>(key: string | null, ask: (signal: AbortSignal) => Promise<T>): Answer<T> {
  const [answer, setAnswer] = useState<Answer<T> & { key: string | null }>({
    key: null, value: undefined, error: undefined, busy: false,
  });
  useEffect(() => {
    if (key === null) {
      setAnswer({ key, value: undefined, error: undefined, busy: false });
      return;
    }
    if (kept.has(key)) {
      setAnswer({ key, value: kept.get(key) as T, error: undefined, busy: false });
      return;
    }
    const abort = new AbortController();
    setAnswer((before) => ({ ...before, key, error: undefined, busy: true }));
    ask(abort.signal).then(
      (value) => {
        if (abort.signal.aborted) return;
        keep(key, value);
        setAnswer({ key, value, error: undefined, busy: false });
      },
      (reason: unknown) => {
        if (abort.signal.aborted) return;
        const error = reason instanceof ApiError ? reason : new ApiError(0, "page", String(reason), null);
        setAnswer({ key, value: undefined, error, busy: false });
        if (error.status === 401) dispatchEvent(new Event("polylance:token"));
      },
    );
    return () => abort.abort();
    // `ask` is a new function in every render; `key` changes when the request does.
  }, [key]);
  // Between a new key and the effect above, the old response must not count as the new one's.
  return answer.key === key ? answer : { value: answer.value, error: undefined, busy: key !== null };
}
