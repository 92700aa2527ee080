//! Hidden states of words: what a token classifier is fitted on.

use std::{ops::Range, sync::Arc};

use polylance_backend::{BackendError, Result};
use polylance_encoder::{
    Device as Hardware, LoadOptions, LoadReport, ModelError, ModelFiles, PackedBatch, SentenceEncoder,
};
use tokenizers::Encoding;

use crate::{
    PoolError, PoolOptions,
    device::DeviceWorker,
    device_threads::DeviceThreads,
    devices::Devices,
    machine::Machine,
    normalizer::Tokenizer,
    placement::{LoadModel, Placed, Placement, place},
    queues::Ids,
    resolve::resolve_cores,
    spec::cores,
    tokenizers::{Threads, guarded, tokenizer},
};

/// Why no GPU is used.
const ON_CORES: &str = "states of tokens are computed on the CPU: name cores, or no device";

/// A model on CPU devices that gives the state of each word's first token.
#[derive(Debug)]
pub struct TokenStates {
    tokenizer: Arc<Tokenizer>,
    threads: Threads,
    devices: Devices<WordInput, Vec<f32>>,
    prefix: String,
    width: usize,
    max_tokens: usize,
}

/// A token of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenState {
    /// The characters of the text that it covers, white space before it left out.
    pub chars: Range<usize>,
    /// Its state.
    pub state: Vec<f32>,
}

/// A text's ids, and where its words begin among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct WordInput {
    ids: Vec<u32>,
    /// The first token of each word; `None` for a word that did not fit.
    words: Vec<Option<usize>>,
}

impl Ids for WordInput {
    fn input_ids(&self) -> &[u32] {
        &self.ids
    }
}

impl TokenStates {
    /// Loads the model onto cores, also where `auto` would take GPUs. `prefix` is put before every text.
    ///
    /// # Errors
    /// When the model cannot be loaded, a device does not exist or is a GPU.
    pub fn open(files: &ModelFiles, prefix: &str, options: &PoolOptions) -> std::result::Result<Self, PoolError> {
        let machine = Machine::this();
        let devices = resolve_cores(&options.devices, ON_CORES, machine)?;
        let load = LoadOptions { dtype: options.dtype, ..LoadOptions::default() };
        let load = LoadStates { files: files.clone(), options: load };
        let Placement { workers, batch_tokens, .. } = place(load, &devices, options.batch_tokens, machine)?;
        let worker = |(threads, placed)| StateWorker { threads, placed };
        let workers = workers.into_iter().map(worker).collect();
        Ok(Self {
            tokenizer: Arc::new(tokenizer(files.name(), &files.tokenizer_json()?, files.tokenizer_settings())?),
            threads: Threads::start(options.tokenizer_threads.unwrap_or_else(|| cores().len()))?,
            devices: Devices::start(workers, batch_tokens, options.stall())?,
            prefix: prefix.to_owned(),
            width: files.config().hidden_size,
            max_tokens: files.max_tokens(),
        })
    }

    /// Numbers of a state.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The state of each word of each sentence, the words joined by single spaces; `None` for a word that is cut off
    /// because its sentence is too long for the model.
    ///
    /// # Errors
    /// [`BackendError`] when a device fails.
    pub async fn of_words(&self, sentences: Vec<Vec<String>>) -> Result<Vec<Vec<Option<Vec<f32>>>>> {
        let (tokenizer, prefix, most) = (Arc::clone(&self.tokenizer), self.prefix.clone(), self.max_tokens);
        let input = move |words: Vec<String>| guarded(|| input(&tokenizer, &prefix, &words, most));
        let inputs: Vec<WordInput> =
            self.threads.map(sentences, input).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let places: Vec<Vec<Option<usize>>> = inputs.iter().map(|input| input.words.clone()).collect();
        let states = self.devices.run(inputs).await?;
        let of_sentence = |(words, states): (Vec<Option<usize>>, Vec<f32>)| {
            let mut states = states.chunks(self.width).map(<[f32]>::to_vec);
            words.into_iter().map(|word| word.and_then(|_| states.next())).collect()
        };
        Ok(places.into_iter().zip(states).map(of_sentence).collect())
    }

    /// The state of each token of each text; a text that is too long for the model is cut off, and the tokens beyond
    /// are not there.
    ///
    /// # Errors
    /// [`BackendError`] when a device fails.
    pub async fn of_texts(&self, texts: Vec<String>) -> Result<Vec<Vec<TokenState>>> {
        let (tokenizer, prefix, most) = (Arc::clone(&self.tokenizer), self.prefix.clone(), self.max_tokens);
        let tokens = move |text: String| guarded(|| tokens(&tokenizer, &prefix, &text, most));
        let tokens = self.threads.map(texts, tokens).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let (inputs, places): (Vec<WordInput>, Vec<Vec<Range<usize>>>) = tokens.into_iter().unzip();
        let states = self.devices.run(inputs).await?;
        let of_text = |(places, states): (Vec<Range<usize>>, Vec<f32>)| {
            let states = states.chunks(self.width).map(<[f32]>::to_vec);
            places.into_iter().zip(states).map(|(chars, state)| TokenState { chars, state }).collect()
        };
        Ok(places.into_iter().zip(states).map(of_text).collect())
    }
}

/// The prefix and a text as the model reads them, cut to its limit.
fn encoding(tokenizer: &Tokenizer, prefix: &str, text: &str, most: usize) -> Result<Encoding> {
    let refused = |error: tokenizers::Error| BackendError::Input(format!("the tokenizer refused the text: {error}"));
    let mut encoding = tokenizer.encode_char_offsets([prefix, text].concat(), false).map_err(refused)?;
    let added = tokenizer.encode("", true).map_err(refused)?.len();
    encoding.truncate(most.saturating_sub(added).max(1), 0, tokenizers::TruncationDirection::Right);
    tokenizer.post_process(encoding, None, true).map_err(refused)
}

/// The ids of a text, and the characters of each token that covers some of it.
fn tokens(tokenizer: &Tokenizer, prefix: &str, text: &str, most: usize) -> Result<(WordInput, Vec<Range<usize>>)> {
    let encoding = encoding(tokenizer, prefix, text, most)?;
    let before = prefix.chars().count();
    let characters: Vec<char> = text.chars().collect();
    let (mut words, mut places) = (Vec::new(), Vec::new());
    for (at, (&(start, end), special)) in
        encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask()).enumerate()
    {
        let (start, end) = (start.saturating_sub(before), end.saturating_sub(before).min(characters.len()));
        // Some tokenizers count the space before a word to the word.
        let Some(start) = (start..end).find(|&at| !characters[at].is_whitespace()).filter(|_| *special == 0) else {
            continue;
        };
        words.push(Some(at));
        places.push(start..end);
    }
    Ok((WordInput { ids: encoding.get_ids().to_vec(), words }, places))
}

/// The ids of a sentence, cut to the model's limit, and the first token of each word.
fn input(tokenizer: &Tokenizer, prefix: &str, words: &[String], most: usize) -> Result<WordInput> {
    let encoding = encoding(tokenizer, prefix, &words.join(" "), most)?;
    let special = encoding.get_special_tokens_mask();
    let mut start = prefix.chars().count();
    let mut at = 0;
    let first = words.iter().map(|word| {
        let end = start + word.chars().count();
        // The first token that reaches into the word: one that stands for white space alone ends where it begins.
        let reaches = |token: usize| special[token] == 0 && encoding.get_offsets()[token].1 > start;
        at = (at..encoding.len()).find(|&token| reaches(token)).unwrap_or(encoding.len());
        let inside = at < encoding.len() && encoding.get_offsets()[at].0 < end;
        start = end + 1;
        inside.then_some(at)
    });
    let words = first.collect();
    Ok(WordInput { ids: encoding.get_ids().to_vec(), words })
}

struct LoadStates {
    files: ModelFiles,
    options: LoadOptions,
}

impl LoadModel for LoadStates {
    type Model = SentenceEncoder;

    fn on(&self, device: &Hardware) -> std::result::Result<SentenceEncoder, ModelError> {
        SentenceEncoder::load(&self.files, &self.options, device)
    }

    fn report(model: &SentenceEncoder) -> &LoadReport {
        model.report()
    }

    fn batch_tokens(model: &SentenceEncoder) -> Option<usize> {
        model.batch_tokens()
    }
}

struct StateWorker {
    threads: DeviceThreads,
    placed: Placed<LoadStates>,
}

impl DeviceWorker for StateWorker {
    type Input = WordInput;
    type Output = Vec<f32>;

    fn name(&self) -> &str {
        self.threads.name()
    }

    fn run(&self, inputs: &[WordInput]) -> Result<Vec<Vec<f32>>> {
        let states = self.placed.pass(|model| {
            self.threads.run(|| {
                let rows: Vec<Vec<u32>> = inputs.iter().map(|input| input.ids.clone()).collect();
                let states = model.hidden_states(&PackedBatch::new(&rows)?)?;
                Ok(states.to_vec2::<f32>()?)
            })
        })?;
        let mut start = 0;
        let of_input = inputs.iter().map(|input| {
            let words = input.words.iter().flatten().flat_map(|at| states[start + at].iter().copied()).collect();
            start += input.ids.len();
            words
        });
        Ok(of_input.collect())
    }

    fn another(&self) -> Result<Self> {
        Ok(Self { threads: self.threads.another()?, placed: self.placed.another() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_word_is_where_its_first_token_is_and_words_beyond_the_limit_are_nowhere() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let words: Vec<String> = ["@paulwalk", "It", "'s", "in", "São", "Paulo", "👍"].map(str::to_owned).to_vec();
        let whole = input(&tokenizer, "passage: ", &words, 512).unwrap();
        let token = |at: usize| tokenizer.id_to_token(whole.ids[at]).unwrap();
        let first: Vec<String> = whole.words.iter().map(|at| token(at.unwrap())).collect();
        assert!(first[1] == "▁It" && first[3] == "▁in" && first[5] == "▁Paulo", "{first:?}");
        assert!(whole.words.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", whole.words);
        let cut = input(&tokenizer, "passage: ", &words, 10).unwrap();
        assert_eq!(cut.ids.len(), 10);
        assert!(cut.words[0].is_some() && cut.words[6].is_none(), "{:?}", cut.words);
    }
    #[test]
    fn each_token_covers_its_characters_and_none_of_the_white_space() {
        let tokenizer = Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap();
        let text = "  Ada\u{a0}in São  Paulo 👍 กรุงเทพ\n";
        let characters: Vec<char> = text.chars().collect();
        let (input, places) = tokens(&tokenizer, "passage: ", text, 512).unwrap();
        assert_eq!(input.words.len(), places.len());
        assert!(places.windows(2).all(|pair| pair[0].start <= pair[1].start), "{places:?}");
        let covered: BTreeSet<usize> = places.iter().cloned().flatten().collect();
        let expected: BTreeSet<usize> = (0..characters.len()).filter(|&at| !characters[at].is_whitespace()).collect();
        assert_eq!(covered, expected, "{places:?}");
        let (cut, places) = tokens(&tokenizer, "passage: ", text, 8).unwrap();
        assert_eq!(cut.ids.len(), 8);
        assert!(places.last().unwrap().end < characters.len() - 1, "{places:?}");
    }
}
