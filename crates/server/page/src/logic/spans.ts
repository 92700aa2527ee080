/** Cuts a text where spans and matching words begin and end. */

import type { Span } from "../api.ts";

/** A stretch of text under the same spans. */
export interface Piece {
  text: string;
  /** The spans over it, the outermost first. */
  spans: Span[];
  /** The spans that end with it. */
  ends: Span[];
  /** Whether it is a word of the query. */
  match: boolean;
}

/** A stretch in UTF-16 units, as JavaScript's strings count. */
export interface Range {
  start: number;
  end: number;
}

/**
 * Offsets in Unicode scalar values as offsets in UTF-16 units.
 *
 * The server counts as Rust's `char`s do; a JavaScript string counts an emoji twice.
 */
export function utf16Offsets(text: string): (scalar: number) => number {
  // Text without surrogate pairs, nearly all of it, counts the same both ways.
  if (!/[\ud800-\udbff]/.test(text)) return (scalar) => Math.max(0, Math.min(scalar, text.length));
  const offsets: number[] = [];
  let at = 0;
  for (const character of text) {
    offsets.push(at);
    at += character.length;
  }
  return (scalar) => (scalar < 0 ? 0 : (offsets[scalar] ?? text.length));
}

/** The pieces of `text` in order; joined they are the text. Spans count scalar values, `matches` UTF-16 units. */
export function pieces(text: string, spans: Span[], matches: Range[] = []): Piece[] {
  const offset = utf16Offsets(text);
  const placed = spans
    .map((span) => ({ span, start: offset(span.start), end: offset(span.end) }))
    .filter(({ start, end }) => start < end)
    .sort((a, b) => a.start - b.start || b.end - a.end);
  const cuts = new Set([0, text.length]);
  for (const { start, end } of [...placed, ...matches]) cuts.add(start).add(end);
  const at = [...cuts].filter((cut) => cut >= 0 && cut <= text.length).sort((a, b) => a - b);
  return at.slice(0, -1).map((start, index) => {
    const end = at[index + 1] ?? text.length;
    const over = placed.filter((span) => span.start <= start && end <= span.end);
    return {
      text: text.slice(start, end),
      spans: over.map(({ span }) => span),
      ends: over.filter((span) => span.end === end).map(({ span }) => span),
      match: matches.some((match) => match.start <= start && end <= match.end),
    };
  });
}
