/** The roles of a row's columns. */

import type { Row, Span, Table } from "../api.ts";

/** Columns that polylance itself writes; the rest came with the corpus or from a head. */
const OWN = new Set([
  "doc_id", "chunk", "char_start", "char_end", "text", "n_tokens", "truncated", "embedding", "content_hash", "run_id",
  "map_x", "map_y",
]);

export interface Label {
  column: string;
  label: string;
  score: number | null;
}

export interface RowParts {
  id: string;
  chunk: number;
  text: string;
  /** The corpus's own columns. */
  kept: { column: string; value: unknown }[];
  labels: Label[];
  /** Other columns of heads, as they are. */
  spans: { column: string; spans: Span[] }[];
}

function asLabel(column: string, value: unknown): Label | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const { label, score } = value as { label?: unknown; score?: unknown };
  return typeof label === "string" ? { column, label, score: typeof score === "number" ? score : null } : null;
}

function asSpans(value: unknown): Span[] {
  if (!Array.isArray(value)) return [];
  return value.filter(
    (span): span is Span => typeof span?.label === "string" && Number.isInteger(span.start) && Number.isInteger(span.end),
  );
}

/** A row taken apart. */
export function rowParts(table: Table, row: Row): RowParts {
  const parts: RowParts = {
    id: String(row["doc_id"] ?? ""),
    chunk: Number(row["chunk"] ?? 0),
    text: typeof row["text"] === "string" ? row["text"] : "",
    kept: [],
    labels: [],
    spans: [],
  };
  for (const { name } of table.columns) {
    const value = row[name];
    if (OWN.has(name) || value === null || value === undefined) continue;
    const label = asLabel(name, value);
    if (table.spans.includes(name)) parts.spans.push({ column: name, spans: asSpans(value) });
    else if (label) parts.labels.push(label);
    else parts.kept.push({ column: name, value });
  }
  return parts;
}

/** Columns worth reading when rows are listed without a search. */
export function listedColumns(table: Table): string[] {
  const hidden = new Set(["embedding", "content_hash", "map_x", "map_y"]);
  return table.columns.map(({ name }) => name).filter((name) => !hidden.has(name));
}

/** Whether a table can be searched; a quarantine cannot. */
export function isSearchable(table: Table): boolean {
  return table.dim !== null || table.text_index;
}
