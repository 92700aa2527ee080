//! Positions in a text: where it may be cut, and where a chunk may begin.
//!
//! Every position is a boundary of grapheme clusters, the characters that a reader sees. Unicode's word boundaries are
//! not always (Thai's SARA AM is a word of its own and half of a cluster), so each candidate is checked.

use polylance_schema::Cut;
use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

/// The beginning of a longer text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'t> {
    pub(super) text: &'t str,
    /// Boundaries up to here do not depend on the text after the window.
    pub(super) stable_end: usize,
}

impl<'t> Window<'t> {
    /// `whole`: only white space follows the window.
    pub(super) fn new(text: &'t str, whole: bool) -> Self {
        let last = text.chars().next_back().map_or(0, char::len_utf8);
        let stable_end = match cluster_before(text, text.len() - last) {
            end if end > 0 && !whole => end,
            // One cluster fills the window, or nothing follows it.
            _ => text.len(),
        };
        Self { text, stable_end }
    }

    /// The last position at or before `limit` where `cut` allows a cut, or else one of the next finer kind.
    ///
    /// If not even a cluster ends before `limit`, it is the end of the first cluster, or if that is not before `below`,
    /// the end of the last character: never 0.
    pub(super) fn cut(&self, limit: usize, below: usize, cut: Cut) -> usize {
        let text = self.text;
        let limit = limit.min(self.stable_end);
        let sentences = || self.last_fitting(text.split_sentence_bounds(), limit);
        let words = || self.last_fitting(text.split_word_bounds(), limit);
        let found = match cut {
            Cut::Sentence => sentences().or_else(words),
            Cut::Word => words(),
            Cut::Token => None,
        };
        let visible = |&end: &usize| trim_end(&text[..end]) > 0;
        let clusters = || Some(cluster_before(text, limit)).filter(visible);
        let first = || text.graphemes(true).next().map(str::len).filter(|&end| trim_end(&text[..end]) < below);
        let characters = || Some(text.floor_char_boundary(limit)).filter(visible);
        let character = || text.chars().next().map_or(0, char::len_utf8);
        found.or_else(clusters).or_else(first).or_else(characters).unwrap_or_else(character)
    }

    /// The end of the last part whose visible text ends at or before `limit`.
    fn last_fitting(&self, parts: impl Iterator<Item = &'t str>, limit: usize) -> Option<usize> {
        let visible = |end: usize| trim_end(&self.text[..end]);
        let ends = ends(parts).take_while(|&end| end <= self.stable_end && visible(end) <= limit);
        let ends: Vec<usize> = ends.collect();
        ends.into_iter().rev().find(|&end| visible(end) > 0 && between_clusters(self.text, end))
    }
}

/// Positions after the first character and at or after `min` where a chunk may begin: those of the cut's kind from left
/// to right, then finer ones.
pub(super) fn chunk_starts(text: &str, min: usize, cut: Cut) -> impl Iterator<Item = usize> {
    let sentences = (cut == Cut::Sentence).then(|| ends(text.split_sentence_bounds()));
    let words = (cut != Cut::Token).then(|| ends(text.split_word_bounds()));
    let clusters =
        ends(text[text.floor_char_boundary(min)..].graphemes(true)).map(move |end| text.floor_char_boundary(min) + end);
    let all = sentences.into_iter().flatten().chain(words.into_iter().flatten()).chain(clusters);
    all.filter(move |&at| at >= min && between_clusters(text, at))
        .map(|at| at + trim_start(&text[at..]))
        .filter(|&at| 0 < at && at < text.len())
}

/// Bytes of white space at the beginning. White space that carries a mark is not white space.
pub(super) fn trim_start(text: &str) -> usize {
    let at = text.len() - text.trim_start().len();
    if at == 0 || between_clusters(text, at) {
        return at;
    }
    text[..at].char_indices().next_back().map_or(0, |(before, _)| before)
}

/// The length of the text without the white space at its end.
pub(super) fn trim_end(text: &str) -> usize {
    let at = text.trim_end().len();
    if at == 0 || between_clusters(text, at) {
        return at;
    }
    at + text[at..].chars().next().map_or(0, char::len_utf8)
}

fn ends<'t>(parts: impl Iterator<Item = &'t str>) -> impl Iterator<Item = usize> {
    parts.scan(0, |end, part| {
        *end += part.len();
        Some(*end)
    })
}

fn between_clusters(text: &str, at: usize) -> bool {
    GraphemeCursor::new(at, text.len(), true).is_boundary(text, 0).unwrap_or(true)
}

/// The last cluster boundary at or before `at`.
fn cluster_before(text: &str, at: usize) -> usize {
    let at = text.floor_char_boundary(at);
    if between_clusters(text, at) {
        return at;
    }
    GraphemeCursor::new(at, text.len(), true).prev_boundary(text, 0).ok().flatten().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_with_a_combining_mark_is_text() {
        assert_eq!(trim_start("  \u{301}x"), 1);
        assert_eq!(trim_start(" \r\n x"), 4);
        // An Arabic number sign joins with the character that follows it.
        assert_eq!(trim_end("x\u{600}  "), "x\u{600} ".len());
        assert_eq!(trim_end("x \n"), 1);
        assert_eq!((trim_start(" \n"), trim_end(" \n")), (2, 0));
    }

    #[test]
    fn cut_falls_back_from_sentence_to_word_to_cluster_to_character() {
        let cut = |text: &str, limit: usize, cut| Window::new(text, true).cut(limit, usize::MAX, cut);
        assert_eq!(cut("One two. Three four.", 19, Cut::Sentence), "One two. ".len());
        assert_eq!(cut("One two. Three four.", 8, Cut::Sentence), "One two. ".len());
        assert_eq!(cut("One two. Three four.", 7, Cut::Sentence), "One two".len());
        assert_eq!(cut("One two. Three four.", 19, Cut::Word), "One two. Three four".len());
        assert_eq!(cut("onetwo", 4, Cut::Sentence), 4);
        assert_eq!(cut("ne\u{301}e\u{301}", 4, Cut::Token), "ne\u{301}".len());
        // The first cluster is longer than the limit: it is tried, and then cut.
        let zalgo = "e\u{301}\u{302}\u{303}x";
        assert_eq!(cut(zalgo, 3, Cut::Word), 7);
        assert_eq!(Window::new(zalgo, true).cut(3, 7, Cut::Word), 3);
        assert_eq!(Window::new(zalgo, true).cut(0, 7, Cut::Word), 1);
    }

    #[test]
    fn thai_words_are_not_cut_inside_a_cluster() {
        let text = "น้ำ".repeat(3);
        for limit in 0..text.len() {
            assert_eq!(Window::new(&text, true).cut(limit, usize::MAX, Cut::Word) % "น้ำ".len(), 0);
        }
        assert!(chunk_starts(&text, 1, Cut::Word).all(|at| at % "น้ำ".len() == 0));
    }

    #[test]
    fn boundary_at_the_end_of_a_window_is_not_stable() {
        let flags = "🇺🇳🇫🇷";
        assert_eq!(Window::new(&flags[..12], false).stable_end, 8);
        assert_eq!(Window::new(flags, true).stable_end, 16);
        assert_eq!(Window::new("e\u{301}", false).stable_end, 3);
    }

    #[test]
    fn starts_yield_sentences_first_and_never_the_beginning_or_the_end() {
        let text = "A b. C d. E";
        assert_eq!(chunk_starts(text, 3, Cut::Sentence).next(), Some(5));
        assert_eq!(chunk_starts(text, 6, Cut::Word).next(), Some(7));
        assert!(chunk_starts(text, 0, Cut::Token).all(|at| 0 < at && at < text.len()));
    }
}
