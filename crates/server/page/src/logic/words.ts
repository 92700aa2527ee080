/** Finds the words of a query in a text, in any script, by the rules of the table's full-text index (crates/schema/src/words.rs). */

import type { Range } from "./spans.ts";

const segmenter = typeof Intl.Segmenter === "function" ? new Intl.Segmenter(undefined, { granularity: "word" }) : null;

/** Soft hyphens, joiners, directions, variants, the lengthening of Arabic, the punctuation inside Armenian words. */
const INVISIBLE =
  /[\u00ad\u061c\u0640\u055b\u055c\u055e\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\u{e0100}-\u{e01ef}]/gu;

const APOSTROPHES = /[`´\u02b9-\u02bf\u02c8\u055a\u05f3\u2018-\u201b\u2032\u2035\ua78b\ua78c\uff07\uff40]/gu;

/** Marks that are optional on any letter, and those that only mark the pronunciation. */
const MARKS =
  /[\u0300-\u036f\u0483-\u0489\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u0653\u0655-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u08ca-\u08e1\u08e3-\u08ff\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]/u;

/** A letter with its marks. */
const MARKED = /([^\p{M}])(\p{M}+)/gu;

const CYRILLIC = /[\u0400-\u052f\u1c80-\u1c8f\ua640-\ua69f]/u;

/** The zeros of the scripts that have digits of their own. */
const NOUGHTS = [
  0x0660, 0x06f0, 0x07c0, 0x0966, 0x09e6, 0x0a66, 0x0ae6, 0x0b66, 0x0be6, 0x0c66, 0x0ce6, 0x0d66, 0x0de6, 0x0e50, 0x0ed0,
  0x0f20, 0x1040, 0x17e0, 0x1810, 0x1946, 0x19d0,
];

/** Letters that Unicode's rules do not fold, and their replacements. */
const LETTERS: Record<string, string> = {
  ß: "ss", æ: "ae", œ: "oe", þ: "th", ð: "d", đ: "d", ø: "o", ł: "l", ħ: "h", ŧ: "t", ı: "i", ŋ: "n", ς: "σ",
  ٱ: "ا", ى: "ي", ی: "ي", ک: "ك",
  ൺ: "ണ്", ൻ: "ന്", ർ: "ര്", ൽ: "ല്", ൾ: "ള്", ൿ: "ക്",
};

/** Whether a mark makes another letter of its base: `й`, `ї` and `ќ` are letters, `ё` is mostly written `е`. */
function makesLetter(mark: string, base: string): boolean {
  if (mark === "\u0654") return base !== "ا";
  if (!MARKS.test(mark)) return true;
  if (!CYRILLIC.test(base)) return false;
  if (mark === "\u0308") return base !== "е";
  if (mark === "\u0301") return base === "г" || base === "к";
  return "\u0304\u0306\u030b".includes(mark);
}

function letter(character: string): string {
  const code = character.codePointAt(0) ?? 0;
  const nought = NOUGHTS.find((nought) => code >= nought && code < nought + 10);
  return nought === undefined ? (LETTERS[character] ?? character) : String(code - nought);
}

/** A word in any case, with or without accents and optional signs. */
export function fold(word: string): string {
  // Thai and Lao have one sign that Unicode's rules split in two.
  const plain = word.replace(INVISIBLE, "").normalize("NFKD").replace(/\u0e4d\u0e32/gu, "\u0e33").replace(/\u0ecd\u0eb2/gu, "\u0eb3");
  const letters = plain.toLowerCase().normalize("NFD").replace(MARKED, (_, base: string, marks: string) =>
    base + [...marks].filter((mark) => makesLetter(mark, base)).join(""),
  );
  return [...letters].map(letter).join("").replace(/['"·]/gu, "").normalize("NFC");
}

/**
 * A word inside a segment, and the apostrophes and joiners that are part of it: in Cyrillic and Hebrew nothing is elided,
 * elsewhere `l’éducation` is two words. Unicode's segments hold both.
 */
const WORD = new RegExp(
  [
    "(?:",
    "[\\p{L}\\p{Nd}\\p{Nl}\\p{M}\\u00ad\\u200c\\u200d\\u055b\\u055c\\u055e]",
    "|(?<=[\\u0400-\\u052f][\\u0301]?)'(?=[\\u0400-\\u052f])",
    "|(?<=[\\u05d0-\\u05ea][\\u0591-\\u05c7]*)['\"](?=[\\u05d0-\\u05ea])",
    "|(?<=l)·(?=l)",
    "|(?<=[0-9])[.,](?=[0-9])",
    ")+",
    // `word¹` is two words.
    "|\\p{No}+",
  ].join(""),
  "giu",
);

/** The words of a text and where they are, in UTF-16 units. Thai and Chinese are cut by the browser's dictionary. */
export function words(text: string): (Range & { word: string })[] {
  // Each unit is replaced by one unit, so that positions stay.
  const even = text.replace(APOSTROPHES, "'").replace(/[\u05f4\u201c-\u201f\u2033\uff02]/gu, '"');
  const segments = segmenter ? segmenter.segment(even) : [{ segment: even, index: 0 }];
  return [...segments].flatMap(({ segment, index }) =>
    [...segment.matchAll(WORD)].flatMap((found) => {
      const start = index + found.index;
      const word = fold(found[0]);
      return word ? [{ word, start, end: start + found[0].length }] : [];
    }),
  );
}

/** Scripts in which a short word carries as much as a long one. */
const DENSE = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;

/** The words worth marking: articles and the like stay out as long as there is a longer word. */
function telling(query: string): Set<string> {
  const all = words(query).map(({ word }) => word);
  const long = all.filter((word) => [...word].length > 3 || DENSE.test(word) || /\d/.test(word));
  return new Set(long.length ? long : all);
}

/** The positions of the query's words in the text; adjacent words are one position. */
export function matches(text: string, query: string): Range[] {
  const wanted = telling(query);
  const found: Range[] = [];
  for (const { word, start, end } of wanted.size ? words(text) : []) {
    if (!wanted.has(word)) continue;
    const last = found.at(-1);
    if (last?.end === start) last.end = end;
    else found.push({ start, end });
  }
  return found;
}
