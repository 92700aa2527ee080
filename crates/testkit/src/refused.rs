//! The text that every fake refuses.

/// A word that makes the fakes refuse the text that contains it.
pub(crate) const REFUSED: &str = "\u{0}refused";
