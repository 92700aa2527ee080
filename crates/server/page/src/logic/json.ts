/** JSON whose numbers keep every digit. */

/** A text, which may look like anything, or a number. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/** Digits that a number of JavaScript always keeps. */
const KEPT = 15;

/** Whether JavaScript reads this number as a different one. */
function loses(written: string): boolean {
  const [mantissa = "", exponent] = written.toLowerCase().split("e");
  const digits = mantissa.replace(/[-.]/g, "").replace(/^0+/, "");
  if (digits.length <= KEPT) return false;
  // A float has the fewest digits that distinguish it from its neighbours, so it is read unchanged.
  if (mantissa.includes(".") || exponent !== undefined) return digits.replace(/0+$/, "").length > 17;
  return !Number.isSafeInteger(Number(written));
}

/** The value; a number with more digits than JavaScript keeps becomes a text with all of them. */
export function parse(text: string): unknown {
  if (!/\d{8}[\d.]{8}/.test(text)) return JSON.parse(text);
  return JSON.parse(text.replace(TOKEN, (token) => (token[0] !== '"' && loses(token) ? `"${token}"` : token)));
}
