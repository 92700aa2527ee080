/** Light, dark, or the system's theme; `public/theme.js` applies the choice before the first paint. */

const KEY = "polylance.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export type Theme = "light" | "dark";

/** The theme on the screen. */
export function theme(): Theme {
  const chosen = document.documentElement.dataset["theme"];
  return chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light";
}

/** Changes to the other theme; if that is the system's theme, the page follows the system again. */
export function toggleTheme(): void {
  const next: Theme = theme() === "dark" ? "light" : "dark";
  if ((next === "dark") === system.matches) {
    delete document.documentElement.dataset["theme"];
    localStorage.removeItem(KEY);
  } else {
    document.documentElement.dataset["theme"] = next;
    localStorage.setItem(KEY, next);
  }
  dispatchEvent(new Event("polylance:theme"));
}

/** Calls `changed` whenever the theme on the screen may have changed; returns a function that stops this. */
export function onTheme(changed: () => void): () => void {
  addEventListener("polylance:theme", changed);
  system.addEventListener("change", changed);
  return () => {
    removeEventListener("polylance:theme", changed);
    system.removeEventListener("change", changed);
  };
}
