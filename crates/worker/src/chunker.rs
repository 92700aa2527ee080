//! Cuts a text into chunks that fit the model.
//!
//! A chunk's ids are those of the prefix and the chunk's own text tokenized together, so that anyone can
//! compute a chunk's vector from its text. Chunks begin and end with a visible character: white space
//! between two chunks is in neither.

use std::ops::Range;

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use polylance_schema::{Chunking, Cut};
use tokenizers::Tokenizer;
use unicode_segmentation::UnicodeSegmentation;

/// Bytes of text looked at for each id of a chunk's limit: more than the densest script needs.
const BYTES_PER_TOKEN: usize = 16;

/// Cuts texts by one specification.
pub(crate) struct Chunker<'a> {
    tokenizer: &'a Tokenizer,
    spec: &'a TokenizeSpec,
    /// Ids of the prefix and of the special tokens.
    overhead: usize,
}

impl<'a> Chunker<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, spec: &'a TokenizeSpec) -> Result<Self> {
        let mut chunker = Self { tokenizer, spec, overhead: 0 };
        chunker.overhead = chunker.ids("")?.len();
        if chunker.overhead >= spec.chunking.max_tokens() {
            return Err(BackendError::Input(format!(
                "the prefix and the special tokens are {} ids and leave no room in {}",
                chunker.overhead,
                spec.chunking.max_tokens()
            )));
        }
        Ok(chunker)
    }

    /// At least one chunk of the text.
    pub(crate) fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        let start = text.len() - text.trim_start().len();
        let whole = start..start + text[start..].trim_end().len();
        // Most texts fit: one tokenization and no search. A text that cannot fit is not tokenized whole.
        if whole.len() <= self.window_bytes() {
            let input_ids = self.ids(&text[whole.clone()])?;
            if input_ids.len() <= self.limit() {
                return Ok(vec![chunk(text, whole, (0, 0), input_ids, false)]);
            }
        }
        match self.spec.chunking {
            Chunking::Truncate { .. } => {
                let (bytes, input_ids) = self.longest(text, whole.clone(), Cut::Token)?;
                let truncated = bytes.end < whole.end;
                Ok(vec![chunk(text, bytes, (0, 0), input_ids, truncated)])
            }
            Chunking::Split { overlap, cut, .. } => self.split(text, whole, overlap, cut),
        }
    }

    fn split(&self, text: &str, whole: Range<usize>, overlap: usize, cut: Cut) -> Result<Vec<Chunk>> {
        let mut chunks: Vec<Chunk> = Vec::new();
        let (mut start, mut counted) = (whole.start, (0, 0));
        loop {
            let (mut bytes, mut input_ids) = self.longest(text, start..whole.end, cut)?;
            let before = chunks.last().map_or(start, |chunk| chunk.bytes.end);
            if bytes.end <= before && start < before {
                // The overlap left no room for anything new.
                start = skip_space(text, before);
                (bytes, input_ids) = self.longest(text, start..whole.end, cut)?;
            }
            let next = chunk(text, bytes.clone(), counted, input_ids, false);
            counted = (bytes.start, next.chars.start);
            chunks.push(next);
            if bytes.end >= whole.end {
                return Ok(chunks);
            }
            start = match self.overlap(text, bytes.clone(), overlap, cut)? {
                Some(overlapping) if overlapping > bytes.start => overlapping,
                _ => skip_space(text, bytes.end),
            };
        }
    }

    /// The longest beginning of `rest` that fits and ends where `cut` allows.
    fn longest(&self, text: &str, rest: Range<usize>, cut: Cut) -> Result<(Range<usize>, Vec<u32>)> {
        let mut room = self.limit() - self.overhead;
        let window = &text[rest.start..floor(text, rest.end.min(rest.start + self.window_bytes()))];
        let ends = self.token_ends(window)?;
        loop {
            let whole = window.len() == rest.len() && ends.len() <= room;
            let end = if whole { window.len() } else { cut_before(window, ends[..room.min(ends.len())].last().copied(), cut) };
            let slice = window[..end].trim_end();
            let input_ids = self.ids(slice)?;
            if input_ids.len() <= self.limit() {
                return Ok((rest.start..rest.start + slice.len(), input_ids));
            }
            // Cut at its end a text may need more pieces than it did inside the window.
            let excess = input_ids.len() - self.limit();
            let fitting = room.min(ends.len()).saturating_sub(excess);
            if fitting == 0 && slice.chars().count() <= 1 {
                return Err(BackendError::Input(format!("one character needs more than {} ids", self.limit())));
            }
            room = fitting;
        }
    }

    /// Where the next chunk begins so that it repeats at most `overlap` ids of this one; `None` when it repeats none.
    fn overlap(&self, text: &str, bytes: Range<usize>, overlap: usize, cut: Cut) -> Result<Option<usize>> {
        if overlap == 0 {
            return Ok(None);
        }
        let slice = &text[bytes.clone()];
        let ends = self.token_ends(slice)?;
        let Some(&least) = ends.len().checked_sub(overlap + 1).and_then(|at| ends.get(at)) else { return Ok(None) };
        for start in starts_from(slice, least, cut) {
            let tail = slice[start..].trim_start();
            if !tail.is_empty() && self.encode(tail, false)?.len() <= overlap {
                return Ok(Some(bytes.end - tail.len()));
            }
        }
        Ok(None)
    }

    fn limit(&self) -> usize {
        self.spec.chunking.max_tokens()
    }

    fn window_bytes(&self) -> usize {
        self.limit() * BYTES_PER_TOKEN
    }

    /// Ids of the prefix and this text, special tokens included.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        if self.spec.prefix.is_empty() {
            return self.encode(text, true);
        }
        self.encode(&format!("{}{text}", self.spec.prefix), true)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, special).map_err(refused)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Where each piece of a text ends, in bytes, rising.
    fn token_ends(&self, text: &str) -> Result<Vec<usize>> {
        let encoding = self.tokenizer.encode(text, false).map_err(refused)?;
        let mut furthest = 0;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| {
            furthest = furthest.max(ceil(text, end.min(text.len())));
            furthest
        });
        Ok(ends.collect())
    }
}

fn refused(error: tokenizers::Error) -> BackendError {
    BackendError::Input(format!("the tokenizer refused the text: {error}"))
}

/// `counted` is a position before the chunk, in bytes and in characters.
fn chunk(text: &str, bytes: Range<usize>, counted: (usize, u64), input_ids: Vec<u32>, truncated: bool) -> Chunk {
    let start = counted.1 + text[counted.0..bytes.start].chars().count() as u64;
    let end = start + text[bytes.clone()].chars().count() as u64;
    Chunk { chars: start..end, bytes, input_ids, truncated }
}

/// The last place at or before `limit` where `cut` allows to cut, else the next finer kind of place; never 0.
fn cut_before(text: &str, limit: Option<usize>, cut: Cut) -> usize {
    let limit = limit.unwrap_or(0);
    let last = |ends: &mut dyn Iterator<Item = usize>| ends.take_while(|&end| end <= limit).filter(|&end| end > 0).last();
    let sentences = || last(&mut ends(text.split_sentence_bound_indices()));
    let words = || last(&mut ends(text.split_word_bound_indices()));
    let graphemes = || last(&mut ends(text.grapheme_indices(true)));
    let characters = || last(&mut ends(text.char_indices().map(|(at, c)| (at, &text[at..at + c.len_utf8()]))));
    let found = match cut {
        Cut::Sentence => sentences().or_else(words).or_else(graphemes),
        Cut::Word => words().or_else(graphemes),
        Cut::Token => graphemes(),
    };
    found.or_else(characters).unwrap_or_else(|| text.chars().next().map_or(0, char::len_utf8))
}

fn ends<'t>(parts: impl Iterator<Item = (usize, &'t str)>) -> impl Iterator<Item = usize> {
    parts.map(|(at, part)| at + part.len())
}

/// Places at or after `least` where a chunk may begin: first those of the cut's kind, then words.
fn starts_from(text: &str, least: usize, cut: Cut) -> impl Iterator<Item = usize> {
    let sentences = (cut == Cut::Sentence).then(|| text.split_sentence_bound_indices());
    let graphemes = (cut == Cut::Token).then(|| text.grapheme_indices(true));
    let words = text.split_word_bound_indices().map(|(at, _)| at);
    sentences.into_iter().flatten().chain(graphemes.into_iter().flatten()).map(|(at, _)| at).chain(words).filter(move |&at| at >= least)
}

fn skip_space(text: &str, at: usize) -> usize {
    text.len() - text[at..].trim_start().len()
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len())
}
