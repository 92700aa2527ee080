/** Finds the words of a query in a text, in any script. */

import type { Range } from "./spans.ts";

const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

/** Case, accents and Arabic vowel signs aside. */
export function fold(word: string): string {
  return word.normalize("NFKD").replace(/[\u0300-\u036f\u064b-\u0652]+/g, "").toLowerCase();
}

/** The words of a text and where they are, in UTF-16 units. Thai and Chinese are cut by the browser's dictionary. */
export function words(text: string): (Range & { word: string })[] {
  const segments = segmenter ? segmenter.segment(text) : [{ segment: text, index: 0 }];
  // Unicode's words hold apostrophes, the index's do not: `l’éducation` is two of them.
  return [...segments].flatMap(({ segment, index }) =>
    [...segment.matchAll(/[\p{L}\p{N}\p{M}]+/gu)].map((found) => {
      const start = index + found.index;
      return { word: fold(found[0]), start, end: start + found[0].length };
    }),
  );
}

/** The index stems words; here endings of up to three letters may differ. */
function same(one: string, other: string): boolean {
  if (one === other) return true;
  const [short, long] = one.length < other.length ? [one, other] : [other, one];
  return short.length >= 4 && long.length - short.length <= 3 && long.startsWith(short);
}

/** Scripts in which a short word carries as much as a long one. */
const DENSE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

/** The words worth marking: articles and the like stay out as long as there is a longer word. */
function telling(query: string): string[] {
  const all = words(query).map(({ word }) => word).filter(Boolean);
  const long = all.filter((word) => [...word].length > 3 || DENSE.test(word) || /\d/.test(word));
  return long.length ? long : all;
}

/** Where words of the query stand in the text; words that touch are one place. */
export function matches(text: string, query: string): Range[] {
  const wanted = telling(query);
  const found: Range[] = [];
  for (const { word, start, end } of wanted.length ? words(text) : []) {
    if (!wanted.some((want) => same(word, want))) continue;
    const last = found.at(-1);
    if (last?.end === start) last.end = end;
    else found.push({ start, end });
  }
  return found;
}
