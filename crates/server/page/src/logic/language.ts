/** The language of a table's rows. */

import type { Row, Table } from "../api.ts";

/** Columns that usually hold a language code, the best first. */
const COLUMNS = ["lang", "language", "locale", "lang_code", "language_code"];

/** A BCP 47 tag such as `ar`, `pt-PT` or `zh-Hans`; not a language's name. */
export function isLanguageTag(value: unknown): value is string {
  if (typeof value !== "string" || !/^[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*$/.test(value)) return false;
  try {
    return Intl.getCanonicalLocales(value.replaceAll("_", "-")).length === 1;
  } catch {
    return false;
  }
}

/** The columns of a table that may hold language codes. */
export function languageColumns(table: Table): string[] {
  return COLUMNS.filter((name) => table.columns.some((column) => column.name === name));
}

/** The row's language for the `lang` attribute, if the table has it. */
export function languageOf(table: Table, row: Row): string | undefined {
  for (const column of languageColumns(table)) {
    const value = row[column];
    if (isLanguageTag(value)) return value.replaceAll("_", "-");
  }
  return undefined;
}

const names = typeof Intl.DisplayNames === "function" ? new Intl.DisplayNames(["en"], { type: "language" }) : null;

/** `Arabic` for `ar`; `undefined` when the browser knows no name. */
export function languageName(tag: string): string | undefined {
  try {
    const name = names?.of(tag.replaceAll("_", "-"));
    return name && name !== tag ? name : undefined;
  } catch {
    return undefined;
  }
}
