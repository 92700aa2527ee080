/** A browser on the server's page that fails a test for what no test may see: errors, and requests to others. */

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before } from "node:test";
import { chromium } from "playwright-core";

/** An environment variable that the Rust test sets, which starts the servers. */
function given(name) {
  assert.ok(process.env[name], `${name} is not set: \`cargo nextest run --workspace --test page\` starts the servers and these tests`);
  return process.env[name];
}

const open = given("POLYLANCE_PAGE");
/** A server that wants a token, and the token. */
export const locked = { server: given("POLYLANCE_LOCKED_PAGE"), token: given("POLYLANCE_TOKEN") };

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const EXECUTABLE = process.env.CHROMIUM ?? "/usr/bin/chromium";
const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const DESKTOP = { width: 1280, height: 900 };
export const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };

let browser;
before(async () => {
  browser = await chromium.launch({ executablePath: EXECUTABLE, args: QUIET });
});
after(() => browser?.close());

/**
 * Runs `steps` on a fresh page at `hash`, then fails for every error in the console, every request that left the
 * server's origin, and whatever the page threw. `expected` are errors that belong to the test.
 */
export async function onPage(hash, steps, { server = open, expected = [], routes = {}, ...options } = {}) {
  const context = await browser.newContext({ viewport: DESKTOP, ...options });
  const wrong = [];
  const expect = (text) => expected.some((pattern) => pattern.test(text));
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "blob:" && url.origin !== new URL(server).origin) wrong.push(`a request to ${request.url()}`);
  });
  context.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !expect(message.text())) wrong.push(`console: ${message.text()}`);
  });
  context.on("weberror", (error) => wrong.push(`thrown: ${error.error().stack}`));
  for (const [pattern, handler] of Object.entries(routes)) await context.route(pattern, handler);
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  try {
    await page.goto(server + hash);
    await steps(page);
    assert.deepEqual(wrong, []);
  } finally {
    await context.close();
  }
}

/** The hits once the search is over. */
export async function hits(page) {
  await page.locator("section[aria-label='Hits'][aria-busy='false'] .hit").first().waitFor();
  return page.locator(".hit");
}

/** What a hit says in one of the columns that came with the corpus. */
export function fact(hit, column) {
  return hit.locator(".facts > div", { has: hit.page().locator(`dt:text-is("${column}")`) }).locator("dd").innerText();
}

/** Fails for every rule of WCAG 2.2 AA, and of good practice, that the page breaks as it is. */
export async function accessible(page, what) {
  if (!(await page.evaluate(() => "axe" in globalThis))) await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  const found = violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
  assert.deepEqual(found, [], what);
}

export async function narrow(page, what) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(over, 0, `${what} is ${over} pixels too wide`);
}

/** Keeps a picture when POLYLANCE_SCREENSHOTS names a folder. */
export async function picture(page, name) {
  const folder = process.env.POLYLANCE_SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `page-${name}.png`) });
}

export const search = (query, more = "") => `#/search?q=${encodeURIComponent(query)}${more}`;

/** The server's own list of tables, each changed by `change`. */
export const changedTables = (change) => async (route) => {
  const answer = await route.fetch();
  const { tables } = await answer.json();
  await route.fulfill({ response: answer, json: { tables: tables.map((table) => ({ ...table, ...change(table) })) } });
};
