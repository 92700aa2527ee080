import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { hits, locked, onPage, picture, search } from "./support.mjs";

test("a document shows its chunks in order and its kept columns", () =>
  onPage("#/document?doc=arb%2F26", async (page) => {
    await page.getByRole("heading", { level: 1, name: "arb/26" }).waitFor();
    await page.locator(".chunk").first().waitFor();
    const metadata = await page.locator(".metadata").innerText();
    assert.match(metadata, /lang\s+ar/);
    assert.match(metadata, /article\s+26/);
    assert.equal(await page.locator(".chunk .passage").first().getAttribute("lang"), "ar");
    const text = await page.locator(".chunk .passage").first().innerText();
    assert.ok(text.includes("التعليم"), text);
    await picture(page, "document");
    await page.getByRole("button", { name: "Back" }).click();
    await page.waitForURL(/#\/search/);
  }));

test("a missing document shows a message", () =>
  onPage("#/document?doc=nobody", async (page) => {
    await page.getByRole("alert").waitFor();
    assert.match(await page.getByRole("alert").innerText(), /no document/);
    assert.equal(await page.locator("h1").innerText(), "nobody");
  }, { expected: [/status of 404/] }));

test("a table without a map explains how to make one", () =>
  onPage("#/map", async (page) => {
    await page.getByText(/has no map yet/).waitFor();
    assert.match(await page.locator("main").innerText(), /map_x/);
  }, { routes: { "**/v1/tables": async (route) => {
    const answer = await route.fetch();
    const { tables } = await answer.json();
    await route.fulfill({ response: answer, json: { tables: tables.map((table) => ({ ...table, map: false })) } });
  } } }));

test("the map draws points, highlights hits and shows the row below the pointer", () =>
  onPage("#/map?q=education&color=lang", async (page) => {
    await page.getByText(/10 of 10 hits lit/).waitFor();
    const drawn = await page.locator(".map-points").evaluate((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value, index) => index % 4 === 3 && value > 0).length;
    });
    assert.ok(drawn > 2000, `${drawn} pixels are drawn`);
    await picture(page, "map");

    // The table lists hits first and leads to the same documents.
    await page.getByText("The points as a table").click();
    const rows = page.locator(".map-table tbody tr");
    assert.match(await rows.first().innerText(), /\/\d+.*\s1$/s);
    assert.equal(await rows.count(), 50);
    await page.getByText("The points as a table").click();

    // Zoomed in on the middle of a canvas, the pointer sooner or later meets a point.
    const canvas = page.locator(".map-marks");
    await canvas.scrollIntoViewIfNeeded();
    const box = await canvas.boundingBox();
    const card = page.locator(".map-card");
    for (let at = 0; at < 1 && !(await card.count()); at += 0.02) {
      await page.mouse.move(box.x + box.width * at, box.y + box.height / 2);
    }
    await card.locator(".passage", { hasText: /\w|\p{L}/u }).waitFor();
    await page.mouse.down();
    await page.mouse.up();
    await page.locator(".map-card.fixed").getByRole("link", { name: "Open document" }).click();
    await page.locator(".chunk").first().waitFor();
  }));

test("the map moves and zooms by keys, wheel and buttons", () =>
  onPage("#/map?color=lang", async (page) => {
    const picture = () => page.locator(".map-points").evaluate((canvas) => canvas.toDataURL());
    await page.getByText(/points/).first().waitFor();
    await page.locator(".map-canvas").focus();
    const whole = await picture();
    const differs = async (from) => {
      for (let times = 0; times < 100; times += 1) {
        const now = await picture();
        if (now !== from) return now;
        await page.waitForTimeout(50);
      }
      return assert.fail("the map did not change");
    };
    await page.keyboard.press("ArrowLeft");
    const moved = await differs(whole);
    await page.keyboard.press("+");
    const zoomed = await differs(moved);
    await page.getByRole("button", { name: "Zoom out" }).click();
    const out = await differs(zoomed);
    await page.locator(".map-marks").hover();
    await page.mouse.wheel(0, -300);
    await differs(out);
    await page.mouse.move(0, 0);
    await page.getByRole("button", { name: "Show all points" }).click();
    await page.waitForFunction((whole) => document.querySelector(".map-points").toDataURL() === whole, whole);
    await page.getByRole("button", { name: /^ar/ }).click();
    await differs(whole);
  }));

test("runs show the rows that they added and could not read", () =>
  onPage("#/runs", async (page) => {
    await page.getByRole("heading", { level: 1, name: "Runs of udhr" }).waitFor();
    const runs = page.getByRole("region", { name: "Runs" }).locator("tbody tr");
    await runs.first().waitFor();
    assert.equal(await runs.count(), 1);
    assert.match(await runs.first().innerText(), /\t15\d\t0\t/);
    assert.match(await page.locator("main").innerText(), /Every row could be read/);
    const versions = page.getByRole("region", { name: "Versions" }).locator("tbody tr");
    assert.match(await versions.first().innerText(), /15\d/);
    assert.ok((await versions.count()) >= 3);
    await page.keyboard.press("3");
    await page.waitForURL(/#\/sql/);
    await page.keyboard.press("4");
    await page.waitForURL(/#\/runs/);
  }));

test("runs show their commits, rows, speed and quarantined rows", () =>
  onPage("#/runs", async (page) => {
    const runs = page.getByRole("region", { name: "Runs" }).locator("tbody tr");
    await runs.nth(1).waitFor();
    await page.locator(".growth svg").waitFor();
    await picture(page, "runs");
    assert.match(await runs.first().innerText(), /second.*\t2\t300\t5\s+10\.0/s);
    assert.match(await runs.nth(1).innerText(), /first.*\t1\t100\t0\s+one commit/s);
    assert.match(await page.getByRole("region", { name: "Quarantine" }).innerText(), /second\s+encode\s+5/);
  }, { routes: { "**/v1/tables/*/history": (route) => route.fulfill({ json: {
    versions: [
      { version: 4, time: "2026-03-02T10:00:20Z", rows: 400, operation: "CreateIndex", run_id: null },
      { version: 3, time: "2026-03-02T10:00:10Z", rows: 400, operation: "Append", run_id: "second" },
      { version: 2, time: "2026-03-02T10:00:00Z", rows: 300, operation: "Append", run_id: "second" },
      { version: 1, time: "2026-03-01T10:00:00Z", rows: 100, operation: "Append", run_id: "first" },
    ],
    quarantine: [{ run_id: "second", stage: "encode", rows: 5 }],
  } }) } }));

test("SQL runs with Ctrl+Enter, and its rows become a file", () =>
  onPage("#/sql", async (page) => {
    const box = page.getByRole("textbox", { name: "Statement" });
    await page.getByRole("button", { name: "rows by lang" }).click();
    await page.locator(".result tbody tr").first().waitFor();
    const table = (await box.inputValue()).match(/FROM (\S+)/)[1];
    await box.fill(`SELECT lang, count(*) AS n, 'a "b", c' AS quoted FROM ${table} WHERE article = 1 GROUP BY lang ORDER BY lang LIMIT 2`);
    await box.press("Control+Enter");
    await page.getByRole("status").getByText("2 rows").waitFor();
    assert.match(page.url(), /sql=SELECT/);
    assert.match(await page.locator(".result thead").innerText(), /lang\s+n\s+quoted/);
    const saved = page.waitForEvent("download");
    await page.getByRole("button", { name: "Download as CSV" }).click();
    const file = await saved;
    assert.equal(file.suggestedFilename(), "polylance.csv");
    assert.match(readFileSync(await file.path(), "utf8"), /^lang,n,quoted\r\nar,1,"a ""b"", c"\r\n/);
    await picture(page, "sql");

    await box.fill("SELECT nonsense");
    await box.press("Control+Enter");
    assert.match(await page.getByRole("alert").innerText(), /nonsense/);
  }, { expected: [/status of 400/] }));

test("a server that requires a token receives the entered one", () =>
  onPage(search("education"), async (page) => {
    const token = page.getByLabel(/token/i).and(page.locator("input"));
    await token.fill("wrong");
    await page.getByRole("button", { name: "Use token" }).click();
    await page.getByText("The last one was refused").waitFor();
    await token.fill(locked.token);
    await token.press("Enter");
    assert.equal(await (await hits(page)).count(), 10);
    const kept = await page.evaluate(() => [Object.values(sessionStorage), Object.values(localStorage)]);
    assert.deepEqual(kept, [[locked.token], []]);
  }, { server: locked.server, expected: [/status of 401/] }));
