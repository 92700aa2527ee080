//! Merges the spans of a document that were found chunk by chunk.
//!
//! Chunks overlap, touch, or have white space between them. An entity in an overlap is found twice, and one at a border
//! may be found in two parts. The laws: a span belongs to the chunk in which it begins; spans of a document overlap
//! only if one chunk has both; two parts of one label become one span.
//!
//! Of overlapping spans with different labels the longer one is kept, then the more certain one, as transformers'
//! `aggregate_overlapping_entities` does.

use std::ops::Range;

use polylance_backend::Span;

/// A chunk of a document, and the spans found in it.
#[derive(Debug)]
pub(crate) struct ChunkSpans<'t> {
    /// The position of the chunk in its document, in characters.
    pub(crate) chars: Range<u64>,
    /// Its text.
    pub(crate) text: &'t str,
    /// Its spans, in characters of the chunk.
    pub(crate) spans: Vec<Span>,
}

/// Whether two spans of one label that overlap or continue each other become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MergeAdjacent {
    /// They are parts of one entity.
    Yes,
    /// Each is a token of its own.
    No,
}

/// The spans of each chunk, in characters of the document.
///
/// White space between two chunks is in neither: a span that is merged over it has spaces in its text.
pub(crate) fn merge(chunks: Vec<ChunkSpans<'_>>, adjacent: MergeAdjacent) -> Vec<Vec<Span>> {
    let borders: Vec<(Range<u64>, &str)> = chunks.iter().map(|chunk| (chunk.chars.clone(), chunk.text)).collect();
    let mut found: Vec<(usize, Span)> = Vec::new();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let from = chunk.chars.start;
        found.extend(chunk.spans.into_iter().map(|span| {
            let chars = from + span.chars.start..from + span.chars.end;
            (number, Span { chars, ..span })
        }));
    }
    found.sort_by_key(|(number, span)| (span.chars.start, *number));

    let mut kept: Vec<(usize, Span)> = Vec::with_capacity(found.len());
    for (number, span) in found {
        match kept.last_mut() {
            Some((before, last))
                if *before != number && overlap_or_continue(last, &span, *before, number, &borders) =>
            {
                if last.label == span.label && adjacent == MergeAdjacent::Yes {
                    last.chars.end = last.chars.end.max(span.chars.end);
                    last.score = last.score.max(span.score);
                    last.text = slice(&borders, &last.chars);
                    *before = number;
                } else if last.chars.end <= span.chars.start {
                    kept.push((number, span));
                } else if length(&span) > length(last) || (length(&span) == length(last) && span.score > last.score) {
                    (*before, *last) = (number, span);
                }
            }
            _ => kept.push((number, span)),
        }
    }

    let mut merged: Vec<Vec<Span>> = borders.iter().map(|_| Vec::new()).collect();
    for (_, span) in kept {
        // The first chunk that ends after the span's start has it: ends rise from chunk to chunk.
        let chunk = borders.partition_point(|(chars, _)| chars.end <= span.chars.start);
        if let Some(spans) = merged.get_mut(chunk) {
            spans.push(span);
        }
    }
    merged
}

/// Whether spans of two chunks are about one entity: they overlap, or the second continues the first over the border.
fn overlap_or_continue(last: &Span, span: &Span, before: usize, number: usize, borders: &[(Range<u64>, &str)]) -> bool {
    if span.chars.start < last.chars.end {
        return true;
    }
    let (end, start) = (borders[before].0.end, borders[number].0.start);
    before + 1 == number && span.continues && last.chars.end == end && span.chars.start == start && start >= end
}

fn length(span: &Span) -> u64 {
    span.chars.end - span.chars.start
}

/// A slice of the document, assembled from the texts of its chunks.
fn slice(borders: &[(Range<u64>, &str)], chars: &Range<u64>) -> String {
    let mut text = String::new();
    let mut at = chars.start;
    let first = borders.partition_point(|(chunk, _)| chunk.end <= chars.start);
    for (chunk, chunk_text) in borders[first..].iter().take_while(|(chunk, _)| chunk.start < chars.end) {
        text.extend((at..chunk.start).map(|_| ' '));
        at = at.max(chunk.start);
        let end = chunk.end.min(chars.end);
        text.extend(chunk_text.chars().skip((at - chunk.start) as usize).take(end.saturating_sub(at) as usize));
        at = at.max(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Ada met Čapek in New York City today";

    /// The chunk of `TEXT` at these characters, with the spans of these texts in it.
    fn chunk(chars: Range<u64>, spans: &[(&str, &str, f32, bool)]) -> (Range<u64>, String, Vec<Span>) {
        let text: String = TEXT.chars().skip(chars.start as usize).take((chars.end - chars.start) as usize).collect();
        let spans = spans.iter().map(|(label, found, score, continues)| {
            let at = text.find(found).unwrap();
            let start = text[..at].chars().count() as u64;
            let chars = start..start + found.chars().count() as u64;
            Span { label: (*label).into(), score: *score, chars, text: (*found).into(), continues: *continues }
        });
        (chars, text.clone(), spans.collect())
    }

    fn merged(
        chunks: &[(Range<u64>, String, Vec<Span>)],
        adjacent: MergeAdjacent,
    ) -> Vec<Vec<(String, String, Range<u64>)>> {
        let chunks =
            chunks.iter().map(|(chars, text, spans)| ChunkSpans { chars: chars.clone(), text, spans: spans.clone() });
        let merged = merge(chunks.collect(), adjacent);
        for span in merged.iter().flatten() {
            let (start, end) = (span.chars.start as usize, span.chars.end as usize);
            assert_eq!(span.text, TEXT.chars().skip(start).take(end - start).collect::<String>());
        }
        let plain = |span: Span| (span.label, span.text, span.chars);
        merged.into_iter().map(|spans| spans.into_iter().map(plain).collect()).collect()
    }

    #[test]
    fn a_span_in_an_overlap_is_kept_once_in_the_chunk_where_it_begins() {
        let chunks = [
            chunk(0..16, &[("PER", "Ada", 0.9, false), ("PER", "Čapek", 0.8, false)]),
            chunk(8..36, &[("PER", "Čapek", 0.9, false), ("LOC", "New York City", 0.9, false)]),
        ];
        let found = merged(&chunks, MergeAdjacent::Yes);
        assert_eq!(found[0], [("PER".into(), "Ada".into(), 0..3), ("PER".into(), "Čapek".into(), 8..13)]);
        assert_eq!(found[1], [("LOC".into(), "New York City".into(), 17..30)]);
    }

    #[test]
    fn parts_in_an_overlap_become_one_span() {
        let chunks =
            [chunk(0..25, &[("LOC", "New York", 0.9, false)]), chunk(21..36, &[("LOC", "York City", 0.7, true)])];
        assert_eq!(merged(&chunks, MergeAdjacent::Yes), [vec![("LOC".into(), "New York City".into(), 17..30)], vec![]]);
    }

    #[test]
    fn parts_at_a_border_become_one_span_when_the_second_continues() {
        let parts = |continues| {
            [chunk(0..20, &[("LOC", "New", 0.9, false)]), chunk(21..36, &[("LOC", "York City", 0.7, continues)])]
        };
        assert_eq!(merged(&parts(true), MergeAdjacent::Yes)[0], [("LOC".into(), "New York City".into(), 17..30)]);
        assert_eq!(merged(&parts(false), MergeAdjacent::Yes).concat().len(), 2);
        assert_eq!(merged(&parts(true), MergeAdjacent::No).concat().len(), 2);
    }

    #[test]
    fn of_two_labels_the_longer_then_the_more_certain_span_is_kept() {
        let chunks = |score| {
            [chunk(0..25, &[("ORG", "New York", score, false)]), chunk(17..36, &[("LOC", "New York", 0.5, false)])]
        };
        assert_eq!(merged(&chunks(0.9), MergeAdjacent::Yes).concat()[0].0, "ORG");
        assert_eq!(merged(&chunks(0.1), MergeAdjacent::Yes).concat()[0].0, "LOC");
        let longer =
            [chunk(0..25, &[("ORG", "New York", 0.9, false)]), chunk(17..36, &[("LOC", "New York City", 0.1, false)])];
        assert_eq!(merged(&longer, MergeAdjacent::Yes).concat(), [("LOC".into(), "New York City".into(), 17..30)]);
    }

    #[test]
    fn an_entity_over_three_chunks_is_one() {
        let chunks = [
            chunk(0..20, &[("LOC", "New", 0.9, false)]),
            chunk(21..25, &[("LOC", "York", 0.9, true)]),
            chunk(26..36, &[("LOC", "City", 0.9, true)]),
        ];
        assert_eq!(merged(&chunks, MergeAdjacent::Yes).concat(), [("LOC".into(), "New York City".into(), 17..30)]);
    }
}
