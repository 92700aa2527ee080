/** The search of a route; the map highlights its hits. */

import { api, type Hit, type Mode, type SearchRequest, type Table } from "./api.ts";
import { type Answer, useAnswer } from "./hooks.ts";
import { condition } from "./logic/conditions.ts";
import type { Route } from "./logic/route.ts";
import { listedColumns } from "./logic/rows.ts";

export interface Found {
  hits: Hit[];
  /** `null` when rows were listed, not searched. */
  mode: Mode | null;
  took_ms: number;
}

/** The request for a route; `null` when it needs none. */
export function searchRequest(table: Table, route: Route): SearchRequest | null {
  if (!route.query && !route.like) return null;
  const request: SearchRequest = { table: table.name, k: route.k };
  if (route.like) request.like = route.like;
  else request.query = route.query;
  if (route.mode !== "auto" && !route.like) request.mode = route.mode;
  const where = condition(table, route.facets, route.where);
  if (where) request.where = where;
  if (route.byDocument) request.by_document = true;
  if (route.rerank) request.rerank = true;
  return request;
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Without a query: the rows that match the conditions. */
export function listingSql(table: Table, route: Route): string {
  const where = condition(table, route.facets, route.where);
  const first = route.byDocument ? (where ? `(${where}) AND chunk = 0` : "chunk = 0") : where;
  const columns = listedColumns(table).map(quoted).join(", ");
  return `SELECT ${columns} FROM ${quoted(table.name)}${first ? ` WHERE ${first}` : ""} LIMIT ${route.k}`;
}

export function useSearch(table: Table, route: Route): Answer<Found> {
  const request = searchRequest(table, route);
  const filtered = condition(table, route.facets, route.where) !== undefined;
  const sql = request || !filtered ? null : listingSql(table, route);
  const key = request ? JSON.stringify([request, table.version]) : sql && `list ${table.version} ${sql}`;
  return useAnswer(key, async (signal): Promise<Found> => {
    if (request) return api.search(request, signal);
    const listed = await api.sql(sql ?? "", signal);
    const hits = listed.rows.map((row, index) => ({ rank: index + 1, score: null, vector: null, text: null, rerank: null, row }));
    return { hits, mode: null, took_ms: listed.took_ms };
  });
}
