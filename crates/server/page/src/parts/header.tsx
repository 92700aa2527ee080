/** The page's header: the view, the table, the theme. */

import { useEffect, useState } from "preact/hooks";
import type { Table } from "../api.ts";
import type { Go } from "../hooks.ts";
import { formatRoute, type Route, type View } from "../logic/route.ts";
import { isSearchable } from "../logic/rows.ts";
import { onTheme, theme, toggleTheme } from "../theme.ts";

const LINKS: { view: View; name: string }[] = [
  { view: "search", name: "Search" },
  { view: "map", name: "Map" },
  { view: "sql", name: "SQL" },
  { view: "runs", name: "Runs" },
];

interface Props {
  tables: Table[];
  table: Table | undefined;
  route: Route;
  go: Go;
  onKeys: () => void;
}

export function Header({ tables, table, route, go, onKeys }: Props) {
  const searchable = tables.filter(isSearchable);
  const here = route.view === "document" ? "search" : route.view;
  return (
    <header class="head">
      <a class="name" href="#/search">polylance</a>
      <nav aria-label="Views">
        {LINKS.map(({ view, name }) => (
          <a key={view} href={formatRoute({ ...route, view })} aria-current={here === view ? "page" : undefined}>{name}</a>
        ))}
      </nav>
      <div class="head-end">
        {searchable.length > 1 && table && (
          <label class="field-inline">
            <span class="visually-hidden">Table</span>
            <select
              value={table.name}
              onChange={(event) => go({ table: event.currentTarget.value, facets: {}, where: "", like: null, color: "", view: here })}
            >
              {searchable.map(({ name }) => <option key={name} value={name}>{name}</option>)}
            </select>
          </label>
        )}
        <ThemeButton />
        <button class="icon" aria-label="Keys" title="Keys (?)" onClick={onKeys}>?</button>
      </div>
    </header>
  );
}

function ThemeButton() {
  const [now, setNow] = useState(theme);
  useEffect(() => onTheme(() => setNow(theme())), []);
  const other = now === "dark" ? "light" : "dark";
  return (
    <button class="icon" aria-label={`Change to ${other}`} title={`Change to ${other} (t)`} onClick={toggleTheme}>
      <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
        <circle cx="10" cy="10" r="7" fill="none" stroke="currentColor" stroke-width="1.6" />
        <path d="M10 3a7 7 0 0 1 0 14z" fill="currentColor" />
      </svg>
    </button>
  );
}
