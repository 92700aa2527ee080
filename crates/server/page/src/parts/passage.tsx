/** A text with its spans and the words of the query marked. */

import type { Span } from "../api.ts";
import { pieces, type Range } from "../logic/spans.ts";
import { tone } from "./tones.ts";

interface Props {
  text: string;
  lang: string | undefined;
  spans?: Span[];
  matches?: Range[];
}

function spanTitle(span: Span): string {
  return typeof span.score === "number" ? `${span.label} ${span.score.toFixed(2)}` : span.label;
}

export function Passage({ text, lang, spans = [], matches = [] }: Props) {
  return (
    <p class="passage" dir="auto" lang={lang}>
      {pieces(text, spans, matches).map((piece, index) => {
        const inner = piece.match ? <mark>{piece.text}</mark> : piece.text;
        if (!piece.spans.length) return inner;
        return piece.spans.reduceRight(
          (content, span) => (
            <span key={index} class={`span tone-${tone(span.label)}`} title={spanTitle(span)}>
              {content}
              {piece.ends.includes(span) && (
                <small class="span-label" dir="ltr" lang="en">
                  {span.label}
                </small>
              )}
            </span>
          ),
          <>{inner}</>,
        );
      })}
    </p>
  );
}
