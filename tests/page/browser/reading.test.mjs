import assert from "node:assert/strict";
import { test } from "node:test";
import { accessible, fact, hits, narrow, onPage, PHONE, picture, search } from "./support.mjs";

/** Every view, and how one knows that it is there. */
const VIEWS = [
  ["start", "", (page) => page.locator(".start").waitFor()],
  ["hits", search("التعليم education", "&f.lang=ar&f.lang=en"), async (page) => {
    await (await hits(page)).first().getByText("Why", { exact: true }).click();
  }],
  ["no hits", search("education", "&where=article+%3C+0"), (page) => page.getByText("Nothing found").waitFor()],
  ["like", "#/search?like=swh%2F26", (page) => hits(page)],
  ["document", "#/document?doc=tha%2F26&q=education", (page) => page.locator(".chunk").first().waitFor()],
  ["map", "#/map?q=education", async (page) => {
    await page.getByText(/hits lit/).waitFor();
    await page.getByText("The points as a table").click();
    await page.locator(".map-table tbody tr").first().waitFor();
  }],
  ["sql", "#/sql", async (page) => {
    await page.getByRole("button", { name: "first rows" }).click();
    await page.locator(".result tbody tr").first().waitFor();
  }],
  ["runs", "#/runs", (page) => page.getByRole("region", { name: "Versions" }).locator("tbody tr").first().waitFor()],
  ["keys", "", async (page) => {
    await page.getByRole("button", { name: "Keys" }).click();
    await page.getByRole("dialog").waitFor();
  }],
];

for (const colorScheme of ["light", "dark"]) {
  for (const [name, hash, ready] of VIEWS) {
    test(`${name} follows the accessibility rules in ${colorScheme}`, () =>
      onPage(hash, async (page) => {
        await ready(page);
        // Colours that are still fading in would be measured half-way.
        await page.evaluate(() => Promise.all(document.getAnimations().map((animation) => animation.finish())));
        await accessible(page, `${name}, ${colorScheme}`);
      }, { colorScheme }));
  }
}

test("nothing is wider than a phone", async () => {
  for (const [name, hash, ready] of VIEWS) {
    await onPage(hash, async (page) => {
      await ready(page);
      await narrow(page, name);
    }, PHONE);
  }
  await onPage(search("الحق في التعليم"), async (page) => {
    await hits(page);
    await picture(page, "phone");
    await page.getByText("Filters", { exact: true }).tap();
    await page.getByRole("group", { name: "lang", exact: true }).waitFor();
    await narrow(page, "filters");
  }, PHONE);
});

test("the page is dark when the system is, and the reader's choice stays", () =>
  onPage(search("education", "&f.lang=th"), async (page) => {
    const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
    await hits(page);
    const dark = await paper();
    assert.ok(dark.match(/\d+/g).slice(0, 3).every((part) => Number(part) < 60), dark);
    await picture(page, "dark");
    await page.getByRole("button", { name: "Change to light" }).click();
    const light = await paper();
    assert.ok(light.match(/\d+/g).slice(0, 3).every((part) => Number(part) > 200), light);
    await page.reload();
    assert.equal(await paper(), light);
    await page.getByRole("button", { name: "Change to dark" }).click();
    assert.equal(await paper(), dark);
    assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), []);
  }, { colorScheme: "dark" }));

test("everything can be done with the keyboard", () =>
  onPage("", async (page) => {
    const focused = (selector) => page.waitForFunction((selector) => document.activeElement?.matches(selector), selector);
    await page.locator(".start").waitFor();
    await page.keyboard.press("/");
    await focused("#query");
    await page.keyboard.type("the right to education");
    await page.keyboard.press("Enter");
    const all = await hits(page);
    await page.keyboard.press("ArrowDown");
    const ids = await all.evaluateAll((hits) => hits.map(({ id }) => id));
    await focused(`[id="${ids[0]}"]`);
    await page.keyboard.press("j");
    await focused(`[id="${ids[1]}"]`);
    await page.keyboard.press("k");
    await page.keyboard.press("ArrowDown");
    await focused(`[id="${ids[1]}"]`);
    await page.keyboard.press("w");
    await page.locator(".hit:focus .why[open]").waitFor();

    const name = await all.nth(1).getByRole("heading").innerText();
    await page.keyboard.press("Enter");
    await page.locator(".chunk").first().waitFor();
    await focused("h1");
    assert.equal(await page.locator("h1").innerText(), name);
    await page.keyboard.press("Escape");
    await focused(`[id="${ids[1]}"]`);

    await page.keyboard.press("m");
    await page.getByText("Passages like").waitFor();
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
    await page.keyboard.press("3");
    await page.getByRole("heading", { name: "SQL" }).waitFor();
    await page.keyboard.press("1");
    await page.locator("#query").waitFor();

    // Letters may be turned off for those who speak to their browser.
    await page.keyboard.press("?");
    await page.getByLabel("Letters and digits are keys").uncheck();
    await page.keyboard.press("Escape");
    await page.keyboard.press("3");
    assert.match(page.url(), /#\/search/);
  }));

test("screen readers get landmarks, titles and the number of hits", () =>
  onPage(search("torture", "&mode=vector&k=10"), async (page) => {
    const first = (await hits(page)).first();
    assert.match(await page.title(), /^torture · .* · polylance$/);
    assert.equal(await fact(first, "article"), "5");
    for (const landmark of ["banner", "main", "search", "complementary"]) assert.equal(await page.getByRole(landmark).count(), 1, landmark);
    assert.equal(await page.getByRole("navigation", { name: "Views" }).count(), 1);
    assert.match(await page.getByRole("status").innerText(), /^10 hits by meaning, \d+ ms$/);
    const title = await first.getByRole("heading", { level: 2 }).innerText();
    assert.equal(await page.getByRole("article", { name: title }).count(), 1);
  }));
