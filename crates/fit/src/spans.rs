//! Texts with entities: which characters, and the tags of the tokens over them.

use std::ops::Range;

use serde::Deserialize;

/// An entity: its kind, and the characters of the text that it covers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Span {
    /// Its kind.
    pub label: String,
    /// Its first character.
    pub start: usize,
    /// One past its last character.
    pub end: usize,
}

/// A text's entities, in their order and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

/// The tags of a text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanTags {
    /// `O`, `B-…` or `I-…` for each token.
    pub tags: Vec<String>,
    /// Spans that no token begins: they lie in white space, or where the text was cut off.
    pub lost: usize,
}

impl Spans {
    /// The entities of a text, in any order.
    ///
    /// # Errors
    /// In one line, which span has no label, covers nothing, ends beyond the text or overlaps another.
    ///
    /// ```
    /// use polylance_fit::{Span, Spans};
    ///
    /// let span = |label: &str, start, end| Span { label: label.to_owned(), start, end };
    /// let spans = Spans::new("Ada in São Paulo", vec![span("LOC", 7, 16), span("PER", 0, 3)])?;
    /// assert_eq!(spans.tags(&[0..3, 4..6, 7..10, 11..16]).tags, ["B-PER", "O", "B-LOC", "I-LOC"]);
    /// assert!(Spans::new("Ada", vec![span("PER", 0, 4)]).unwrap_err().contains("0..4 of PER ends beyond"));
    /// # Ok::<(), String>(())
    /// ```
    pub fn new(text: &str, mut spans: Vec<Span>) -> Result<Self, String> {
        let characters = text.chars().count();
        for span in &spans {
            let Span { label, start, end } = span;
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
                let (Span { label: a, start, end }, Span { label: b, .. }) = (first, second);
                return Err(format!(
                    "the span {start}..{end} of {a} overlaps the span {}..{} of {b}",
                    second.start, second.end
                ));
            }
        }
        Ok(Self(spans))
    }

    /// The tags, in IOB2, of tokens that cover these characters, ascending. A token belongs to the first span that it
    /// reaches into.
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

    fn span(label: &str, start: usize, end: usize) -> Span {
        Span { label: label.to_owned(), start, end }
    }

    #[test]
    fn a_span_that_does_not_fit_its_text_is_named() {
        let refused = |spans: Vec<Span>| Spans::new("ทุกคน 👍", spans).unwrap_err();
        assert_eq!(refused(vec![span("PER", 0, 8)]), "the span 0..8 of PER ends beyond the text's 7 characters");
        assert_eq!(refused(vec![span("PER", 3, 3)]), "the span 3..3 of PER covers nothing");
        assert_eq!(refused(vec![span("PER", 5, 2)]), "the span 5..2 of PER covers nothing");
        assert_eq!(refused(vec![span("", 0, 2)]), "the span 0..2 has no label");
        let overlapping = vec![span("LOC", 4, 7), span("PER", 0, 5)];
        assert_eq!(refused(overlapping), "the span 0..5 of PER overlaps the span 4..7 of LOC");
        assert!(Spans::new("ทุกคน 👍", vec![span("LOC", 3, 7), span("PER", 0, 3)]).is_ok());
    }

    #[test]
    fn spans_side_by_side_each_begin_and_what_no_token_reaches_is_counted() {
        let spans = Spans::new("abcdef ghi", vec![span("X", 0, 2), span("X", 2, 4), span("Y", 6, 7)]).unwrap();
        let found = spans.tags(&[0..1, 1..2, 2..4, 4..6, 7..10]);
        assert_eq!(found.tags, ["B-X", "I-X", "B-X", "O", "O"]);
        assert_eq!(found.lost, 1);
        // A token over two spans is of the first; the second begins with the next token.
        let found = spans.tags(&[0..3, 3..6]);
        assert_eq!((found.tags, found.lost), (vec!["B-X".to_owned(), "B-X".to_owned()], 1));
        assert_eq!(Spans::new("", vec![]).unwrap().tags(&[]).lost, 0);
    }
}
