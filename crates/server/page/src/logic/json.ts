/** JSON whose numbers keep every digit. */

/** A text, which may look like anything, or a number. */
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/** Digits that a number of JavaScript always keeps. */
const KEPT = 15;

/** Whether a number of JavaScript is another number than the one that is written here. */
function loses(written: string): boolean {
  const [mantissa = "", exponent] = written.toLowerCase().split("e");
  const digits = mantissa.replace(/[-.]/g, "").replace(/^0+/, "");
  if (digits.length <= KEPT) return false;
  // A float is written with as few digits as tell it from its neighbours: it is read as it was.
  if (mantissa.includes(".") || exponent !== undefined) return digits.replace(/0+$/, "").length > 17;
  return !Number.isSafeInteger(Number(written));
}

/** The value; a number of more digits than JavaScript keeps is a text of all its digits. */
export function parse(text: string): unknown {
  if (!/\d{8}[\d.]{8}/.test(text)) return JSON.parse(text);
  return JSON.parse(text.replace(TOKEN, (token) => (token[0] !== '"' && loses(token) ? `"${token}"` : token)));
}
