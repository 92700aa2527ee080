/** The runs of a table, from its versions. */

import type { Quarantine, Version } from "../api.ts";

export interface Run {
  id: string;
  /** Its first and its last commit. */
  begun: string;
  ended: string;
  commits: number;
  /** Rows that the run added. */
  added: number;
  /** Rows per second between its commits; unknown for a single commit. */
  perSecond: number | null;
  /** Rows that it put into the quarantine and that are still there. */
  quarantined: number;
}

/** The runs, newest first. The rows before the oldest listed version are unknown, unless it is the table's first. */
export function runsOf(versions: Version[], quarantine: Quarantine[]): Run[] {
  const runs = new Map<string, Run & { timed: number }>();
  const ascending = [...versions].sort((a, b) => a.version - b.version);
  let before = ascending[0]?.version === 1 ? 0 : (ascending[0]?.rows ?? 0);
  for (const { time, rows, run_id } of ascending) {
    const added = rows === null ? 0 : rows - before;
    before = rows ?? before;
    if (run_id === null) continue;
    const known = runs.get(run_id);
    if (known) {
      known.ended = time;
      known.commits += 1;
      known.added += added;
      known.timed += added;
    } else {
      runs.set(run_id, { id: run_id, begun: time, ended: time, commits: 1, added, perSecond: null, quarantined: 0, timed: 0 });
    }
  }
  for (const { run_id, rows } of quarantine) {
    const run = runs.get(run_id);
    if (run) run.quarantined += rows;
  }
  const list = [...runs.values()].map(({ timed, ...run }) => {
    const seconds = (Date.parse(run.ended) - Date.parse(run.begun)) / 1000;
    return { ...run, perSecond: seconds > 0 && timed > 0 ? timed / seconds : null };
  });
  return list.sort((a, b) => Date.parse(b.begun) - Date.parse(a.begun));
}

export interface Step {
  /** From the left and from the bottom, 0 to 1. */
  x: number;
  y: number;
}

/** The table's rows over time, as corners of a staircase; nothing when nothing changed, or all in one moment. */
export function staircase(versions: Version[]): Step[] {
  const points = versions
    .filter((version): version is Version & { rows: number } => version.rows !== null)
    .map(({ time, rows }) => ({ at: Date.parse(time), rows }))
    .sort((a, b) => a.at - b.at);
  const [first, last] = [points[0], points.at(-1)];
  const most = Math.max(...points.map(({ rows }) => rows));
  if (!first || !last || last.at === first.at || points.every(({ rows }) => rows === most)) return [];
  const place = ({ at, rows }: { at: number; rows: number }): Step => ({ x: (at - first.at) / (last.at - first.at), y: rows / most });
  return points.flatMap((point, index) => {
    const before = points[index - 1];
    const here = place(point);
    return before ? [{ x: here.x, y: place(before).y }, here] : [here];
  });
}

const DATE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium", timeZone: "UTC" });

/** A time as people read it. */
export function timeText(time: string): string {
  const at = Date.parse(time);
  return Number.isNaN(at) ? time : DATE.format(at);
}
