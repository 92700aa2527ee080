//! Tagged sentences: CoNLL files.

use crate::{FitError, Result};

/// A sentence: its words, and the tag of each in IOB2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaggedSentence {
    /// The words, in order.
    pub words: Vec<String>,
    /// `O`, `B-…` or `I-…` for each word.
    pub tags: Vec<String>,
}

/// Reads a CoNLL file: one word per line, its tag in the last column (separated by tabs or spaces), a blank line after
/// each sentence. IOB1, IOB2, IOBES and BILOU are supported; `name` is the file's name in errors.
///
/// # Errors
/// [`FitError::Data`] with the line of a word without a tag, or of a tag of no known scheme.
///
/// ```
/// let sentences = polylance_fit::read_conll("ner.txt", "Ada\tS-PER\nsleeps\tO\n\n")?;
/// assert_eq!(sentences[0].tags, ["B-PER", "O"]);
/// # Ok::<(), polylance_fit::FitError>(())
/// ```
pub fn read_conll(name: &str, text: &str) -> Result<Vec<TaggedSentence>> {
    let mut sentences = Vec::new();
    let (mut words, mut tags): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().chain([""]).enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("-DOCSTART-") {
            if !words.is_empty() {
                let tags = iob2(&std::mem::take(&mut tags));
                sentences.push(TaggedSentence { words: std::mem::take(&mut words), tags });
            }
            continue;
        }
        let refuse = |what: &str| FitError::Data(format!("{name}, line {}: {what}", number + 1));
        let mut columns = line.split(['\t', ' ']).filter(|column| !column.is_empty());
        let word = columns.next().ok_or_else(|| refuse("no word"))?;
        let tag = columns.next_back().ok_or_else(|| refuse(&format!("the word {word:?} has no tag")))?;
        let marked = |(mark, kind): (&str, &str)| ["B", "I", "E", "S", "L", "U"].contains(&mark) && !kind.is_empty();
        let known = tag == "O" || tag.split_once('-').is_some_and(marked);
        if !known {
            return Err(refuse(&format!("{tag:?} is no tag of IOB, IOBES or BILOU")));
        }
        words.push(word.to_owned());
        tags.push(tag.to_owned());
    }
    Ok(sentences)
}

/// Tags of any scheme as IOB2: the first of an entity is `B-`, the others are `I-`.
fn iob2(tags: &[String]) -> Vec<String> {
    let mut before: Option<(&str, bool)> = None;
    let mut out = Vec::with_capacity(tags.len());
    for tag in tags {
        let Some((mark, kind)) = tag.split_once('-') else {
            before = None;
            out.push(tag.clone());
            continue;
        };
        let continues = matches!(mark, "I" | "E" | "L") && before == Some((kind, false));
        out.push(format!("{}-{kind}", if continues { "I" } else { "B" }));
        before = Some((kind, matches!(mark, "E" | "L" | "S" | "U")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_is_converted_to_iob2() {
        let tags = |tags: &[&str]| iob2(&tags.iter().map(ToString::to_string).collect::<Vec<_>>());
        let expected = ["B-PER", "I-PER", "O", "B-LOC", "B-LOC"];
        assert_eq!(tags(&["I-PER", "I-PER", "O", "I-LOC", "B-LOC"]), expected);
        assert_eq!(tags(&["B-PER", "E-PER", "O", "S-LOC", "S-LOC"]), expected);
        assert_eq!(tags(&["B-PER", "L-PER", "O", "U-LOC", "U-LOC"]), expected);
        assert_eq!(tags(&["B-geo-loc", "I-geo-loc"]), ["B-geo-loc", "I-geo-loc"]);
    }

    #[test]
    fn malformed_line_is_refused_by_number() {
        let refused = |text: &str| read_conll("ner.txt", text).unwrap_err().to_string();
        assert_eq!(refused("a O\nword\n"), "ner.txt, line 2: the word \"word\" has no tag");
        for tag in ["X-PER", "-PER", "IE-PER", "B-", "PER"] {
            let expected = format!("ner.txt, line 1: {tag:?} is no tag of IOB, IOBES or BILOU");
            assert_eq!(refused(&format!("a {tag}\n")), expected);
        }
        assert_eq!(read_conll("ner.txt", "a O\r\n \t\r\n\r\nb NN O\r\n").unwrap().len(), 2);
    }
}
