//! Cuts a text into chunks that fit the model.
//!
//! A chunk's tokens are those of the prefix and the chunk's own text tokenized together, so that anyone can compute a
//! chunk's vector from its text. Chunks begin and end with a visible character: white space between two chunks, and
//! around the text, is in none. A text without a visible character is one empty chunk.
//!
//! Most texts fit and are tokenized once. A longer one is read through a window of about the size of one chunk, so that
//! time grows with the text's length, and memory only with its chunks.

mod boundaries;
#[cfg(test)]
mod tests;

use std::ops::Range;

use polylance_backend::{BackendError, Chunk, Result, TokenizeSpec};
use polylance_encoder::TruncationSide;
use polylance_schema::{Chunking, Cut};
use tokenizers::TruncationDirection;

use self::boundaries::{Window, chunk_starts, trim_end, trim_start};
use super::normalizer::Tokenizer;

/// Bytes of text per token, as a first guess: most scripts have between 3 and 12.
const BYTES_PER_TOKEN: usize = 8;
/// Maximum bytes of text per token: a chunk ends there even if it has room for more tokens (a run of characters outside
/// the vocabulary is one token of any length).
const MAX_BYTES_PER_TOKEN: usize = 256;
/// Tokens in a window beyond those of a chunk. The last ones change when text follows.
const SLACK_TOKENS: usize = 8;
/// Maximum number of positions that are tried as the start of an overlap.
const MAX_OVERLAP_TRIES: usize = 8;

/// Cuts texts according to one specification.
pub(crate) struct Chunker<'a> {
    tokenizer: &'a Tokenizer,
    spec: &'a TokenizeSpec,
    /// Tokens of the text itself in a chunk: the limit without the prefix and the special tokens.
    max_text_tokens: usize,
    side: TruncationSide,
    /// Bytes given to the tokenizer.
    #[cfg(test)]
    tokenized_bytes: std::sync::atomic::AtomicUsize,
}

/// The beginning of a text that fits into a chunk.
struct Fit {
    bytes: Range<usize>,
    input_ids: Vec<u32>,
    /// Where its tokens end, in bytes from its beginning.
    ends: Vec<usize>,
}

impl<'a> Chunker<'a> {
    /// # Errors
    /// When the prefix leaves no room for text.
    pub(crate) fn new(tokenizer: &'a Tokenizer, spec: &'a TokenizeSpec) -> Result<Self> {
        let mut chunker = Self {
            tokenizer,
            spec,
            max_text_tokens: 0,
            side: TruncationSide::Right,
            #[cfg(test)]
            tokenized_bytes: std::sync::atomic::AtomicUsize::default(),
        };
        let (overhead, limit) = (chunker.input_ids("")?.len(), chunker.limit());
        if overhead >= limit {
            return Err(BackendError::Input(format!(
                "the prefix and the special tokens are {overhead} tokens and leave no room within the limit of {limit}"
            )));
        }
        chunker.max_text_tokens = limit - overhead;
        Ok(chunker)
    }

    /// Sets the side at which a text is truncated.
    pub(crate) fn truncating(self, side: TruncationSide) -> Self {
        Self { side, ..self }
    }

    /// Cuts a text into at least one chunk.
    pub(crate) fn chunks(&self, text: &str) -> Result<Vec<Chunk>> {
        let end = trim_end(text);
        let whole = trim_start(&text[..end])..end;
        if whole.len() <= self.limit() * BYTES_PER_TOKEN * 2 {
            let input_ids = self.input_ids(&text[whole.clone()])?;
            if input_ids.len() <= self.limit() {
                return Ok(vec![chunk(text, whole, (0, 0), input_ids, false)]);
            }
        }
        match self.spec.chunking {
            Chunking::Truncate { .. } if self.side == TruncationSide::Left => {
                Ok(vec![self.truncated_on_the_left(text, &whole)?])
            }
            Chunking::Truncate { .. } => {
                let fit = self.longest_fit(text, whole.clone(), Cut::Token, self.limit() * BYTES_PER_TOKEN)?;
                let truncated = fit.bytes.end < whole.end;
                Ok(vec![chunk(text, fit.bytes, (0, 0), fit.input_ids, truncated)])
            }
            Chunking::Split { overlap, cut, .. } => self.split(text, whole, overlap, cut),
        }
    }

    /// The last tokens of the prefix and the text together, so that the prefix is cut off first, like a tokenizer with
    /// the `truncation_side` left.
    fn truncated_on_the_left(&self, text: &str, whole: &Range<usize>) -> Result<Chunk> {
        let kept = self.limit().saturating_sub(self.encode("", true)?.len()).max(1);
        let max_bytes = self.limit() * MAX_BYTES_PER_TOKEN;
        let mut bytes = (self.limit() * BYTES_PER_TOKEN * 2).min(max_bytes);
        let (start, before, mut encoding) = loop {
            let first = text.ceil_char_boundary(whole.end.saturating_sub(bytes)).max(whole.start);
            // A window that begins at a word has the tokens of that word.
            let word = text[first..whole.end].find(char::is_whitespace).filter(|at| *at < bytes / 2);
            let start = if first == whole.start { first } else { first + word.unwrap_or(0) };
            let prefix = if start == whole.start { self.spec.prefix.as_str() } else { "" };
            let input = [prefix, &text[start..whole.end]].concat();
            self.count_bytes(&input);
            let encoding = self.tokenizer.encode(input, false).map_err(|error| refused(&error))?;
            if start == whole.start || encoding.len() >= kept + SLACK_TOKENS || bytes == max_bytes {
                break (start, prefix.len(), encoding);
            }
            bytes = (bytes * 2).min(max_bytes);
        };
        let truncated = start > whole.start || encoding.len() > kept;
        encoding.truncate(kept, 0, TruncationDirection::Left);
        let first = encoding.get_offsets().first().map_or(0, |offsets| offsets.0);
        let at = text.floor_char_boundary(start + first.saturating_sub(before));
        let at = at + trim_start(&text[at..whole.end]);
        let encoding = self.tokenizer.post_process(encoding, None, true).map_err(|error| refused(&error))?;
        Ok(chunk(text, at..whole.end, (0, 0), encoding.get_ids().to_vec(), truncated))
    }

    fn split(&self, text: &str, whole: Range<usize>, overlap: usize, cut: Cut) -> Result<Vec<Chunk>> {
        // A larger overlap would make the chunks many times as long as the text.
        let overlap = overlap.min(self.max_text_tokens / 2);
        let mut chunks: Vec<Chunk> = Vec::new();
        let (mut start, mut counted) = (whole.start, (0, 0));
        let mut guess = self.limit() * BYTES_PER_TOKEN;
        loop {
            let mut fit = self.longest_fit(text, start..whole.end, cut, guess)?;
            let before = chunks.last().map_or(start, |chunk| chunk.bytes.end);
            if start < before && fit.bytes.end <= before {
                // The overlap left no room for new text.
                start = before + trim_start(&text[before..]);
                fit = self.longest_fit(text, start..whole.end, cut, guess)?;
            }
            let next = chunk(text, fit.bytes.clone(), counted, fit.input_ids, false);
            counted = (next.bytes.start, next.chars.start);
            chunks.push(next);
            if fit.bytes.end >= whole.end {
                return Ok(chunks);
            }
            // The following text most likely has as many bytes per token.
            guess = (self.max_text_tokens + SLACK_TOKENS) * fit.bytes.len() / fit.ends.len().max(1) * 5 / 4;
            start = match self.overlap_start(&text[fit.bytes.clone()], &fit.ends, overlap, cut)? {
                Some(repeated) => fit.bytes.start + repeated,
                None => fit.bytes.end + trim_start(&text[fit.bytes.end..]),
            };
        }
    }

    /// The longest beginning of `rest` that fits and ends where `cut` allows it. `guess`: bytes to tokenize first.
    fn longest_fit(&self, text: &str, rest: Range<usize>, cut: Cut, guess: usize) -> Result<Fit> {
        let (window, mut ends) = self.window(&text[rest.clone()], guess)?;
        let mut limit =
            if ends.len() > self.max_text_tokens { ends[self.max_text_tokens - 1] } else { window.stable_end };
        let mut below = usize::MAX;
        loop {
            let end = window.cut(limit, below, cut);
            let slice = &window.text[..trim_end(&window.text[..end])];
            let input_ids = self.input_ids(slice)?;
            let tokens = ends.partition_point(|&end| end <= slice.len());
            if input_ids.len() <= self.limit() {
                ends.truncate(tokens);
                return Ok(Fit { bytes: rest.start..rest.start + slice.len(), input_ids, ends });
            }
            if slice.chars().nth(1).is_none() {
                return Err(BackendError::Input(format!(
                    "the character {slice:?} needs {} tokens with the prefix, more than {}",
                    input_ids.len(),
                    self.limit()
                )));
            }
            // Without the text that follows, a slice may need more tokens than inside the window.
            let fitting = tokens.saturating_sub(input_ids.len() - self.limit());
            below = slice.len();
            limit = fitting.checked_sub(1).map_or(0, |last| ends[last]).min(below - 1);
        }
    }

    /// A window on the beginning of `rest` with the tokens of at least one chunk, and where its tokens end.
    fn window<'t>(&self, rest: &'t str, guess: usize) -> Result<(Window<'t>, Vec<usize>)> {
        let max_bytes = self.limit() * MAX_BYTES_PER_TOKEN;
        let mut bytes = guess.max(64).min(max_bytes);
        loop {
            let text = &rest[..rest.floor_char_boundary(bytes)];
            let ends = self.token_ends(text)?;
            if text.len() == rest.len() || ends.len() > self.max_text_tokens + SLACK_TOKENS || bytes == max_bytes {
                return Ok((Window::new(text, text.len() == rest.len()), ends));
            }
            bytes = (bytes * 2).min(max_bytes);
        }
    }

    /// Where in a chunk the next one begins so that it repeats at most `overlap` tokens; `None` if it repeats none.
    ///
    /// The repeated text is counted on its own, without the prefix and special tokens.
    fn overlap_start(&self, slice: &str, ends: &[usize], overlap: usize, cut: Cut) -> Result<Option<usize>> {
        let Some(first) = ends.len().checked_sub(overlap + 1).filter(|_| overlap > 0) else { return Ok(None) };
        for start in chunk_starts(slice, ends[first], cut).take(MAX_OVERLAP_TRIES) {
            if self.encode(&slice[start..], false)?.len() <= overlap {
                return Ok(Some(start));
            }
        }
        Ok(None)
    }

    fn limit(&self) -> usize {
        self.spec.chunking.max_tokens()
    }

    /// Token ids of the prefix and this text, special tokens included.
    fn input_ids(&self, text: &str) -> Result<Vec<u32>> {
        if self.spec.prefix.is_empty() {
            return self.encode(text, true);
        }
        self.encode(&[&self.spec.prefix, text].concat(), true)
    }

    fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        self.count_bytes(text);
        let encoding = self.tokenizer.encode_fast(text, special).map_err(|error| refused(&error))?;
        Ok(encoding.get_ids().to_vec())
    }

    #[cfg(test)]
    fn count_bytes(&self, text: &str) {
        self.tokenized_bytes.fetch_add(text.len(), std::sync::atomic::Ordering::Relaxed);
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests count the tokenized bytes")]
    fn count_bytes(&self, _text: &str) {}

    /// Where each token of a text ends, in bytes, ascending.
    fn token_ends(&self, text: &str) -> Result<Vec<usize>> {
        self.count_bytes(text);
        let encoding = self.tokenizer.encode(text, false).map_err(|error| refused(&error))?;
        let mut furthest = 0;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| {
            // With a normalizer that decomposes, a token may end inside a character.
            furthest = furthest.max(text.ceil_char_boundary(end));
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
