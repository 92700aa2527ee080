/** The runs: the rows that each added, its speed, and the rows that it could not process. */

import { api, type History, type Table, type Version } from "../api.ts";
import { useAnswer } from "../hooks.ts";
import { type Run, runsOf, staircase, timeText } from "../logic/runs.ts";
import { Notice, Problem, Waiting } from "../parts/notice.tsx";

export function RunsView({ table }: { table: Table }) {
  const answer = useAnswer(`history ${table.name}@${table.version}`, (signal) => api.history(table.name, signal));
  return (
    <div class="runs">
      <h1 tabIndex={-1}>Runs of <span dir="auto">{table.name}</span></h1>
      {answer.error && <Problem error={answer.error} />}
      {answer.busy && !answer.value && <Waiting />}
      {answer.value && <Past history={answer.value} />}
    </div>
  );
}

const number = (value: number): string => value.toLocaleString("en");

function Past({ history: { versions, quarantine } }: { history: History }) {
  const runs = runsOf(versions, quarantine);
  return (
    <>
      <Growth versions={versions} />
      <h2>Runs</h2>
      {runs.length === 0
        ? <Notice title="No run is known"><p>These versions were not written by <code>polylance run</code>.</p></Notice>
        : <RunsTable runs={runs} />}
      <h2>Quarantine</h2>
      {quarantine.length === 0
        ? <p class="muted">Every row could be read.</p>
        : (
          <div class="result" role="region" aria-label="Quarantine" tabIndex={0}>
            <table>
              <thead><tr><th scope="col">Run</th><th scope="col">Stage</th><th scope="col" class="number">Rows</th></tr></thead>
              <tbody>
                {quarantine.map(({ run_id, stage, rows }) => (
                  <tr key={`${run_id} ${stage}`}><td><code>{run_id}</code></td><td>{stage}</td><td class="number">{number(rows)}</td></tr>
                ))}
              </tbody>
            </table>
          </div>
        )}
      <h2>Versions</h2>
      <Versions versions={versions} />
    </>
  );
}

/** The curve's own units; it is drawn at the available width. */
const [WIDTH, HEIGHT] = [1000, 200];

function Growth({ versions }: { versions: Version[] }) {
  const steps = staircase(versions);
  const [first, last] = [versions.at(-1), versions[0]];
  if (steps.length === 0 || !first || !last) return null;
  const corners = steps.map(({ x, y }) => `${(x * WIDTH).toFixed(1)},${((1 - y) * HEIGHT).toFixed(1)}`).join(" ");
  const most = Math.max(...versions.map(({ rows }) => rows ?? 0));
  return (
    <figure class="growth">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label={`Rows over time, ${number(most)} at most`}>
        <polygon points={`0,${HEIGHT} ${corners} ${WIDTH},${HEIGHT}`} />
        <polyline points={corners} vector-effect="non-scaling-stroke" />
      </svg>
      <figcaption>
        <span>{timeText(first.time)}</span>
        <span>{number(most)} rows</span>
        <span>{timeText(last.time)}</span>
      </figcaption>
    </figure>
  );
}

function RunsTable({ runs }: { runs: Run[] }) {
  const fastest = Math.max(...runs.map(({ perSecond }) => perSecond ?? 0));
  return (
    <div class="result" role="region" aria-label="Runs" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Run</th><th scope="col">Last commit, UTC</th><th scope="col" class="number">Commits</th>
            <th scope="col" class="number">Rows added</th><th scope="col" class="number">Quarantined</th><th scope="col">Rows a second</th>
          </tr>
        </thead>
        <tbody>
          {runs.map(({ id, ended, commits, added, quarantined, perSecond }) => (
            <tr key={id}>
              <td><code>{id}</code></td>
              <td>{timeText(ended)}</td>
              <td class="number">{number(commits)}</td>
              <td class="number">{number(added)}</td>
              <td class="number">{number(quarantined)}</td>
              <td>
                {perSecond === null
                  ? <span class="muted">one commit does not tell</span>
                  : <span class="rate"><i aria-hidden="true" style={{ inlineSize: `${(100 * perSecond) / fastest}%` }} />{perSecond.toFixed(1)}</span>}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Versions({ versions }: { versions: Version[] }) {
  return (
    <div class="result" role="region" aria-label="Versions" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col" class="number">Version</th><th scope="col">Time, UTC</th><th scope="col">What was done</th>
            <th scope="col" class="number">Rows</th><th scope="col">Run</th>
          </tr>
        </thead>
        <tbody>
          {versions.map(({ version, time, operation, rows, run_id }) => (
            <tr key={version}>
              <td class="number">{version}</td>
              <td>{timeText(time)}</td>
              <td>{operation ?? ""}</td>
              <td class="number">{rows === null ? "" : number(rows)}</td>
              <td>{run_id && <code>{run_id}</code>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
