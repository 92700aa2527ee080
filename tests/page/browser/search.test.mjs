import assert from "node:assert/strict";
import { test } from "node:test";
import { changedTables, fact, hits, onPage, picture, search } from "./support.mjs";

const EDUCATION = [
  ["Arabic", "الحق في التعليم", "ar", "rtl"],
  ["Thai", "สิทธิในการศึกษา", "th", "ltr"],
  ["Swahili", "haki ya elimu", "sw", "ltr"],
];

for (const [name, query, lang, direction] of EDUCATION) {
  test(`a search in ${name} finds the right article, in its own direction`, () =>
    onPage("", async (page) => {
      await page.getByRole("searchbox").fill(query);
      await page.getByRole("searchbox").press("Enter");
      const first = (await hits(page)).first();
      assert.equal(await fact(first, "article"), "26");
      const own = page.locator(`.passage[lang=${lang}]`).first();
      assert.equal(await own.evaluate((element) => getComputedStyle(element).direction), direction);
      assert.match(await page.getByRole("status").innerText(), /^10 hits by /);
      await picture(page, name.toLowerCase());
    }));
}

test("a search can be linked, and Back returns to the previous one", () =>
  onPage(search("freedom of thought", "&mode=vector&k=20"), async (page) => {
    assert.equal(await (await hits(page)).count(), 20);
    assert.equal(await page.getByRole("radio", { name: "Meaning" }).isChecked(), true);
    assert.equal(await fact(page.locator(".hit").first(), "article"), "18");
    await page.getByRole("searchbox").fill("torture");
    await page.getByRole("button", { name: "Search" }).click();
    await page.waitForURL(/q=torture/);
    await page.goBack();
    await page.waitForURL(/q=freedom/);
    await page.waitForFunction(() => document.querySelector("#query").value === "freedom of thought");
    assert.equal(await (await hits(page)).count(), 20);
  }));

test("facets count rows and become conditions", () =>
  onPage(search("education"), async (page) => {
    await hits(page);
    const languages = page.getByRole("group", { name: "lang", exact: true });
    const thai = languages.locator("label", { hasText: "Thai" });
    const rows = Number(await thai.locator(".count").innerText());
    assert.ok(rows >= 30, `${rows} Thai rows`);
    await thai.getByRole("checkbox").check();
    await page.waitForURL(/f\.lang=th/);
    await languages.locator("label", { hasText: "Swahili" }).getByRole("checkbox").check();
    await page.waitForURL(/f\.lang=sw/);
    await page.waitForFunction(() => {
      const found = [...document.querySelectorAll(".hit .passage")].map(({ lang }) => lang);
      return found.length === 10 && found.every((lang) => ["sw", "th"].includes(lang));
    });
    // A facet's own choice leaves its counts as they were.
    assert.equal(Number(await thai.locator(".count").innerText()), rows);

    await page.getByLabel("SQL condition").fill("article = 26 OR article = 1");
    await page.getByLabel("SQL condition").press("Enter");
    await page.waitForURL(/where=/);
    await page.locator(".summary", { hasText: /^\d hits/ }).waitFor();
    const articles = await Promise.all((await (await hits(page)).all()).map((hit) => fact(hit, "article")));
    assert.deepEqual([...new Set(articles)].sort(), ["1", "26"]);
    await page.getByRole("button", { name: "Clear all 2 filters" }).click();
    await page.locator(".passage:not([lang=sw], [lang=th])").first().waitFor();
  }));

test("without a query, filters list rows", () =>
  onPage("#/search?f.lang=sw", async (page) => {
    assert.equal(await (await hits(page)).count(), 10);
    assert.match(await page.getByRole("status").innerText(), /^10 rows in the table’s order/);
    assert.equal(await page.locator(".passage[lang=sw]").count(), 10);
    await page.getByRole("button", { name: "More hits" }).click();
    await page.locator(".hit").nth(19).waitFor();
  }));

test("an invalid condition and a search without a hit show a message", () =>
  onPage(search("x", "&where=nonsense+%3D+1"), async (page) => {
    await page.locator("section [role=alert]").waitFor();
    assert.match(await page.locator("section [role=alert]").innerText(), /nonsense/);
    await page.goto(page.url().replace(/where=.*/, "where=article+%3C+0"));
    await page.getByText("No row fulfils every filter.").waitFor();
  }, { expected: [/status of 400/] }));

test("a full-text search marks the words, and every hit shows why it was found", () =>
  onPage(search("education", "&mode=text"), async (page) => {
    const first = (await hits(page)).first();
    assert.match(await first.locator("mark").first().innerText(), /^education$/i);
    await first.getByText("Why", { exact: true }).click();
    assert.match(await first.locator(".why table").innerText(), /words\s+1\s+BM25 [\d.]+/);
    await page.getByRole("radio", { name: "Meaning" }).check({ force: true });
    await page.locator(".summary", { hasText: "by meaning," }).waitFor();
    assert.equal(await page.locator("mark").count(), 0);
    assert.match(await page.locator(".hit .why table").first().textContent(), /meaning1distance [\d.]+/);
  }));

test("more like this finds the article in other languages, and not itself", () =>
  onPage(search("torture", "&mode=vector&f.lang=en"), async (page) => {
    const first = (await hits(page)).first();
    assert.equal(await fact(first, "article"), "5");
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await page.waitForURL((url) => !url.hash.includes("f.lang"));
    await (await hits(page)).first().getByRole("link", { name: "More like this" }).click();
    await page.getByText("Passages like").waitFor();
    const like = await (await hits(page)).getByRole("heading").allInnerTexts();
    assert.equal(like.length, 10);
    assert.ok(like.includes("fra/5") && like.includes("arb/5") && !like.includes("eng/5"), like.join(" "));
  }));

test("spans are at their characters", () =>
  onPage(search("education"), async (page) => {
    await hits(page);
    const span = page.locator(".hit").first().locator(".span", { hasText: "LOC" });
    assert.equal(await span.evaluate((element) => element.firstChild.textContent), "𝔓aris");
    assert.equal(await span.locator(".span-label").innerText(), "LOC");
  }, {
    routes: {
      "**/v1/tables": changedTables(({ columns }) => ({
        spans: ["entities"], columns: [...columns, { name: "entities", type: "List", nullable: true }],
      })),
      "**/v1/search": async (route) => {
        const answer = await route.fetch();
        const body = await answer.json();
        const text = "🇫🇷 in 𝔓aris";
        const start = [...text].indexOf("𝔓");
        Object.assign(body.hits[0].row, { text, entities: [{ label: "LOC", score: 0.9, start, end: start + 5, text: "𝔓aris" }] });
        await route.fulfill({ response: answer, json: body });
      },
    },
  }));
