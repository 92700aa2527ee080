/** Keys and their actions. */

export type Action =
  | "focus-search" | "next" | "previous" | "open" | "like" | "why" | "close"
  | "search" | "map" | "sql" | "runs" | "theme" | "keys";

/** The list of keys under `?`. */
export const KEYS: { keys: string[]; action: Action; says: string }[] = [
  { keys: ["/"], action: "focus-search", says: "go to the search box" },
  { keys: ["j", "ArrowDown"], action: "next", says: "next hit" },
  { keys: ["k", "ArrowUp"], action: "previous", says: "previous hit" },
  { keys: ["Enter"], action: "open", says: "open the hit’s document" },
  { keys: ["m"], action: "like", says: "more like the hit" },
  { keys: ["w"], action: "why", says: "why the hit was found" },
  { keys: ["Escape"], action: "close", says: "close, or leave the box" },
  { keys: ["1"], action: "search", says: "search" },
  { keys: ["2"], action: "map", says: "map" },
  { keys: ["3"], action: "sql", says: "SQL" },
  { keys: ["4"], action: "runs", says: "runs" },
  { keys: ["t"], action: "theme", says: "light or dark" },
  { keys: ["?"], action: "keys", says: "these keys" },
];

/** Keys that scroll, press or leave something anyway, so they stay when single letters are turned off. */
const ALWAYS: readonly string[] = ["ArrowDown", "ArrowUp", "Enter", "Escape"];

export interface Press {
  key: string;
  ctrlKey: boolean;
  altKey: boolean;
  metaKey: boolean;
  /** Whether a field that takes text has the focus. */
  typing: boolean;
  /** Whether letters are keys at all; speech input would press them by the dozen. */
  letters: boolean;
}

/** The action of a key press; `null` leaves it to the browser. */
export function actionOf(press: Press): Action | null {
  if (press.ctrlKey || press.altKey || press.metaKey) return null;
  if (press.typing && press.key !== "Escape") return null;
  if (!press.letters && !ALWAYS.includes(press.key)) return null;
  return KEYS.find(({ keys }) => keys.includes(press.key))?.action ?? null;
}

/** A key as it is printed on a keyboard. */
export function keyName(key: string): string {
  return { ArrowDown: "↓", ArrowUp: "↑", Escape: "Esc" }[key] ?? key;
}
