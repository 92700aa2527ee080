//! Token states, cached in a table of features.

use std::{collections::HashSet, ops::Range};

use polylance_encoder::ModelFiles;
use polylance_sink::{FeatureKey, FeatureTable, TokenFeatures};
use polylance_worker::{PoolOptions, TokenStates};

use super::Result;

/// Number of texts that are computed together and cached by one commit.
const TEXTS_PER_COMMIT: usize = 512;

/// A text, and which of its tokens are features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FeatureInput {
    /// The first token of each word; positions are word numbers.
    Words(Vec<String>),
    /// All tokens; positions are character ranges.
    Text(String),
}

impl FeatureInput {
    fn key(&self) -> FeatureKey {
        let mut hasher = blake3::Hasher::new();
        match self {
            Self::Text(text) => hasher.update(b"text").update(text.as_bytes()),
            Self::Words(words) => {
                hasher.update(b"words");
                words.iter().fold(&mut hasher, |hasher, word| hasher.update(word.as_bytes()).update(b"\0"))
            }
        };
        let mut key = FeatureKey::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

/// The model, and the table that caches its token states.
#[derive(Debug)]
pub(crate) struct FeatureSource<'a> {
    pub(crate) files: &'a ModelFiles,
    pub(crate) devices: &'a [String],
    pub(crate) table: &'a str,
}

impl FeatureSource<'_> {
    /// The features of each input. Computed ones are cached every few hundred texts, so a stopped run continues from
    /// there.
    pub(crate) async fn features(&self, inputs: &[FeatureInput]) -> Result<Vec<TokenFeatures>> {
        let width = self.files.config().hidden_size;
        let files = self.files.clone();
        let contract = tokio::task::spawn_blocking(move || contract(&files)).await??;
        let mut table = FeatureTable::open(self.table, width, &contract).await?;
        let keys: Vec<FeatureKey> = inputs.iter().map(FeatureInput::key).collect();
        let mut cached = table.read(&keys.iter().copied().collect()).await?;
        let mut seen: HashSet<FeatureKey> = cached.keys().copied().collect();
        let missing: Vec<usize> = (0..inputs.len()).filter(|&at| seen.insert(keys[at])).collect();
        if !missing.is_empty() {
            let model = self.open().await?;
            for batch in missing.chunks(TEXTS_PER_COMMIT) {
                let computed = compute(&model, batch.iter().map(|&at| inputs[at].clone()).collect()).await?;
                let rows: Vec<_> = batch.iter().map(|&at| keys[at]).zip(&computed).collect();
                table.append(&rows).await?;
                cached.extend(batch.iter().map(|&at| keys[at]).zip(computed));
            }
        }
        Ok(keys.iter().map(|key| cached.get(key).cloned().unwrap_or_default()).collect())
    }

    async fn open(&self) -> Result<TokenStates> {
        let options = PoolOptions { devices: self.devices.to_vec(), ..PoolOptions::default() };
        let (files, prefix) = (self.files.clone(), self.files.defaults().prompts.passage.clone());
        Ok(tokio::task::spawn_blocking(move || TokenStates::open(&files, &prefix, &options)).await??)
    }
}

/// Everything that decides the states.
fn contract(files: &ModelFiles) -> Result<String> {
    let (weights, tokenizer) = (files.weights_hash()?, files.tokenizer_hash()?);
    let prefix = &files.defaults().prompts.passage;
    Ok(serde_json::json!({"weights": weights, "tokenizer": tokenizer, "prefix": prefix, "dtype": "f32"}).to_string())
}

async fn compute(model: &TokenStates, inputs: Vec<FeatureInput>) -> Result<Vec<TokenFeatures>> {
    let (mut sentences, mut texts, mut is_words) = (Vec::new(), Vec::new(), Vec::new());
    for input in inputs {
        is_words.push(matches!(input, FeatureInput::Words(_)));
        match input {
            FeatureInput::Words(sentence) => sentences.push(sentence),
            FeatureInput::Text(text) => texts.push(text),
        }
    }
    let mut word_states = model.word_states(sentences).await?.into_iter();
    let mut token_states = model.token_states(texts).await?.into_iter();
    let mut features = Vec::with_capacity(is_words.len());
    for is_words in is_words {
        let mut row = TokenFeatures::default();
        let mut push = |range: Range<usize>, state: Vec<f32>| {
            row.positions.push(range.start as u32..range.end as u32);
            row.states.extend(state);
        };
        if is_words {
            let states = word_states.next().unwrap_or_default().into_iter().enumerate();
            states.filter_map(|(at, state)| Some((at, state?))).for_each(|(at, state)| push(at..at + 1, state));
        } else {
            token_states.next().unwrap_or_default().into_iter().for_each(|token| push(token.chars, token.state));
        }
        features.push(row);
    }
    Ok(features)
}
