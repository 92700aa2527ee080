/** Statements that work on a table as it is. */

import type { Table } from "../api.ts";

export interface Example {
  says: string;
  sql: string;
}

const quoted = (name: string): string => (/^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`);
const text = (value: string): string => `'${value.replaceAll("'", "''")}'`;

/** Statements on `table`, and on the quarantines that are served with it. */
export function examples(table: Table, tables: Table[]): Example[] {
  const from = quoted(table.name);
  const found: Example[] = [];
  const facet = table.facets[0];
  if (facet) {
    const isStruct = table.columns.find(({ name }) => name === facet)?.type.toLowerCase().startsWith("struct");
    const column = quoted(facet) + (isStruct ? "['label']" : "");
    found.push({
      says: `rows by ${facet}`,
      sql: `SELECT ${column} AS ${quoted(facet)}, count(*) AS n\nFROM ${from}\nGROUP BY 1\nORDER BY n DESC`,
    });
  }
  found.push({ says: "first rows", sql: `SELECT doc_id, chunk, n_tokens, text\nFROM ${from}\nLIMIT 20` });
  if (table.dim !== null) {
    found.push({
      says: "nearest by meaning",
      sql: `SELECT score, doc_id, text\nFROM vector_search(${text(table.name)}, 'the right to education', 10)`,
    });
  }
  const spans = table.spans[0];
  if (spans) {
    found.push({
      says: `most frequent ${spans}`,
      sql: `SELECT label, text, count(*) AS times\nFROM spans(${text(table.name)}, ${text(spans)})\nGROUP BY 1, 2\nORDER BY times DESC\nLIMIT 20`,
    });
  }
  for (const { name } of tables.filter(({ name }) => /[._]quarantine$/.test(name))) {
    found.push({ says: `rows in ${name}`, sql: `SELECT *\nFROM ${quoted(name)}\nLIMIT 50` });
  }
  return found;
}
