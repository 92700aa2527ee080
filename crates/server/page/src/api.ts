/** The server's HTTP interface: its types, and one function per route. */

import { parse } from "./logic/json.ts";

export interface Column {
  name: string;
  type: string;
  nullable: boolean;
}

export interface Table {
  name: string;
  rows: number;
  version: number;
  columns: Column[];
  model: string | null;
  dim: number | null;
  /** Columns whose values can be counted: text and boolean columns of the source, and labels. */
  facets: string[];
  /** Columns of spans: `List<Struct<label, score, start, end, text>>`. */
  spans: string[];
  text_index: boolean;
  map: boolean;
}

export type Row = Record<string, unknown>;

/** A span of text; offsets count Unicode scalar values within the row's text. */
export interface Span {
  label: string;
  score?: number | null;
  start: number;
  end: number;
  text?: string | null;
}

export interface Hit {
  rank: number;
  /** Higher is better; `null` for a row that the reranker could not read. */
  score: number | null;
  vector: { rank: number; distance: number } | null;
  text: { rank: number; bm25: number } | null;
  rerank: { rank: number; score: number | null } | null;
  row: Row;
}

export type Mode = "vector" | "text" | "hybrid";

export interface SearchRequest {
  table: string;
  query?: string;
  like?: { doc_id: string; chunk: number };
  mode?: Mode;
  k: number;
  where?: string;
  by_document?: boolean;
  rerank?: boolean;
}

export interface SearchResponse {
  table: string;
  version: number;
  mode: Mode;
  took_ms: number;
  hits: Hit[];
}

export interface FacetValue {
  value: string | boolean | number | null;
  count: number;
}

export interface SqlResponse {
  columns: { name: string; type: string }[];
  rows: Row[];
  truncated: boolean;
  took_ms: number;
}

export interface MapPoints {
  x: number[];
  y: number[];
  doc_id: string[];
  chunk: number[];
  color: (string | number | boolean | null)[] | null;
}

export interface Version {
  version: number;
  /** When it was committed, UTC. */
  time: string;
  rows: number | null;
  operation: string | null;
  run_id: string | null;
}

export interface Quarantine {
  run_id: string;
  stage: string;
  rows: number;
}

export interface History {
  /** Newest first. */
  versions: Version[];
  quarantine: Quarantine[];
}

export interface DocumentResponse {
  doc_id: string;
  chunks: Row[];
}

/** An error of the server, or of the connection to it. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

const TOKEN = "polylance.token";

/** The token lives as long as the browser's tab. */
export const token = {
  get: (): string => sessionStorage.getItem(TOKEN) ?? "",
  set: (value: string): void => (value ? sessionStorage.setItem(TOKEN, value) : sessionStorage.removeItem(TOKEN)),
};

async function call<T>(path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const headers: Record<string, string> = { accept: "application/json" };
  if (token.get()) headers["authorization"] = `Bearer ${token.get()}`;
  const init: RequestInit = { headers, signal: signal ?? null };
  if (body !== undefined) {
    headers["content-type"] = "application/json";
    Object.assign(init, { method: "POST", body: JSON.stringify(body) });
  }
  let response: Response;
  try {
    response = await fetch(new URL(path, document.baseURI), init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the server does not answer", "Is polylance serve still running?");
  }
  const text = await response.text();
  if (!response.ok) throw refused(response.status, text);
  return parse(text) as T;
}

function refused(status: number, text: string): ApiError {
  try {
    const { code, message, hint } = (JSON.parse(text) as { error: { code: string; message: string; hint?: string } })
      .error;
    return new ApiError(status, code, message, hint ?? null);
  } catch {
    return new ApiError(status, "unexpected", `the server answered ${status}`, text.slice(0, 200) || null);
  }
}

const query = (values: Record<string, string | undefined>): string => {
  const given = Object.entries(values).filter((entry): entry is [string, string] => Boolean(entry[1]));
  return given.length ? `?${new URLSearchParams(given)}` : "";
};

const part = encodeURIComponent;

export const api = {
  tables: async (signal?: AbortSignal) => (await call<{ tables: Table[] }>("v1/tables", undefined, signal)).tables,
  search: (request: SearchRequest, signal?: AbortSignal) => call<SearchResponse>("v1/search", request, signal),
  sql: (sql: string, signal?: AbortSignal) => call<SqlResponse>("v1/sql", { sql }, signal),
  document: (table: string, id: string, signal?: AbortSignal) =>
    call<DocumentResponse>(`v1/tables/${part(table)}/documents/${part(id)}`, undefined, signal),
  facets: async (table: string, column: string, where: string | undefined, limit: number, signal?: AbortSignal) => {
    const asked = query({ column, where, limit: String(limit) });
    return (await call<{ values: FacetValue[] }>(`v1/tables/${part(table)}/facets${asked}`, undefined, signal)).values;
  },
  history: (table: string, signal?: AbortSignal) => call<History>(`v1/tables/${part(table)}/history`, undefined, signal),
  map: async (table: string, color: string | undefined, limit: number, signal?: AbortSignal) => {
    const asked = query({ color, limit: String(limit) });
    return (await call<{ points: MapPoints }>(`v1/tables/${part(table)}/map${asked}`, undefined, signal)).points;
  },
};
