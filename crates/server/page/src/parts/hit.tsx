/** One hit: the passage, its source, and the scores that ranked it. */

import { useState } from "preact/hooks";
import type { Hit, Mode, Table } from "../api.ts";
import { plain } from "../logic/csv.ts";
import { languageOf } from "../logic/language.ts";
import { formatRoute, K, type Route } from "../logic/route.ts";
import { type RowParts, rowParts } from "../logic/rows.ts";
import { reasons, scoreText } from "../logic/scores.ts";
import { matches } from "../logic/words.ts";
import { Passage } from "./passage.tsx";
import { tone } from "./tones.ts";

/** Characters above which a passage is shown in part. */
const LONG = 700;

interface Props {
  table: Table;
  route: Route;
  hit: Hit;
  /** The search's mode; `null` when rows are only listed. */
  mode: Mode | null;
  /** The length of the score's bar. */
  bar: number;
}

export const hitId = (parts: { id: string; chunk: number }): string => `hit-${parts.id}-${parts.chunk}`;

export function HitCard({ table, route, hit, mode, bar }: Props) {
  const parts = rowParts(table, hit.row);
  const [whole, setWhole] = useState(false);
  const long = parts.text.length > LONG;
  const marked = mode && mode !== "vector" && !route.like ? matches(parts.text, route.query) : [];
  const titleId = `${hitId(parts)}-title`;
  return (
    <article class="hit" id={hitId(parts)} tabIndex={-1} aria-labelledby={titleId}>
      <header class="hit-head">
        <h2 id={titleId} dir="auto">
          <a href={formatRoute({ ...route, view: "document", document: parts.id, chunk: parts.chunk })} data-open>
            {title(parts)}
          </a>
          {parts.chunk > 0 && <span class="muted"> part {parts.chunk + 1}</span>}
        </h2>
        {mode && <Score score={hit.score} bar={bar} />}
      </header>
      <div class={long && !whole ? "clamped" : undefined}>
        <Passage
          text={parts.text}
          lang={languageOf(table, hit.row)}
          spans={parts.spans.flatMap(({ spans }) => spans)}
          matches={marked}
        />
      </div>
      {long && (
        <button class="link" aria-expanded={whole} onClick={() => setWhole(!whole)}>
          {whole ? "Show less" : "Show the whole passage"}
        </button>
      )}
      <Facts parts={parts} />
      <footer class="hit-foot">
        {mode && <Why hit={hit} />}
        <a
          href={formatRoute({ ...route, view: "search", query: "", like: { doc_id: parts.id, chunk: parts.chunk }, k: K })}
          data-like
        >
          More like this
        </a>
      </footer>
    </article>
  );
}

/** The document's title when the corpus has one, else its id. */
function title(parts: RowParts): string {
  const named = parts.kept.find(({ column }) => ["title", "name", "heading"].includes(column.toLowerCase()));
  return (named && plain(named.value)) || parts.id;
}

function Score({ score, bar }: { score: number | null; bar: number }) {
  return (
    <span class="score" title="score; the bar compares it with the other hits">
      <span class="bar" aria-hidden="true"><i style={{ inlineSize: `${Math.round(bar * 100)}%` }} /></span>
      <span class="visually-hidden">score </span>
      {scoreText(score)}
    </span>
  );
}

/** The corpus's own columns and the labels, in one line. */
export function Facts({ parts }: { parts: RowParts }) {
  if (!parts.kept.length && !parts.labels.length) return null;
  return (
    <dl class="facts">
      {parts.labels.map(({ column, label, score }) => (
        <div key={column} class={`label tone-${tone(label)}`}>
          <dt dir="auto">{column}</dt>
          <dd>
            <bdi>{label}</bdi>
            {score !== null && <span class="muted"> {score.toFixed(2)}</span>}
          </dd>
        </div>
      ))}
      {parts.kept.map(({ column, value }) => (
        <div key={column}>
          <dt dir="auto">{column}</dt>
          <dd><bdi>{plain(value)}</bdi></dd>
        </div>
      ))}
    </dl>
  );
}

function Why({ hit }: { hit: Hit }) {
  return (
    <details class="why" data-why>
      <summary>Why</summary>
      <table>
        <caption class="visually-hidden">Rankings that found this hit</caption>
        <thead>
          <tr><th scope="col">by</th><th scope="col">rank</th><th scope="col">measure</th></tr>
        </thead>
        <tbody>
          {reasons(hit).map(({ by, rank, measure, share }) => (
            <tr key={by}>
              <th scope="row">{by}</th>
              <td>{rank}</td>
              <td>
                {measure}
                {share !== null && (
                  <span class="bar" aria-hidden="true"><i style={{ inlineSize: `${Math.round(share * 100)}%` }} /></span>
                )}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}
