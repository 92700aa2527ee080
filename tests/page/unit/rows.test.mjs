import assert from "node:assert/strict";
import { test } from "node:test";
import { actionOf } from "../node_modules/.logic/logic/keys.js";
import { isLanguageTag, languageOf } from "../node_modules/.logic/logic/language.js";
import { rowParts } from "../node_modules/.logic/logic/rows.js";
import { bars, reasons, scoreText } from "../node_modules/.logic/logic/scores.js";
import { fit, Grid, pan, toData, toScreen, zoom } from "../node_modules/.logic/map/camera.js";
import { categories } from "../node_modules/.logic/map/categories.js";

const columns = ["doc_id", "chunk", "text", "lang", "language", "topic", "entities", "run_id"].map((name) => ({ name, type: "Utf8" }));
const table = { columns, spans: ["entities"] };

test("a row is divided by the kinds of its columns", () => {
  const parts = rowParts(table, {
    doc_id: "a", chunk: 2, text: "t", lang: "ar", language: null, run_id: "r",
    topic: { label: "rights", score: 0.5 },
    entities: [{ label: "PER", start: 0, end: 1 }, { label: "PER", start: "x" }, null],
  });
  assert.deepEqual(parts.kept, [{ column: "lang", value: "ar" }]);
  assert.deepEqual(parts.labels, [{ column: "topic", label: "rights", score: 0.5 }]);
  assert.deepEqual(parts.spans[0].spans, [{ label: "PER", start: 0, end: 1 }]);
  assert.equal(parts.chunk, 2);
});

test("a language's code is a language, its name is not", () => {
  for (const tag of ["ar", "swh", "pt-PT", "zh-Hans", "zh_Hant"]) assert.ok(isLanguageTag(tag), tag);
  for (const other of ["Arabic", "english", "", null, 3, "Arabic, Standard", "a"]) assert.ok(!isLanguageTag(other), String(other));
  assert.equal(languageOf(table, { lang: "zh_Hans", language: "Chinese" }), "zh-Hans");
  assert.equal(languageOf(table, { lang: "Thai", language: "th" }), "th");
  assert.equal(languageOf(table, { lang: "Thai" }), undefined);
});

test("bars compare the hits of one list", () => {
  assert.deepEqual(bars([0.9, 0.8]).map((bar) => bar.toFixed(2)), ["1.00", "0.15"]);
  assert.deepEqual(bars([3, 3]), [1, 1]);
  assert.deepEqual(bars([2, 1, null]), [1, 0.15, 0]);
  assert.deepEqual(["12.3", "0.912", "0.0328"], [12.34, 0.912, 0.0328].map(scoreText));
});

test("reasons are the rankings that found the hit", () => {
  const all = reasons({ vector: { rank: 1, distance: 0.09 }, text: { rank: 3, bm25: 7.1 }, rerank: { rank: 2, score: 0.99 } });
  assert.deepEqual(all.map(({ by, rank }) => [by, rank]), [["meaning", 1], ["words", 3], ["reranker", 2]]);
  assert.deepEqual(reasons({ vector: null, text: null, rerank: null }), []);
});

test("keys are ignored while typing, with a modifier, or when letter keys are off", () => {
  const press = (key, change = {}) =>
    actionOf({ key, ctrlKey: false, altKey: false, metaKey: false, typing: false, letters: true, ...change });
  assert.equal(press("/"), "focus-search");
  assert.equal(press("j"), "next");
  assert.equal(press("ArrowUp"), "previous");
  assert.equal(press("j", { typing: true }), null);
  assert.equal(press("Escape", { typing: true }), "close");
  assert.equal(press("k", { ctrlKey: true }), null);
  assert.equal(press("j", { letters: false }), null);
  assert.equal(press("ArrowDown", { letters: false }), "next");
  assert.equal(press("x"), null);
});

test("the camera shows every point, and zoom keeps the place below the pointer", () => {
  const [x, y] = [[-5, 10, 0], [2, -8, 4]];
  const camera = fit(x, y, { width: 800, height: 600 });
  for (const index of [0, 1, 2]) {
    const at = toScreen(camera, x[index], y[index]);
    assert.ok(at.x >= 0 && at.x <= 800 && at.y >= 0 && at.y <= 600);
  }
  const at = { x: 123, y: 456 };
  const near = zoom(pan(camera, 10, -20), 3, at, [0, 1e9]);
  const before = toData(pan(camera, 10, -20), at);
  assert.ok(Math.hypot(toData(near, at).x - before.x, toData(near, at).y - before.y) < 1e-9);
  assert.ok(Number.isFinite(fit([1], [1], { width: 10, height: 10 }).scale));
  assert.ok(Number.isFinite(fit([], [], { width: 10, height: 10 }).scale));
});

test("the grid finds the same point as a comparison with every point", () => {
  let seed = 7;
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const x = Array.from({ length: 500 }, () => random() * 20 - 10);
  const y = Array.from({ length: 500 }, () => random() * 4);
  const grid = new Grid(x, y);
  for (let times = 0; times < 200; times += 1) {
    const at = { x: random() * 24 - 12, y: random() * 6 - 1 };
    const radius = random() * 3;
    const distance = (index) => Math.hypot(x[index] - at.x, y[index] - at.y);
    const near = x.map((_, index) => index).filter((index) => distance(index) <= radius).sort((a, b) => distance(a) - distance(b));
    const found = grid.nearest(at, radius);
    assert.equal(found < 0 ? undefined : distance(found), near.length ? distance(near[0]) : undefined);
  }
  assert.equal(new Grid([], []).nearest({ x: 0, y: 0 }, 1), -1);
});

test("the most frequent values have colours, the rest share one", () => {
  const points = { x: [1, 2, 3, 4], y: [], doc_id: [], chunk: [], color: ["a", "b", "a", null] };
  const { named, others, of } = categories(points, 1);
  assert.deepEqual(named, [{ value: "a", count: 2 }]);
  assert.deepEqual(others, { values: 2, count: 2 });
  assert.deepEqual([...of], [0, -1, 0, -1]);
});
