import assert from "node:assert/strict";
import { test } from "node:test";
import { formatRoute, parseRoute, START } from "../node_modules/.logic/logic/route.js";

const round = (change) => {
  const route = { ...START, ...change };
  assert.deepEqual(parseRoute(formatRoute(route)), route);
};

test("an address contains all settings of a search", () => {
  round({ query: "the right to rest & leisure = 100% #1?", mode: "hybrid", k: 50, where: "lang = 'x' AND a <> 'b&c'" });
  round({ query: "الحق في التعليم", table: "udhr", facets: { lang: ["ar", "th"], "a b.c": ["it's", "", null] } });
  round({ like: { doc_id: "eng/16", chunk: 3 }, byDocument: true, rerank: true });
  round({ like: { doc_id: "eng/16", chunk: 0 } });
  round({ view: "document", document: "a/b?c#d", chunk: 0, query: "q" });
  round({ view: "map", color: "topic", query: "q" });
  round({ view: "sql", sql: "SELECT 1;\n-- «é» + 100%" });
});

test("default settings are not in the address", () => {
  assert.equal(formatRoute(START), "#/search");
  assert.equal(formatRoute({ ...START, query: "a b" }), "#/search?q=a+b");
});

test("a broken address opens the search page", () => {
  for (const hash of ["", "#", "#/", "#/nothing", "#/search?mode=magic&k=-3&like_chunk=x", "#?%%%", "#/search?k=1e9"]) {
    const route = parseRoute(hash);
    assert.equal(route.view, "search");
    assert.equal(route.mode, "auto");
    assert.equal(route.k, 10);
    assert.equal(route.like, null);
  }
  assert.equal(parseRoute("#/search?k=0").k, 1);
  assert.equal(parseRoute("#/search?k=999999").k, 1000);
});
