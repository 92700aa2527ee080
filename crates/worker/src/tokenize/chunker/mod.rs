//! Cuts a text into chunks that fit the model.
//!
//! A chunk's ids are those of the prefix and the chunk's own text tokenized together, so that anyone can
//! compute a chunk's vector from its text. Chunks begin and end with a visible character: white space
//! between two chunks, and around the text, is in none. A text without a visible character is one empty chunk.
//!
//! Most texts fit and are tokenized once. A longer one is read through a window of about the bytes one chunk
//! takes, so that time grows with the text's length and memory only with its chunks.

mod boundaries;
#[cfg(test)]
mod tests;

use std::ops::Range;

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use polylance_encoder::TruncationSide;
use polylance_schema::{Chunking, Cut};

use tokenizers::TruncationDirection;

use self::boundaries::{Window, ceil, floor, starts, trim_end, trim_start};
use crate::normalizer::Tokenizer;

/// Bytes of text an id stands for, as a first guess: most scripts have between 3 and 12.
const BYTES_PER_TOKEN: usize = 8;
/// Bytes of text an id stands for at most: a chunk ends there even if ids are left (a run of characters that the
/// vocabulary lacks is one id however long it is).
const MOST_BYTES_PER_TOKEN: usize = 256;
/// Ids in a window beyond those of a chunk. The last ones change when text follows.
const SLACK: usize = 8;
/// Beginnings of an overlap that are tried.
const OVERLAP_TRIES: usize = 8;

/// Cuts texts by one specification.
pub(crate) struct Chunker<'a> {
    tokenizer: &'a Tokenizer,
    spec: &'a TokenizeSpec,
    /// Ids of the text itself in a chunk: the limit without the prefix and the special tokens.
    room: usize,
    side: TruncationSide,
    /// Bytes given to the tokenizer.
    #[cfg(test)]
    work: std::sync::atomic::AtomicUsize,
}

/// A beginning of a text that fits.
struct Fit {
    bytes: Range<usize>,
    input_ids: Vec<u32>,
    /// Where its tokens end, from its beginning.
    ends: Vec<usize>,
}

impl<'a> Chunker<'a> {
    /// # Errors
    /// When the prefix leaves no room.
    pub(crate) fn new(tokenizer: &'a Tokenizer, spec: &'a TokenizeSpec) -> Result<Self> {
        let mut chunker = Self {
            tokenizer,
            spec,
            room: 0,
            side: TruncationSide::Right,
            #[cfg(test)]
            work: std::sync::atomic::AtomicUsize::default(),
        };
        let (overhead, limit) = (chunker.ids("")?.len(), chunker.limit());
        if overhead >= limit {
            return Err(BackendError::Input(format!(
                "the prefix and the special tokens are {overhead} ids and leave no room in {limit}"
            )));
        }
        chunker.room = limit - overhead;
        Ok(chunker)
    }

    /// A truncated text loses its end, or its beginning.
    pub(crate) fn truncating(self, side: TruncationSide) -> Self {
        Self { side, ..self }
    }

    /// At least one chunk of the text.
    pub(crate) fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        let end = trim_end(text);
        let whole = trim_start(&text[..end])..end;
        if whole.len() <= self.limit() * BYTES_PER_TOKEN * 2 {
            let input_ids = self.ids(&text[whole.clone()])?;
            if input_ids.len() <= self.limit() {
                return Ok(vec![chunk(text, whole, (0, 0), input_ids, false)]);
            }
        }
        match self.spec.chunking {
            Chunking::Truncate { .. } if self.side == TruncationSide::Left => Ok(vec![self.ending(text, &whole)?]),
            Chunking::Truncate { .. } => {
                let fit = self.longest(text, whole.clone(), Cut::Token, self.limit() * BYTES_PER_TOKEN)?;
                let truncated = fit.bytes.end < whole.end;
                Ok(vec![chunk(text, fit.bytes, (0, 0), fit.input_ids, truncated)])
            }
            Chunking::Split { overlap, cut, .. } => self.split(text, whole, overlap, cut),
        }
    }

    /// The last ids of the prefix and the text together, so that the prefix is the first to go: this is what a tokenizer
    /// does whose `truncation_side` is left.
    fn ending(&self, text: &str, whole: &Range<usize>) -> Result<Chunk> {
        let kept = self.limit().saturating_sub(self.encode("", true)?.len()).max(1);
        let most = self.limit() * MOST_BYTES_PER_TOKEN;
        let mut bytes = (self.limit() * BYTES_PER_TOKEN * 2).min(most);
        let (start, before, mut encoding) = loop {
            let first = ceil(text, whole.end.saturating_sub(bytes)).max(whole.start);
            // A window that begins with a word has its tokens.
            let word = text[first..whole.end].find(char::is_whitespace).filter(|at| *at < bytes / 2);
            let start = if first == whole.start { first } else { first + word.unwrap_or(0) };
            let prefix = if start == whole.start { self.spec.prefix.as_str() } else { "" };
            let input = [prefix, &text[start..whole.end]].concat();
            self.count(&input);
            let encoding = self.tokenizer.encode(input, false).map_err(|error| refused(&error))?;
            if start == whole.start || encoding.len() >= kept + SLACK || bytes == most {
                break (start, prefix.len(), encoding);
            }
            bytes = (bytes * 2).min(most);
        };
        let truncated = start > whole.start || encoding.len() > kept;
        encoding.truncate(kept, 0, TruncationDirection::Left);
        let first = encoding.get_offsets().first().map_or(0, |offsets| offsets.0);
        let at = floor(text, start + first.saturating_sub(before));
        let at = at + trim_start(&text[at..whole.end]);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(|error| refused(&error))?;
        Ok(chunk(text, at..whole.end, (0, 0), encoding.get_ids().to_vec(), truncated))
    }

    fn split(&self, text: &str, whole: Range<usize>, overlap: usize, cut: Cut) -> Result<Vec<Chunk>> {
        // More than half would make the chunks many times the text.
        let overlap = overlap.min(self.room / 2);
        let mut chunks: Vec<Chunk> = Vec::new();
        let (mut start, mut counted) = (whole.start, (0, 0));
        let mut guess = self.limit() * BYTES_PER_TOKEN;
        loop {
            let mut fit = self.longest(text, start..whole.end, cut, guess)?;
            let before = chunks.last().map_or(start, |chunk| chunk.bytes.end);
            if start < before && fit.bytes.end <= before {
                // The overlap left no room for anything new.
                start = before + trim_start(&text[before..]);
                fit = self.longest(text, start..whole.end, cut, guess)?;
            }
            let next = chunk(text, fit.bytes.clone(), counted, fit.input_ids, false);
            counted = (next.bytes.start, next.chars.start);
            chunks.push(next);
            if fit.bytes.end >= whole.end {
                return Ok(chunks);
            }
            // The text that follows is most likely of the same kind.
            guess = (self.room + SLACK) * fit.bytes.len() / fit.ends.len().max(1) * 5 / 4;
            start = match self.overlap(&text[fit.bytes.clone()], &fit.ends, overlap, cut)? {
                Some(repeated) => fit.bytes.start + repeated,
                None => fit.bytes.end + trim_start(&text[fit.bytes.end..]),
            };
        }
    }

    /// The longest beginning of `rest` that fits and ends where `cut` allows. `guess`: bytes to look at first.
    fn longest(&self, text: &str, rest: Range<usize>, cut: Cut, guess: usize) -> Result<Fit> {
        let (window, mut ends) = self.window(&text[rest.clone()], guess)?;
        let mut limit = if ends.len() > self.room { ends[self.room - 1] } else { window.known };
        let mut below = usize::MAX;
        loop {
            let end = window.cut(limit, below, cut);
            let slice = &window.text[..trim_end(&window.text[..end])];
            let input_ids = self.ids(slice)?;
            let tokens = ends.partition_point(|&end| end <= slice.len());
            if input_ids.len() <= self.limit() {
                ends.truncate(tokens);
                return Ok(Fit { bytes: rest.start..rest.start + slice.len(), input_ids, ends });
            }
            if slice.chars().nth(1).is_none() {
                return Err(BackendError::Input(format!(
                    "the character {slice:?} needs {} ids with the prefix, more than {}",
                    input_ids.len(),
                    self.limit()
                )));
            }
            // Cut off from what follows, a text may need more ids than it did inside the window.
            let fitting = tokens.saturating_sub(input_ids.len() - self.limit());
            below = slice.len();
            limit = fitting.checked_sub(1).map_or(0, |last| ends[last]).min(below - 1);
        }
    }

    /// A window on the beginning of `rest` with the ids of at least one chunk, and where its tokens end.
    fn window<'t>(&self, rest: &'t str, guess: usize) -> Result<(Window<'t>, Vec<usize>)> {
        let most = self.limit() * MOST_BYTES_PER_TOKEN;
        let mut bytes = guess.max(64).min(most);
        loop {
            let text = &rest[..floor(rest, bytes)];
            let ends = self.token_ends(text)?;
            if text.len() == rest.len() || ends.len() > self.room + SLACK || bytes == most {
                return Ok((Window::new(text, text.len() == rest.len()), ends));
            }
            bytes = (bytes * 2).min(most);
        }
    }

    /// Where in a chunk the next one begins so that it repeats at most `overlap` ids; `None` when it repeats none.
    ///
    /// The repeated text is counted on its own, without the prefix and special tokens.
    fn overlap(&self, slice: &str, ends: &[usize], overlap: usize, cut: Cut) -> Result<Option<usize>> {
        let Some(least) = ends.len().checked_sub(overlap + 1).filter(|_| overlap > 0) else { return Ok(None) };
        for start in starts(slice, ends[least], cut).take(OVERLAP_TRIES) {
            if self.encode(&slice[start..], false)?.len() <= overlap {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    fn limit(&self) -> usize {
        self.spec.chunking.max_tokens()
    }

    /// Ids of the prefix and this text, special tokens included.
    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        if self.spec.prefix.is_empty() {
            return self.encode(text, true);
        }
        self.encode(&[&self.spec.prefix, text].concat(), true)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.count(text);
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|error| refused(&error))?;
        Ok(encoding.get_ids().to_vec())
    }

    #[cfg(test)]
    fn count(&self, text: &str) {
        self.work.fetch_add(text.len(), std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests count the work")]
    fn count(&self, _text: &str) {}

    /// Where each token of a text ends, in bytes, rising.
    fn token_ends(&self, text: &str) -> Result<Vec<usize>> {
        self.count(text);
        let encoding = self.tokenizer.encode(text, false).map_err(|error| refused(&error))?;
        let mut furthest = 0;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| {
            // A normalizer that decomposes may put an end inside a character.
            furthest = furthest.max(ceil(text, end));
            furthest
        });
        Ok(ends.collect())
    }
}

fn refused(error: &tokenizers::Error) -> BackendError {
    BackendError::Input(format!("the tokenizer refused the text: {error}"))
}

/// `counted` is a position at or before the chunk, in bytes and in characters.
fn chunk(text: &str, bytes: Range<usize>, counted: (usize, u64), input_ids: Vec<u32>, truncated: bool) -> Chunk {
    let start = counted.1 + text[counted.0..bytes.start].chars().count() as u64;
    let end = start + text[bytes.clone()].chars().count() as u64;
    Chunk { chars: start..end, bytes, input_ids, truncated }
}
