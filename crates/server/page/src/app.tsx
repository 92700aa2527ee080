/** The page as a whole: its tables, its view, its keys. */

import { useEffect, useRef, useState } from "preact/hooks";
import { api, type Table } from "./api.ts";
import { type Answer, close, forget, type Go, useAnswer, useRoute } from "./hooks.ts";
import { type Action, actionOf } from "./logic/keys.ts";
import type { Route } from "./logic/route.ts";
import { isSearchable } from "./logic/rows.ts";
import { KeysDialog, letters, TokenDialog } from "./parts/dialogs.tsx";
import { Header } from "./parts/header.tsx";
import { Notice, Problem, Waiting } from "./parts/notice.tsx";
import { toggleTheme } from "./theme.ts";
import { DocumentView } from "./views/document.tsx";
import { MapView } from "./views/map.tsx";
import { RunsView } from "./views/runs.tsx";
import { remember, SearchView } from "./views/search.tsx";
import { SqlView } from "./views/sql.tsx";

export function App() {
  const [route, go] = useRoute();
  const [session, setSession] = useState(0);
  const [keysOpen, setKeysOpen] = useState(false);
  const [tokenOpen, setTokenOpen] = useState(false);
  const answer = useAnswer(`tables ${session}`, (signal) => api.tables(signal));
  const tables = answer.value ?? [];
  const table = tables.find(({ name }) => name === route.table) ?? tables.find(isSearchable) ?? tables[0];

  useEffect(() => {
    const ask = (): void => setTokenOpen(true);
    addEventListener("polylance:token", ask);
    return () => removeEventListener("polylance:token", ask);
  }, []);
  useTitle(route, table);
  useFocus(route);
  useKeys(route, go, () => setKeysOpen(true));

  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to the content</a>
      <Header tables={tables} table={table} route={route} go={go} onKeys={() => setKeysOpen(true)} />
      <main id="main" tabIndex={-1} key={session}>
        <Body answer={answer} tables={tables} table={table} route={route} go={go} onToken={() => setTokenOpen(true)} />
      </main>
      <KeysDialog open={keysOpen} onClose={() => setKeysOpen(false)} />
      <TokenDialog
        open={tokenOpen}
        onToken={() => {
          forget();
          setSession((session) => session + 1);
        }}
        onClose={() => setTokenOpen(false)}
      />
    </>
  );
}

interface BodyProps {
  answer: Answer<Table[]>;
  tables: Table[];
  table: Table | undefined;
  route: Route;
  go: Go;
  onToken: () => void;
}

function Body({ answer, tables, table, route, go, onToken }: BodyProps) {
  if (answer.error?.status === 401) {
    return (
      <Notice title="This server asks for a token">
        <button class="primary" onClick={onToken}>Enter a token</button>
      </Notice>
    );
  }
  if (answer.error) return <Problem error={answer.error} />;
  if (answer.busy || !answer.value) return <Waiting />;
  if (!table) return <Notice title="There is no table yet"><p>Start the server with <code>--table</code> and the address of one.</p></Notice>;
  if (route.table && route.table !== table.name) {
    return (
      <Notice title="There is no such table">
        <p>The link names the table <b dir="auto">{route.table}</b>, which this server does not have.</p>
        <p><a href="#/search">Search {table.name}</a></p>
      </Notice>
    );
  }
  switch (route.view) {
    case "search": return <SearchView table={table} route={route} go={go} />;
    case "document": return <DocumentView key={route.document} table={table} route={route} go={go} />;
    case "map": return <MapView table={table} route={route} go={go} />;
    case "sql": return <SqlView tables={tables} table={table} route={route} go={go} />;
    case "runs": return <RunsView table={table} />;
  }
}

function useTitle(route: Route, table: Table | undefined): void {
  useEffect(() => {
    const what = {
      search: route.like ? `like ${route.like.doc_id}` : route.query,
      document: route.document,
      map: "map",
      sql: "SQL",
      runs: "runs",
    }[route.view];
    document.title = [what, table?.name, "polylance"].filter(Boolean).join(" · ");
  }, [route, table]);
}

/** Focuses the heading of a new view, so that a screen reader announces it. */
function useFocus(route: Route): void {
  const before = useRef({ view: route.view, document: route.document });
  useEffect(() => {
    const { view, document: open } = before.current;
    before.current = { view: route.view, document: route.document };
    if (view === route.view && open === route.document) return;
    if (route.view === "document") remember(route.document, route.chunk ?? 0);
    scrollTo(0, 0);
    // Back in the list, the hit that was open gets the focus.
    if (!(view === "document" && route.view === "search")) document.querySelector<HTMLElement>("main h1")?.focus();
  }, [route]);
}

function useKeys(route: Route, go: Go, showKeys: () => void): void {
  useEffect(() => {
    const press = (event: KeyboardEvent): void => {
      if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
      const { key, ctrlKey, altKey, metaKey } = event;
      const typing = isTyping(event.target);
      // From the search box, the first arrow leads to the hits.
      const leaves = key === "ArrowDown" && (event.target as Element | null)?.id === "query";
      const action = leaves ? "next" : actionOf({ key, ctrlKey, altKey, metaKey, typing, letters: letters.get() });
      if (action && perform(action, route, go, showKeys, typing)) event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [route, go, showKeys]);
}

function isTyping(target: EventTarget | null): boolean {
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true;
  return target instanceof HTMLInputElement && !["checkbox", "button"].includes(target.type);
}

/** Performs the action of a key; `false` leaves the key to the browser. */
function perform(action: Action, route: Route, go: Go, showKeys: () => void, typing: boolean): boolean {
  const active = document.activeElement instanceof HTMLElement ? document.activeElement : null;
  const hit = active?.closest<HTMLElement>(".hit") ?? null;
  switch (action) {
    case "focus-search": {
      const box = document.querySelector<HTMLInputElement>("#query");
      if (box) box.select();
      else go({ view: "search" });
      return true;
    }
    case "next": return moveHit(hit, 1);
    case "previous": return moveHit(hit, -1);
    // Links and buttons inside a hit keep their own Enter.
    case "open": return hit !== null && active === hit && press(hit, "[data-open]");
    case "like": return hit !== null && press(hit, "[data-like]");
    case "why": return hit !== null && press(hit, "[data-why] > summary");
    case "close":
      if (typing) active?.blur();
      else if (route.view === "document") close(go);
      else return false;
      return true;
    case "search": case "map": case "sql": case "runs":
      go({ view: action });
      return true;
    case "theme":
      toggleTheme();
      return true;
    case "keys":
      showKeys();
      return true;
  }
}

function press(hit: HTMLElement, what: string): boolean {
  hit.querySelector<HTMLElement>(what)?.click();
  return true;
}

/** Moves the focus among hits; above the first is the search box. */
function moveHit(from: HTMLElement | null, by: 1 | -1): boolean {
  const hits = [...document.querySelectorAll<HTMLElement>(".hit")];
  if (!hits.length || (!from && by < 0)) return false;
  const at = from ? hits.indexOf(from) + by : 0;
  if (at < 0) document.querySelector<HTMLElement>("#query")?.focus();
  else hits[Math.min(at, hits.length - 1)]?.focus();
  return true;
}
