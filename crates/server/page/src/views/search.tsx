/** Search: the box, the facets, the hits. */

import { useEffect } from "preact/hooks";
import type { Table } from "../api.ts";
import type { Answer, Go } from "../hooks.ts";
import type { Route } from "../logic/route.ts";
import { bars, MODE_SAYS } from "../logic/scores.ts";
import { Facets } from "../parts/facets.tsx";
import { HitCard, hitId } from "../parts/hit.tsx";
import { Notice, Problem, Waiting } from "../parts/notice.tsx";
import { SearchBar, WhereField } from "../parts/searchbar.tsx";
import { type Found, useSearch } from "../search.ts";

interface Props {
  table: Table;
  route: Route;
  go: Go;
}

/** The document that was opened from a list, so that closing it returns to its position. */
let opened = "";

export function remember(document: string, chunk: number): void {
  opened = hitId({ id: document, chunk });
}

export function SearchView({ table, route, go }: Props) {
  const answer = useSearch(table, route);
  const { value } = answer;
  useEffect(() => {
    if (!value || !opened) return;
    document.getElementById(opened)?.focus();
    opened = "";
  }, [value]);
  const chosen = Object.values(route.facets).flat().length + (route.where ? 1 : 0);
  return (
    <>
      <h1 class="visually-hidden" tabIndex={-1}>Search {table.name}</h1>
      <SearchBar table={table} route={route} go={go} />
      <div class="columns">
        <aside aria-label="Filters">
          <details class="filters" open={matchMedia("(min-width: 56rem)").matches}>
            <summary>Filters{chosen > 0 && ` (${chosen})`}</summary>
            <WhereField route={route} go={go} />
            <Facets key={table.name} table={table} route={route} go={go} />
          </details>
        </aside>
        <section aria-label="Hits" aria-busy={answer.busy} class={answer.busy && value ? "stale" : undefined}>
          <p class="summary" role="status">{summary(answer, route)}</p>
          <Hits answer={answer} table={table} route={route} go={go} />
        </section>
      </div>
    </>
  );
}

function summary({ value, busy, error }: Answer<Found>, route: Route): string {
  if (busy) return "Searching …";
  if (error || !value) return "";
  const number = value.hits.length;
  const what = value.mode ? (number === 1 ? "hit" : "hits") : number === 1 ? "row" : "rows";
  const how = value.mode ? ` ${route.like ? "like it" : MODE_SAYS[value.mode]}` : " in the table’s order";
  return `${number} ${what}${how}, ${Math.max(1, Math.round(value.took_ms))} ms`;
}

function Hits({ answer: { value, error, busy }, table, route, go }: Props & { answer: Answer<Found> }) {
  if (error) return <Problem error={error} />;
  if (!value) return busy ? <Waiting lines={4} /> : <Start table={table} />;
  if (!value.hits.length) {
    return (
      <Notice title="Nothing found">
        <p>{Object.keys(route.facets).length || route.where ? "No row fulfils every filter." : "Try other words, or search by meaning."}</p>
      </Notice>
    );
  }
  const lengths = bars(value.hits.map(({ score }) => score));
  return (
    <>
      <ol class="hits">
        {value.hits.map((hit, index) => (
          <li key={`${hit.row["doc_id"]} ${hit.row["chunk"]}`}>
            <HitCard table={table} route={route} hit={hit} mode={value.mode} bar={lengths[index] ?? 1} />
          </li>
        ))}
      </ol>
      {value.hits.length >= route.k && route.k < 1000 && (
        <button class="more" onClick={() => go({ k: Math.min(route.k * 2, 1000) })}>More hits</button>
      )}
    </>
  );
}

/** Shown before the first search: the contents of the table. */
function Start({ table }: { table: Table }) {
  return (
    <div class="start">
      <p class="start-number">{table.rows.toLocaleString("en")}</p>
      <p>
        {table.rows === 1 ? "passage" : "passages"} in <b dir="auto">{table.name}</b>
        {table.text_index ? ", searchable by meaning and by words" : ", searchable by meaning"}. Ask in any language; the
        passages need not be in the same one.
      </p>
      <dl class="start-facts">
        {table.model && <div><dt>Model</dt><dd>{table.model}</dd></div>}
        <div><dt>Version</dt><dd>{table.version}</dd></div>
        <div><dt>Columns</dt><dd>{table.columns.length}</dd></div>
      </dl>
    </div>
  );
}
