//! The entities of a text, and the tags of its tokens.

use std::ops::Range;

use serde::Deserialize;

/// An entity: its label, and its characters in the text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct LabeledSpan {
    /// Its label.
    pub label: String,
    /// Its first character.
    pub start: usize,
    /// One past its last character.
    pub end: usize,
}

/// A text's entities, ascending and without overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledSpans(Vec<LabeledSpan>);

/// The tags of a text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTags {
    /// `O`, `B-…` or `I-…` for each token.
    pub tags: Vec<String>,
    /// Spans that no token covers: they are white space, or in the truncated part of the text.
    pub lost: usize,
}

impl LabeledSpans {
    /// The entities of a text, in any order.
    ///
    /// # Errors
    /// One line that names the span which has no label, is empty, ends beyond the text or overlaps another.
    ///
    /// ```
    /// use polylance_fit::{LabeledSpan, LabeledSpans};
    ///
    /// let span = |label: &str, start, end| LabeledSpan { label: label.to_owned(), start, end };
    /// let spans = LabeledSpans::new("Ada in São Paulo", vec![span("LOC", 7, 16), span("PER", 0, 3)])?;
    /// assert_eq!(spans.tags(&[0..3, 4..6, 7..10, 11..16]).tags, ["B-PER", "O", "B-LOC", "I-LOC"]);
    /// assert!(LabeledSpans::new("Ada", vec![span("PER", 0, 4)]).unwrap_err().contains("0..4 of PER ends beyond"));
    /// # Ok::<(), String>(())
    /// ```
    pub fn new(text: &str, mut spans: Vec<LabeledSpan>) -> Result<Self, String> {
        let characters = text.chars().count();
        for span in &spans {
            let LabeledSpan { label, start, end } = span;
            if label.is_empty() {
                return Err(format!("the span {start}..{end} has no label"));
            }
            if start >= end {
                return Err(format!("the span {start}..{end} of {label} covers nothing"));
            }
            if *end > characters {
                return Err(format!(
                    "the span {start}..{end} of {label} ends beyond the text's {characters} characters"
                ));
            }
        }
        spans.sort_by_key(|span| span.start);
        for pair in spans.windows(2) {
            if let [first, second] = pair
                && second.start < first.end
            {
                let (LabeledSpan { label: a, start, end }, LabeledSpan { label: b, .. }) = (first, second);
                return Err(format!(
                    "the span {start}..{end} of {a} overlaps the span {}..{} of {b}",
                    second.start, second.end
                ));
            }
        }
        Ok(Self(spans))
    }

    /// The tags, in IOB2, of tokens that cover these characters, ascending. A token belongs to the first span that it
    /// overlaps.
    pub fn tags(&self, tokens: &[Range<usize>]) -> SpanTags {
        let mut tags = Vec::with_capacity(tokens.len());
        let mut begun = vec![false; self.0.len()];
        let mut next = 0;
        for token in tokens {
            while self.0.get(next).is_some_and(|span| span.end <= token.start) {
                next += 1;
            }
            match self.0.get(next).filter(|span| span.start < token.end) {
                None => tags.push("O".to_owned()),
                Some(span) => {
                    let mark = if std::mem::replace(&mut begun[next], true) { "I" } else { "B" };
                    tags.push(format!("{mark}-{}", span.label));
                }
            }
        }
        SpanTags { tags, lost: begun.iter().filter(|begun| !**begun).count() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(label: &str, start: usize, end: usize) -> LabeledSpan {
        LabeledSpan { label: label.to_owned(), start, end }
    }

    #[test]
    fn span_outside_its_text_is_refused_by_name() {
        let refused = |spans: Vec<LabeledSpan>| LabeledSpans::new("ทุกคน 👍", spans).unwrap_err();
        assert_eq!(refused(vec![span("PER", 0, 8)]), "the span 0..8 of PER ends beyond the text's 7 characters");
        assert_eq!(refused(vec![span("PER", 3, 3)]), "the span 3..3 of PER covers nothing");
        assert_eq!(refused(vec![span("PER", 5, 2)]), "the span 5..2 of PER covers nothing");
        assert_eq!(refused(vec![span("", 0, 2)]), "the span 0..2 has no label");
        let overlapping = vec![span("LOC", 4, 7), span("PER", 0, 5)];
        assert_eq!(refused(overlapping), "the span 0..5 of PER overlaps the span 4..7 of LOC");
        assert!(LabeledSpans::new("ทุกคน 👍", vec![span("LOC", 3, 7), span("PER", 0, 3)]).is_ok());
    }

    #[test]
    fn adjacent_spans_each_begin_and_uncovered_spans_are_counted() {
        let spans = LabeledSpans::new("abcdef ghi", vec![span("X", 0, 2), span("X", 2, 4), span("Y", 6, 7)]).unwrap();
        let found = spans.tags(&[0..1, 1..2, 2..4, 4..6, 7..10]);
        assert_eq!(found.tags, ["B-X", "I-X", "B-X", "O", "O"]);
        assert_eq!(found.lost, 1);
        // A token over two spans belongs to the first; the second begins with the next token.
        let found = spans.tags(&[0..3, 3..6]);
        assert_eq!((found.tags, found.lost), (vec!["B-X".to_owned(), "B-X".to_owned()], 1));
        assert_eq!(LabeledSpans::new("", vec![]).unwrap().tags(&[]).lost, 0);
    }
}
