//! The hidden states of tokens and words, on which token classifiers are fitted.

use std::{ops::Range, sync::Arc};

use polylance_backend::{BackendError, Result};
use polylance_encoder::{
    Device as Hardware, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, SentenceEncoder,
};
use tokenizers::Encoding;

use crate::{
    device::{Devices, TokenCount},
    error::PoolError,
    options::PoolOptions,
    placement::{DeviceModel, DeviceThreads, PerDevice},
    selection::{Machine, cores, resolve_cores},
    tokenize::{TextThreads, Tokenizer, catch_panic, read_tokenizer},
};

/// Why a GPU is refused.
const CPU_ONLY: &str = "states of tokens are computed on the CPU: name cores, or no device";

/// A model on CPU devices that computes the states of tokens, and of each word's first token.
#[derive(Debug)]
pub struct TokenStates {
    tokenizer: Arc<Tokenizer>,
    threads: TextThreads,
    devices: Devices<WordInput, Vec<f32>>,
    prefix: String,
    width: usize,
    max_tokens: usize,
}

/// A token of a text with its state.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenState {
    /// The characters of the text that it covers, without white space before it.
    pub chars: Range<usize>,
    /// Its state.
    pub state: Vec<f32>,
}

/// A text's tokens, and where its words begin among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WordInput {
    input_ids: Vec<u32>,
    /// The first token of each word; `None` for a word that is cut off.
    words: Vec<Option<usize>>,
}

impl TokenCount for WordInput {
    fn input_ids(&self) -> &[u32] {
        &self.input_ids
    }
}

impl TokenStates {
    /// Loads the model onto cores, even if `auto` would select GPUs. `prefix` is put before every text.
    ///
    /// # Errors
    /// When the model cannot be loaded, a device does not exist or is a GPU.
    pub fn open(files: &ModelFiles, prefix: &str, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        let machine = Machine::this();
        let selected = resolve_cores(&options.devices, CPU_ONLY, machine)?;
        let load_options = LoadOptions { dtype: options.dtype, memory: options.memory, ..LoadOptions::default() };
        let model = StateModel { files: files.clone(), options: load_options };
        let PerDevice { devices, .. } = PerDevice::load(model, &selected, options, machine)?;
        Ok(Self {
            tokenizer: Arc::new(read_tokenizer(files.name(), &files.tokenizer_json()?, files.tokenizer_settings())?),
            threads: TextThreads::start(options.tokenizer_threads.unwrap_or_else(|| cores().len()))?,
            devices,
            prefix: prefix.to_owned(),
            width: files.config().hidden_size,
            max_tokens: files.max_tokens(),
        })
    }

    /// The number of values in a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The state of each word of each sentence, whose words are joined by single spaces; `None` for a word that is cut
    /// off because its sentence is too long for the model.
    ///
    /// # Errors
    /// [`BackendError`] when a device fails.
    pub async fn word_states(&self, sentences: Vec<Vec<String>>) -> Result<Vec<Vec<Option<Vec<f32>>>>> {
        let (tokenizer, prefix, max_tokens) = (Arc::clone(&self.tokenizer), self.prefix.clone(), self.max_tokens);
        let input = move |words: Vec<String>| catch_panic(|| word_input(&tokenizer, &prefix, &words, max_tokens));
        let inputs: Vec<WordInput> =
            self.threads.map(sentences, input).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let words: Vec<Vec<Option<usize>>> = inputs.iter().map(|input| input.words.clone()).collect();
        let states = self.devices.run(inputs).await?;
        let sentence_states = |(words, states): (Vec<Option<usize>>, Vec<f32>)| {
            let mut states = states.chunks(self.width).map(<[f32]>::to_vec);
            words.into_iter().map(|word| word.and_then(|_| states.next())).collect()
        };
        Ok(words.into_iter().zip(states).map(sentence_states).collect())
    }

    /// The state of each token of each text. A text that is too long for the model is truncated, and the tokens beyond
    /// its limit are missing.
    ///
    /// # Errors
    /// [`BackendError`] when a device fails.
    pub async fn token_states(&self, texts: Vec<String>) -> Result<Vec<Vec<TokenState>>> {
        let (tokenizer, prefix, max_tokens) = (Arc::clone(&self.tokenizer), self.prefix.clone(), self.max_tokens);
        let input = move |text: String| catch_panic(|| token_input(&tokenizer, &prefix, &text, max_tokens));
        let inputs = self.threads.map(texts, input).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let (inputs, ranges): (Vec<WordInput>, Vec<Vec<Range<usize>>>) = inputs.into_iter().unzip();
        let states = self.devices.run(inputs).await?;
        let text_states = |(ranges, states): (Vec<Range<usize>>, Vec<f32>)| {
            let states = states.chunks(self.width).map(<[f32]>::to_vec);
            ranges.into_iter().zip(states).map(|(chars, state)| TokenState { chars, state }).collect()
        };
        Ok(ranges.into_iter().zip(states).map(text_states).collect())
    }
}

/// Encodes the prefix and a text for the model, truncated to its limit.
fn encode(tokenizer: &Tokenizer, prefix: &str, text: &str, max_tokens: usize) -> Result<Encoding> {
    let refused = |error: tokenizers::Error| BackendError::Input(format!("the tokenizer refused the text: {error}"));
    let mut encoding = tokenizer.encode_char_offsets([prefix, text].concat(), false).map_err(refused)?;
    let added = tokenizer.encode("", true).map_err(refused)?.len();
    encoding.truncate(max_tokens.saturating_sub(added).max(1), 0, tokenizers::TruncationDirection::Right);
    tokenizer.post_process(encoding, None, true).map_err(refused)
}

/// The tokens of a text, and the characters of each that covers more than white space.
fn token_input(
    tokenizer: &Tokenizer,
    prefix: &str,
    text: &str,
    max_tokens: usize,
) -> Result<(WordInput, Vec<Range<usize>>)> {
    let encoding = encode(tokenizer, prefix, text, max_tokens)?;
    let prefix_chars = prefix.chars().count();
    let characters: Vec<char> = text.chars().collect();
    let (mut words, mut ranges) = (Vec::new(), Vec::new());
    for (at, (&(start, end), special)) in
        encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask()).enumerate()
    {
        let (start, end) = (start.saturating_sub(prefix_chars), end.saturating_sub(prefix_chars).min(characters.len()));
        // Some tokenizers add the space before a word to the word.
        let Some(start) = (start..end).find(|&at| !characters[at].is_whitespace()).filter(|_| *special == 0) else {
            continue;
        };
        words.push(Some(at));
        ranges.push(start..end);
    }
    Ok((WordInput { input_ids: encoding.get_ids().to_vec(), words }, ranges))
}

/// The tokens of a sentence, truncated to the model's limit, and the first token of each word.
fn word_input(tokenizer: &Tokenizer, prefix: &str, words: &[String], max_tokens: usize) -> Result<WordInput> {
    let encoding = encode(tokenizer, prefix, &words.join(" "), max_tokens)?;
    let special = encoding.get_special_tokens_mask();
    let mut start = prefix.chars().count();
    let mut at = 0;
    let first = words.iter().map(|word| {
        let end = start + word.chars().count();
        // The first token that reaches into the word; a token of white space alone ends where the word begins.
        let reaches = |token: usize| special[token] == 0 && encoding.get_offsets()[token].1 > start;
        at = (at..encoding.len()).find(|&token| reaches(token)).unwrap_or(encoding.len());
        let inside = at < encoding.len() && encoding.get_offsets()[at].0 < end;
        start = end + 1;
        inside.then_some(at)
    });
    let words = first.collect();
    Ok(WordInput { input_ids: encoding.get_ids().to_vec(), words })
}

/// An encoder that returns token states.
struct StateModel {
    files: ModelFiles,
    options: LoadOptions,
}

impl DeviceModel for StateModel {
    type Loaded = SentenceEncoder;
    type Input = WordInput;
    /// The states of the words that are not cut off, one after the other.
    type Output = Vec<f32>;

    fn load(&self, device: &Hardware) -> std::result::Result<SentenceEncoder, ModelError> {
        SentenceEncoder::load(&self.files, &self.options, device)
    }

    fn report(loaded: &SentenceEncoder) -> &LoadReport {
        loaded.report()
    }

    fn batch_tokens(loaded: &SentenceEncoder) -> Option<usize> {
        loaded.batch_tokens()
    }

    fn compute(
        &self,
        loaded: &SentenceEncoder,
        threads: &DeviceThreads,
        inputs: &[WordInput],
    ) -> Result<Vec<Vec<f32>>> {
        let states = threads.run(|| {
            let rows: Vec<Vec<u32>> = inputs.iter().map(|input| input.input_ids.clone()).collect();
            let states = loaded.hidden_states(&PackedBatch::new(&rows)?)?;
            Ok(states.to_vec2::<f32>()?)
        })?;
        let mut start = 0;
        let word_states = inputs.iter().map(|input| {
            let words = input.words.iter().flatten().flat_map(|at| states[start + at].iter().copied()).collect();
            start += input.input_ids.len();
            words
        });
        Ok(word_states.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_have_their_first_token_and_words_beyond_the_limit_have_none() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let words: Vec<String> = ["@paulwalk", "It", "'s", "in", "São", "Paulo", "👍"].map(str::to_owned).to_vec();
        let whole = word_input(&tokenizer, "passage: ", &words, 512).unwrap();
        let token = |at: usize| tokenizer.id_to_token(whole.input_ids[at]).unwrap();
        let first: Vec<String> = whole.words.iter().map(|at| token(at.unwrap())).collect();
        assert!(first[1] == "▁It" && first[3] == "▁in" && first[5] == "▁Paulo", "{first:?}");
        assert!(whole.words.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", whole.words);
        let cut = word_input(&tokenizer, "passage: ", &words, 10).unwrap();
        assert_eq!(cut.input_ids.len(), 10);
        assert!(cut.words[0].is_some() && cut.words[6].is_none(), "{:?}", cut.words);
    }

    #[test]
    fn tokens_cover_all_characters_except_white_space() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let text = "  Ada\u{a0}in São  Paulo 👍 กรุงเทพ\n";
        let characters: Vec<char> = text.chars().collect();
        let (input, ranges) = token_input(&tokenizer, "passage: ", text, 512).unwrap();
        assert_eq!(input.words.len(), ranges.len());
        assert!(ranges.windows(2).all(|pair| pair[0].start <= pair[1].start), "{ranges:?}");
        let covered: BTreeSet<usize> = ranges.iter().cloned().flatten().collect();
        let expected: BTreeSet<usize> = (0..characters.len()).filter(|&at| !characters[at].is_whitespace()).collect();
        assert_eq!(covered, expected, "{ranges:?}");
        let (cut, ranges) = token_input(&tokenizer, "passage: ", text, 8).unwrap();
        assert_eq!(cut.input_ids.len(), 8);
        assert!(ranges.last().unwrap().end < characters.len() - 1, "{ranges:?}");
    }
}
