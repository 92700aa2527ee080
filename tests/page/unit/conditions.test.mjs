import assert from "node:assert/strict";
import { test } from "node:test";
import { condition, facetCondition, toggled } from "../node_modules/.logic/logic/conditions.js";
import { csv } from "../node_modules/.logic/logic/csv.js";
import { examples } from "../node_modules/.logic/logic/examples.js";

const text = (name) => ({ name, type: "Utf8", nullable: true });
const table = {
  name: "docs",
  columns: [text("lang"), { name: "ok", type: "Boolean" }, { name: "topic", type: "Struct(\"label\": Utf8)" }, text("a`b")],
  facets: ["lang"],
  spans: ["entities"],
  dim: 384,
};

test("quotes stay inside values and names", () => {
  assert.equal(facetCondition(text("lang"), ["it's' OR 1=1 --"]), "`lang` = 'it''s'' OR 1=1 --'");
  assert.equal(facetCondition(text("a`b"), ["x"]), "`a``b` = 'x'");
});

test("conditions cover several values, no value, booleans and labels", () => {
  assert.equal(facetCondition(text("lang"), ["ar", "th"]), "`lang` IN ('ar', 'th')");
  assert.equal(facetCondition(text("lang"), ["ar", null]), "(`lang` = 'ar' OR `lang` IS NULL)");
  assert.equal(facetCondition(text("lang"), [null]), "`lang` IS NULL");
  assert.equal(facetCondition(table.columns[1], ["false"]), "`ok` = false");
  assert.equal(facetCondition(table.columns[1], ["drop table"]), "`ok` = false");
  assert.equal(facetCondition(table.columns[2], ["rights"]), "`topic`.label = 'rights'");
  assert.equal(facetCondition(text("lang"), []), undefined);
});

test("a facet's own values do not narrow its counts", () => {
  const facets = { lang: ["ar"], topic: ["rights"], gone: ["x"] };
  assert.equal(condition(table, facets, " a = 1 OR b = 2 "), "(a = 1 OR b = 2) AND `lang` = 'ar' AND `topic`.label = 'rights'");
  assert.equal(condition(table, facets, "", "lang"), "`topic`.label = 'rights'");
  assert.equal(condition(table, {}, "  "), undefined);
});

test("a value can be added and removed", () => {
  const once = toggled({}, "lang", "ar");
  assert.deepEqual(once, { lang: ["ar"] });
  assert.deepEqual(toggled(once, "lang", null), { lang: ["ar", null] });
  assert.deepEqual(toggled(once, "lang", "ar"), {});
});

test("CSV quotes only values that need it", () => {
  const rows = [{ a: 'say "hi"', b: "x,y" }, { a: null, b: { label: "é" } }, { a: "two\nlines", b: 1.5 }];
  assert.equal(csv(["a", "b"], rows), 'a,b\r\n"say ""hi""","x,y"\r\n,"{""label"":""é""}"\r\n"two\nlines",1.5\r\n');
});

test("example statements name the table and its columns", () => {
  const statements = examples({ ...table, name: "My docs" }, [table, { name: "docs_quarantine" }]).map(({ sql }) => sql).join("\n");
  assert.match(statements, /FROM "My docs"/);
  assert.match(statements, /vector_search\('My docs'/);
  assert.match(statements, /FROM docs_quarantine/);
  assert.match(statements, /spans\('My docs', 'entities'\)/);
});
