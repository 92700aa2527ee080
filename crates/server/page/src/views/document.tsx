/** A document: its chunks in order, every span, and the other columns of the corpus. */

import { useEffect } from "preact/hooks";
import { api, type DocumentResponse, type Span, type Table } from "../api.ts";
import { close, type Go, useAnswer } from "../hooks.ts";
import { plain } from "../logic/csv.ts";
import { languageOf } from "../logic/language.ts";
import { formatRoute, K, type Route } from "../logic/route.ts";
import { type RowParts, rowParts } from "../logic/rows.ts";
import { matches } from "../logic/words.ts";
import { Facts } from "../parts/hit.tsx";
import { Problem, Waiting } from "../parts/notice.tsx";
import { Passage } from "../parts/passage.tsx";
import { tone } from "../parts/tones.ts";

interface Props {
  table: Table;
  route: Route;
  go: Go;
}

export function DocumentView({ table, route, go }: Props) {
  const key = `document ${table.name}@${table.version} ${route.document}`;
  const { value, error, busy } = useAnswer(key, (signal) => api.document(table.name, route.document, signal));
  useEffect(() => {
    if (value && route.chunk) document.getElementById(`chunk-${route.chunk}`)?.scrollIntoView({ block: "center" });
  }, [value, route.chunk]);
  return (
    <article class="document">
      <button class="link back" onClick={() => close(go)}>← Back <kbd aria-hidden="true">Esc</kbd></button>
      <h1 dir="auto" tabIndex={-1}>{route.document}</h1>
      <p class="visually-hidden" role="status">{value ? `${value.chunks.length} parts` : busy ? "Loading …" : ""}</p>
      {error && <Problem error={error} />}
      {!value && busy && <Waiting />}
      {value && <Chunks table={table} route={route} document={value} />}
    </article>
  );
}

function Chunks({ table, route, document }: { table: Table; route: Route; document: DocumentResponse }) {
  const chunks = document.chunks.map((row) => ({ row, parts: rowParts(table, row) }));
  const first = chunks[0];
  const shared = first ? sharedColumns(chunks.map(({ parts }) => parts)) : [];
  return (
    <>
      {shared.length > 0 && (
        <dl class="metadata">
          {shared.map(({ column, value }) => (
            <div key={column}><dt dir="auto">{column}</dt><dd><bdi>{plain(value)}</bdi></dd></div>
          ))}
        </dl>
      )}
      <Legend spans={chunks.flatMap(({ parts }) => parts.spans.flatMap(({ spans }) => spans))} />
      {chunks.map(({ row, parts }) => (
        <section
          key={parts.chunk}
          id={`chunk-${parts.chunk}`}
          class={route.chunk === parts.chunk && chunks.length > 1 ? "chunk current" : "chunk"}
          aria-label={`Part ${parts.chunk + 1} of ${chunks.length}`}
        >
          <Passage
            text={parts.text}
            lang={languageOf(table, row)}
            spans={parts.spans.flatMap(({ spans }) => spans)}
            matches={route.query && route.mode !== "vector" && table.text_index ? matches(parts.text, route.query) : []}
          />
          <Facts parts={{ ...parts, kept: parts.kept.filter(({ column }) => !shared.some((one) => one.column === column)) }} />
          <p class="chunk-foot muted">
            {chunks.length > 1 && <span>part {parts.chunk + 1} of {chunks.length}</span>}
            <Measures row={row} />
            <a href={formatRoute({ ...route, view: "search", query: "", like: { doc_id: parts.id, chunk: parts.chunk }, k: K })}>
              More like this
            </a>
          </p>
        </section>
      ))}
    </>
  );
}

function Measures({ row }: { row: Record<string, unknown> }) {
  const number = (name: string): string => Number(row[name]).toLocaleString("en");
  return (
    <>
      {row["char_end"] !== undefined && <span>characters {number("char_start")}–{number("char_end")}</span>}
      {row["n_tokens"] !== undefined && <span>{number("n_tokens")} tokens</span>}
      {row["truncated"] === true && <span>cut off to fit the model</span>}
    </>
  );
}

/** Columns with the same value in every chunk: they describe the document. */
function sharedColumns(chunks: RowParts[]): RowParts["kept"] {
  const [first, ...others] = chunks;
  if (!first) return [];
  return first.kept.filter(({ column, value }) =>
    others.every(({ kept }) => {
      const same = kept.find((one) => one.column === column);
      return same !== undefined && plain(same.value) === plain(value);
    }),
  );
}

function Legend({ spans }: { spans: Span[] }) {
  if (!spans.length) return null;
  const counts = new Map<string, number>();
  for (const { label } of spans) counts.set(label, (counts.get(label) ?? 0) + 1);
  return (
    <ul class="legend" aria-label="Labels of the marked spans">
      {[...counts].sort((a, b) => b[1] - a[1]).map(([label, count]) => (
        <li key={label}>
          <span class={`swatch tone-${tone(label)}`} aria-hidden="true" />
          <bdi>{label}</bdi> <span class="muted">{count}</span>
        </li>
      ))}
    </ul>
  );
}
