//! States of tokens from a table of features, computed where they are missing.

use std::{collections::HashSet, ops::Range};

use polylance_encoder::ModelFiles;
use polylance_sink::{FeatureKey, FeatureTable, TokenFeatures};
use polylance_worker::{PoolOptions, TokenStates};

use super::Result;

/// Texts that are computed together, and kept by one commit.
const TEXTS: usize = 512;

/// A text whose tokens are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tokens {
    /// The first token of each word; places are numbers of words.
    OfWords(Vec<String>),
    /// All tokens; places are characters.
    OfText(String),
}

impl Tokens {
    fn key(&self) -> FeatureKey {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::OfText(text) => hasher.update(b"text").update(text.as_bytes()),
            Self::OfWords(words) => {
                hasher.update(b"words");
                words.iter().fold(&mut hasher, |hasher, word| hasher.update(word.as_bytes()).update(b"\0"))
            }
        };
        let mut key = FeatureKey::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

/// The model, and where its states are kept.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) devices: &'a [String],
    pub(crate) table: &'a str,
}

impl Source<'_> {
    /// The features of each text. What was computed is kept after every few hundred texts, so that a run that is
    /// stopped goes on from there.
    pub(crate) async fn features(&self, texts: &[Tokens]) -> Result<Vec<TokenFeatures>> {
        let width = self.files.config().hidden_size;
        let files = self.files.clone();
        let contract = tokio::task::spawn_blocking(move || contract(&files)).await??;
        let mut table = FeatureTable::open(self.table, width, &contract).await?;
        let keys: Vec<FeatureKey> = texts.iter().map(Tokens::key).collect();
        let mut known = table.read(&keys.iter().copied().collect()).await?;
        let mut seen: HashSet<FeatureKey> = known.keys().copied().collect();
        let missing: Vec<usize> = (0..texts.len()).filter(|&at| seen.insert(keys[at])).collect();
        if !missing.is_empty() {
            let model = self.open().await?;
            for part in missing.chunks(TEXTS) {
                let computed = compute(&model, part.iter().map(|&at| texts[at].clone()).collect()).await?;
                let rows: Vec<_> = part.iter().map(|&at| keys[at]).zip(&computed).collect();
                table.append(&rows).await?;
                known.extend(part.iter().map(|&at| keys[at]).zip(computed));
            }
        }
        Ok(keys.iter().map(|key| known.get(key).cloned().unwrap_or_default()).collect())
    }

    async fn open(&self) -> Result<TokenStates> {
        let options = PoolOptions { devices: self.devices.to_vec(), ..PoolOptions::default() };
        let (files, prefix) = (self.files.clone(), self.files.defaults().prompts.passage.clone());
        Ok(tokio::task::spawn_blocking(move || TokenStates::open(&files, &prefix, &options)).await??)
    }
}

/// All that decides the states.
fn contract(files: &ModelFiles) -> Result<String> {
    let (weights, tokenizer) = (files.weights_hash()?, files.tokenizer_hash()?);
    let prefix = &files.defaults().prompts.passage;
    Ok(serde_json::json!({"weights": weights, "tokenizer": tokenizer, "prefix": prefix, "dtype": "f32"}).to_string())
}

async fn compute(model: &TokenStates, texts: Vec<Tokens>) -> Result<Vec<TokenFeatures>> {
    let (mut words, mut whole, mut is_words) = (Vec::new(), Vec::new(), Vec::new());
    for text in texts {
        is_words.push(matches!(text, Tokens::OfWords(_)));
        match text {
            Tokens::OfWords(sentence) => words.push(sentence),
            Tokens::OfText(text) => whole.push(text),
        }
    }
    let mut of_words = model.of_words(words).await?.into_iter();
    let mut of_texts = model.of_texts(whole).await?.into_iter();
    let mut features = Vec::with_capacity(is_words.len());
    for is_words in is_words {
        let mut one = TokenFeatures::default();
        let mut push = |place: Range<usize>, state: Vec<f32>| {
            one.places.push(place.start as u32..place.end as u32);
            one.states.extend(state);
        };
        if is_words {
            let states = of_words.next().unwrap_or_default().into_iter().enumerate();
            states.filter_map(|(at, state)| Some((at, state?))).for_each(|(at, state)| push(at..at + 1, state));
        } else {
            of_texts.next().unwrap_or_default().into_iter().for_each(|token| push(token.chars, token.state));
        }
        features.push(one);
    }
    Ok(features)
}
