/** What the page shows, as the part of its address after the `#`: a search can be linked, and Back works. */

import type { Mode } from "../api.ts";
import type { Facets } from "./conditions.ts";

export const VIEWS = ["search", "document", "map", "sql", "runs"] as const;
export type View = (typeof VIEWS)[number];

export interface Route {
  view: View;
  /** The table's name; empty for the first. */
  table: string;
  query: string;
  /** A row instead of a query: the search finds similar rows. */
  like: { doc_id: string; chunk: number } | null;
  /** `auto` leaves the choice to the server. */
  mode: Mode | "auto";
  k: number;
  where: string;
  facets: Facets;
  byDocument: boolean;
  rerank: boolean;
  /** The document that is open, and the chunk to scroll to. */
  document: string;
  chunk: number | null;
  /** The column that colours the map. */
  color: string;
  sql: string;
}

export const K = 10;

export const START: Route = {
  view: "search",
  table: "",
  query: "",
  like: null,
  mode: "auto",
  k: K,
  where: "",
  facets: {},
  byDocument: false,
  rerank: false,
  document: "",
  chunk: null,
  color: "",
  sql: "",
};

const MODES: readonly string[] = ["auto", "vector", "text", "hybrid"];
const FACET = "f.";
const MISSING = "null.";

function count(text: string | null): number | null {
  return text !== null && /^\d{1,9}$/.test(text) ? Number(text) : null;
}

/** Reads an address. The result is always a route: unknown parts are ignored. */
export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#?\/?/, "").split(/\?(.*)/s);
  const given = new URLSearchParams(query);
  const text = (name: string): string => given.get(name) ?? "";
  const facets: Facets = {};
  for (const [name, value] of given) {
    if (name.startsWith(FACET)) (facets[name.slice(FACET.length)] ??= []).push(value);
    if (name.startsWith(MISSING)) (facets[name.slice(MISSING.length)] ??= []).push(null);
  }
  const like = text("like");
  const mode = text("mode");
  return {
    view: VIEWS.find((view) => view === path) ?? "search",
    table: text("table"),
    query: text("q"),
    like: like ? { doc_id: like, chunk: count(given.get("like_chunk")) ?? 0 } : null,
    mode: MODES.includes(mode) ? (mode as Route["mode"]) : "auto",
    k: Math.min(Math.max(count(given.get("k")) ?? K, 1), 1000),
    where: text("where"),
    facets,
    byDocument: text("by") === "document",
    rerank: text("rerank") === "1",
    document: text("doc"),
    chunk: count(given.get("chunk")),
    color: text("color"),
    sql: text("sql"),
  };
}

/** Writes an address without the parts that have their default. */
export function formatRoute(route: Route): string {
  const given = new URLSearchParams();
  const put = (name: string, value: string | number | null | false): void => {
    if (value !== "" && value !== null && value !== false) given.append(name, String(value));
  };
  put("table", route.table);
  put("q", route.like ? "" : route.query);
  put("like", route.like?.doc_id ?? "");
  put("like_chunk", route.like?.chunk || null);
  put("mode", route.mode === "auto" ? "" : route.mode);
  put("k", route.k === K ? null : route.k);
  put("where", route.where);
  for (const [column, values] of Object.entries(route.facets)) {
    // An empty text is a value too, so facets go round `put`.
    for (const value of values) given.append((value === null ? MISSING : FACET) + column, value ?? "1");
  }
  put("by", route.byDocument && "document");
  put("rerank", route.rerank && "1");
  if (route.view === "document") {
    put("doc", route.document);
    put("chunk", route.chunk);
  }
  if (route.view === "map") put("color", route.color);
  if (route.view === "sql") put("sql", route.sql);
  const query = given.toString();
  return `#/${route.view}${query ? `?${query}` : ""}`;
}
