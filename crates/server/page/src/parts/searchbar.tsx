/** The search box and the search options. */

import { useEffect, useState } from "preact/hooks";
import type { Table } from "../api.ts";
import type { Go } from "../hooks.ts";
import { formatRoute, K, type Route } from "../logic/route.ts";
import { MODE_NAMES } from "../logic/scores.ts";

const MODES: Route["mode"][] = ["auto", "vector", "text", "hybrid"];
const COUNTS = [10, 20, 50, 100];

interface Props {
  table: Table;
  route: Route;
  go: Go;
}

/** Whether the table supports this mode. */
function possible(table: Table, mode: Route["mode"]): boolean {
  if (mode === "vector") return table.dim !== null;
  if (mode === "text") return table.text_index;
  return mode === "auto" || (table.dim !== null && table.text_index);
}

export function SearchBar({ table, route, go }: Props) {
  const [text, setText] = useState(route.query);
  // Back and links change the query from outside the box.
  useEffect(() => setText(route.query), [route.query, route.like]);
  return (
    <search class="search">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          go({ query: text.trim(), like: null, k: K });
        }}
      >
        <label class="visually-hidden" for="query">Search {table.name}</label>
        <div class="box">
          <input
            id="query"
            type="search"
            dir="auto"
            autocomplete="off"
            spellcheck={false}
            enterkeyhint="search"
            placeholder="Search in any language"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          <kbd class="box-key" aria-hidden="true">/</kbd>
          <button class="primary">Search</button>
        </div>
        {route.like && (
          <p class="like">
            Passages like <bdi><a href={formatRoute({ ...route, view: "document", document: route.like.doc_id, chunk: route.like.chunk })}>{route.like.doc_id}</a></bdi>
            {route.like.chunk > 0 && `, part ${route.like.chunk + 1}`}
            <button type="button" class="link" onClick={() => go({ like: null, query: text.trim() })}>Clear</button>
          </p>
        )}
        <div class="options">
          <fieldset class="modes">
            <legend class="visually-hidden">Search by</legend>
            {MODES.map((mode) => (
              <label key={mode} title={possible(table, mode) ? undefined : missing(mode)}>
                <input
                  type="radio"
                  name="mode"
                  value={mode}
                  checked={route.mode === mode}
                  disabled={!possible(table, mode)}
                  onChange={() => go({ mode })}
                />
                <span>{MODE_NAMES[mode]}</span>
              </label>
            ))}
          </fieldset>
          <label class="field-inline">
            Hits
            <select value={route.k} onChange={(event) => go({ k: Number(event.currentTarget.value) })}>
              {[...new Set([...COUNTS, route.k])].sort((a, b) => a - b).map((k) => <option key={k} value={k}>{k}</option>)}
            </select>
          </label>
          <label class="check">
            <input type="checkbox" checked={route.byDocument} onChange={() => go({ byDocument: !route.byDocument })} />
            One per document
          </label>
          <label class="check">
            <input type="checkbox" checked={route.rerank} onChange={() => go({ rerank: !route.rerank })} />
            Rerank
          </label>
        </div>
      </form>
    </search>
  );
}

function missing(mode: Route["mode"]): string {
  return mode === "vector" ? "the table has no vectors" : "the table has no text index";
}

/** The reader's own condition; it becomes part of the search when it is entered. */
export function WhereField({ route, go }: { route: Route; go: Go }) {
  const [text, setText] = useState(route.where);
  useEffect(() => setText(route.where), [route.where]);
  return (
    <form
      class="where"
      onSubmit={(event) => {
        event.preventDefault();
        go({ where: text.trim() });
      }}
    >
      <label for="where">SQL condition</label>
      <input
        id="where"
        type="text"
        class="code"
        autocomplete="off"
        autocapitalize="off"
        spellcheck={false}
        placeholder="article &lt;= 10"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onBlur={() => text.trim() !== route.where && go({ where: text.trim() })}
      />
    </form>
  );
}
