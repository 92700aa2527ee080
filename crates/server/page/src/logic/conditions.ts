/** Facets as SQL conditions. */

import type { Column, FacetValue, Table } from "../api.ts";

/** Chosen values by column; `null` is a row without a value. */
export type Facets = Record<string, (string | null)[]>;

/** A column's name in a condition. Backticks quote names in Lance's conditions and in SQL alike. */
export function identifier(name: string): string {
  return `\`${name.replaceAll("`", "``")}\``;
}

/** A text as a SQL literal. */
export function literal(value: string): string {
  return `'${value.replaceAll("'", "''")}'`;
}

const isBoolean = (column: Column | undefined): boolean => column?.type.toLowerCase().startsWith("bool") ?? false;
const isStruct = (column: Column | undefined): boolean => column?.type.toLowerCase().startsWith("struct") ?? false;

/** A facet value as the address of the page keeps it. */
export function facetKey(value: FacetValue["value"]): string | null {
  return value === null ? null : String(value);
}

/** Rows in which `column` has one of `values`; `undefined` when there are no values. */
export function facetCondition(column: Column, values: (string | null)[]): string | undefined {
  const name = identifier(column.name) + (isStruct(column) ? ".label" : "");
  const given = values.filter((value): value is string => value !== null);
  const parts: string[] = [];
  if (given.length) {
    const literals = isBoolean(column) ? given.map((value) => String(value === "true")) : given.map(literal);
    parts.push(literals.length === 1 ? `${name} = ${literals[0]}` : `${name} IN (${literals.join(", ")})`);
  }
  if (given.length < values.length) parts.push(`${name} IS NULL`);
  return parts.length > 1 ? `(${parts.join(" OR ")})` : parts[0];
}

/** Every facet's condition and the reader's own, except the facet `without`; `undefined` when all rows match. */
export function condition(table: Table, facets: Facets, where: string, without?: string): string | undefined {
  const parts = where.trim() ? [`(${where.trim()})`] : [];
  for (const [name, values] of Object.entries(facets)) {
    const column = table.columns.find((column) => column.name === name);
    if (!column || name === without) continue;
    const part = facetCondition(column, values);
    if (part) parts.push(part);
  }
  return parts.length ? parts.join(" AND ") : undefined;
}

/** The facets with one value put in, or taken out when it was there. */
export function toggled(facets: Facets, column: string, value: string | null): Facets {
  const before = facets[column] ?? [];
  const after = before.includes(value) ? before.filter((other) => other !== value) : [...before, value];
  const { [column]: _, ...others } = facets;
  return after.length ? { ...others, [column]: after } : others;
}
