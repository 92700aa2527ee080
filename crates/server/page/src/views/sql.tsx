/** SQL: a statement, its rows, and the rows as a file. */

import { useEffect, useState } from "preact/hooks";
import { api, type SqlResponse, type Table } from "../api.ts";
import { type Go, useAnswer } from "../hooks.ts";
import { csv, plain } from "../logic/csv.ts";
import { examples } from "../logic/examples.ts";
import type { Route } from "../logic/route.ts";
import { Problem, Waiting } from "../parts/notice.tsx";

interface Props {
  tables: Table[];
  table: Table;
  route: Route;
  go: Go;
}

export function SqlView({ tables, table, route, go }: Props) {
  const [text, setText] = useState(route.sql);
  // A statement that is run again must be sent again, so each run has a number.
  const [run, setRun] = useState(0);
  useEffect(() => setText(route.sql), [route.sql]);
  const answer = useAnswer(route.sql ? `sql ${run} ${route.sql}` : null, (signal) => api.sql(route.sql, signal));
  const start = (sql: string): void => {
    if (!sql.trim()) return;
    setRun((run) => run + 1);
    go({ sql: sql.trim() });
  };
  return (
    <div class="sql">
      <h1 tabIndex={-1}>SQL</h1>
      <p class="muted">
        DataFusion’s SQL, reading only.{" "}
        {tables.length > 1 ? "Tables: " : "The table is "}
        {tables.map(({ name }, index) => <span key={name}>{index > 0 && ", "}<code dir="auto">{name}</code></span>)}.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          start(text);
        }}
      >
        <label class="visually-hidden" for="sql">Statement</label>
        <textarea
          id="sql"
          class="code"
          rows={5}
          spellcheck={false}
          autocapitalize="off"
          placeholder="SELECT …"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.preventDefault();
              start(text);
            }
          }}
        />
        <div class="sql-actions">
          <button class="primary">Run <kbd aria-hidden="true">Ctrl ↵</kbd></button>
          <span class="muted" id="examples">Examples:</span>
          <ul class="examples" aria-labelledby="examples">
            {examples(table, tables).map(({ says, sql }) => (
              <li key={says}><button type="button" class="link" onClick={() => start(sql)}>{says}</button></li>
            ))}
          </ul>
        </div>
      </form>
      <p class="summary" role="status">{answer.busy ? "Running …" : answer.value ? summary(answer.value) : ""}</p>
      {answer.error && <Problem error={answer.error} />}
      {answer.busy && !answer.value && <Waiting />}
      {answer.value && !answer.error && <Result result={answer.value} />}
    </div>
  );
}

function summary({ rows, truncated, took_ms }: SqlResponse): string {
  const number = `${rows.length.toLocaleString("en")} ${rows.length === 1 ? "row" : "rows"}`;
  return `${number}${truncated ? ", the first of more" : ""}, ${Math.max(1, Math.round(took_ms))} ms`;
}

function Result({ result }: { result: SqlResponse }) {
  const numeric = result.columns.map(({ type }) => /^(u?int|float|decimal)/i.test(type));
  return (
    <>
      <div class="result" role="region" aria-label="Result" tabIndex={0}>
        <table>
          <thead>
            <tr>{result.columns.map(({ name, type }, index) => <th key={index} scope="col" title={type} class={numeric[index] ? "number" : undefined} dir="auto">{name}</th>)}</tr>
          </thead>
          <tbody>
            {result.rows.map((row, index) => (
              <tr key={index}>
                {result.columns.map(({ name }, column) => (
                  <Cell key={column} value={row[name]} numeric={numeric[column] ?? false} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {result.rows.length > 0 && <button onClick={() => download(result)}>Download as CSV</button>}
    </>
  );
}

/** Characters above which a cell is text to read and not a value. */
const LONG = 60;

function Cell({ value, numeric }: { value: unknown; numeric: boolean }) {
  if (value === null || value === undefined) return <td class="muted">null</td>;
  const text = plain(value);
  return <td dir="auto" class={numeric ? "number" : text.length > LONG ? "long" : undefined}>{text}</td>;
}

function download({ columns, rows }: SqlResponse): void {
  const file = new Blob([csv(columns.map(({ name }) => name), rows)], { type: "text/csv;charset=utf-8" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = "polylance.csv";
  link.click();
  // The browser has begun to read the URL by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
