/** The values of a table's columns with their counts; a checked value is a condition. */

import { useState } from "preact/hooks";
import { api, type FacetValue, type Table } from "../api.ts";
import { type Go, useAnswer } from "../hooks.ts";
import { condition, facetKey, toggled } from "../logic/conditions.ts";
import { isLanguageTag, languageColumns, languageName } from "../logic/language.ts";
import { K, type Route } from "../logic/route.ts";

const FEW = 10;
const MANY = 60;

interface Props {
  table: Table;
  route: Route;
  go: Go;
}

export function Facets({ table, route, go }: Props) {
  const [open, setOpen] = useState(() => new Set([...table.facets.slice(0, 2), ...Object.keys(route.facets)]));
  const chosen = Object.values(route.facets).flat().length;
  if (!table.facets.length) return <p class="muted">This table has no columns to filter by.</p>;
  return (
    <>
      {chosen > 0 && (
        <button class="link" onClick={() => go({ facets: {} })}>
          Clear {chosen === 1 ? "the filter" : `all ${chosen} filters`}
        </button>
      )}
      {table.facets.map((column) => (
        <details
          key={column}
          class="facet"
          open={open.has(column)}
          onToggle={(event) => {
            const next = new Set(open);
            if (event.currentTarget.open) next.add(column);
            else next.delete(column);
            setOpen(next);
          }}
        >
          <summary dir="auto">{column}</summary>
          {open.has(column) && <FacetValues column={column} table={table} route={route} go={go} />}
        </details>
      ))}
    </>
  );
}

function FacetValues({ column, table, route, go }: Props & { column: string }) {
  const [all, setAll] = useState(false);
  const where = condition(table, route.facets, route.where, column);
  const key = `facet ${table.name}@${table.version} ${column} ${where ?? ""}`;
  // One value more than is ever shown, to know whether there are more.
  const { value, error, busy } = useAnswer(key, (signal) => api.facets(table.name, column, where, MANY + 1, signal));
  if (error) return <p class="muted" dir="auto">{error.message}</p>;
  if (!value) return <p class="muted">…</p>;
  const chosen = route.facets[column] ?? [];
  const counted = value.slice(0, MANY);
  const shown = counted.filter(({ value }, index) => all || index < FEW || chosen.includes(facetKey(value)));
  const gone = chosen.filter((key) => !shown.some(({ value }) => facetKey(value) === key));
  const languages = languageColumns(table).includes(column);
  return (
    <fieldset aria-busy={busy}>
      <legend class="visually-hidden">{column}</legend>
      {[...gone.map((value) => ({ value, count: null })), ...shown].map(({ value, count }) => (
        <label class="check facet-value" key={facetKey(value) ?? "\0"}>
          <input
            type="checkbox"
            checked={chosen.includes(facetKey(value))}
            onChange={() => go({ facets: toggled(route.facets, column, facetKey(value)), k: K })}
          />
          <ValueName value={value} language={languages} />
          <span class="count">{count === null ? "" : count.toLocaleString("en")}</span>
        </label>
      ))}
      {!shown.length && !gone.length && <p class="muted">no values</p>}
      {!all && counted.length > shown.length && (
        <button class="link" onClick={() => setAll(true)}>Show {counted.length - shown.length} more</button>
      )}
      {all && value.length > MANY && <p class="muted">and more; a condition finds them</p>}
    </fieldset>
  );
}

function ValueName({ value, language }: { value: FacetValue["value"]; language: boolean }) {
  if (value === null) return <em class="facet-name">no value</em>;
  const name = language && isLanguageTag(value) ? languageName(value) : undefined;
  return (
    <span class="facet-name">
      <bdi>{value === "" ? "(empty)" : String(value)}</bdi>
      {name && <span class="muted"> {name}</span>}
    </span>
  );
}
