import assert from "node:assert/strict";
import { test } from "node:test";
import { runsOf, staircase, timeText } from "../node_modules/.logic/logic/runs.js";

const version = (version, time, rows, run_id) => ({ version, time: `2026-03-01T10:00:${time}Z`, rows, operation: "Append", run_id });

test("a run is its commits and the rows that each added", () => {
  const versions = [version(3, "30", 350, "b"), version(2, "10", 150, "b"), version(1, "00", 100, "a")];
  const [b, a] = runsOf(versions, [{ run_id: "b", stage: "read", rows: 2 }, { run_id: "gone", stage: "read", rows: 9 }]);
  assert.deepEqual([b.id, b.commits, b.added, b.perSecond, b.quarantined], ["b", 2, 250, 10, 2]);
  assert.deepEqual([a.id, a.commits, a.added, a.perSecond, a.quarantined], ["a", 1, 100, null, 0]);
});

test("the oldest remaining version counts no added rows", () => {
  const [run] = runsOf([version(9, "10", 500, "x"), version(8, "00", 480, "x")], []);
  assert.deepEqual([run.added, run.perSecond], [20, 2]);
  assert.deepEqual(runsOf([], []), []);
  assert.deepEqual(runsOf([version(1, "00", 5, null)], []), []);
});

test("rows over time are a staircase from corner to corner", () => {
  const steps = staircase([version(3, "20", 100, null), version(2, "10", 50, null), version(1, "00", 0, null)]);
  assert.deepEqual(steps, [{ x: 0, y: 0 }, { x: 0.5, y: 0 }, { x: 0.5, y: 0.5 }, { x: 1, y: 0.5 }, { x: 1, y: 1 }]);
  assert.deepEqual(staircase([version(1, "00", 7, null)]), []);
  assert.deepEqual(staircase([version(2, "10", 7, null), version(1, "00", 7, null)]), []);
  assert.deepEqual(staircase([{ ...version(1, "00", 7, null), rows: null }]), []);
});

test("a time is formatted, and anything else stays unchanged", () => {
  assert.match(timeText("2026-03-01T10:00:00Z"), /1 Mar 2026.*10:00:00/);
  assert.equal(timeText("yesterday"), "yesterday");
});
