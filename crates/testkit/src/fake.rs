//! A backend without a model: a word is a token, a vector is a function of the tokens.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::{
    AnnotateInput, Backend, BackendError, BackendInfo, Chunk, Embeddings, EncodeInput, Encoded, Result, TokenizeSpec,
};
use polylance_schema::{Chunking, TaskSpec};

use crate::{FakeAnnotator, pace::Pace, refused::REFUSED};

const BOS: u32 = 0;
const EOS: u32 = 2;

/// The fake device. Chunks are runs of words. It refuses a text that contains [`FakeBackend::REFUSED`].
#[derive(Debug)]
pub struct FakeBackend {
    info: BackendInfo,
    heads: Vec<TaskSpec>,
    pace: Option<Pace>,
}

impl FakeBackend {
    /// A word that makes [`Backend::tokenize`] refuse its text with [`BackendError::Input`].
    pub const REFUSED: &'static str = REFUSED;

    /// A device whose vectors have this many dimensions.
    pub fn new(dim: usize) -> Self {
        let info = BackendInfo { dim, max_tokens: 512, devices: vec!["fake".into()], window_tokens: 8192 };
        Self { info, heads: Vec::new(), pace: None }
    }

    /// A device that computes these heads, each a [`FakeAnnotator`], in the pass of the embedding.
    #[must_use]
    pub fn with_heads(self, heads: Vec<TaskSpec>) -> Self {
        Self { heads, ..self }
    }

    /// A device that is busy for this long with each token, one call after the other, without using the CPU.
    #[must_use]
    pub fn with_pace(self, per_token: Duration) -> Self {
        Self { pace: Some(Pace::new(per_token)), ..self }
    }

    fn vector(&self, ids: &[u32]) -> impl Iterator<Item = f32> + use<> {
        let seed = ids.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &id| mix(hash ^ u64::from(id)));
        let dim = self.info.dim;
        (0..dim as u64).map(move |d| (mix(seed.wrapping_add(d)) >> 40) as f32 / f32::from(1_u16 << 12) / 2048.0 - 1.0)
    }
}

impl Backend for FakeBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>> {
        let chunks = texts.iter().map(|text| chunks(text, spec)).collect();
        futures::future::ready(chunks).boxed()
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>> {
        if inputs.iter().any(|ids| ids.len() > self.info.max_tokens) {
            let error = BackendError::Input(format!("an input is longer than {} tokens", self.info.max_tokens));
            return futures::future::ready(Err(error)).boxed();
        }
        let values = inputs.iter().flat_map(|ids| self.vector(ids)).collect();
        let embeddings = Embeddings { dim: self.info.dim, values };
        let Some(pace) = self.pace.clone() else { return futures::future::ready(Ok(embeddings)).boxed() };
        let tokens = inputs.iter().map(Vec::len).sum();
        async move {
            pace.compute(tokens).await;
            Ok(embeddings)
        }
        .boxed()
    }

    fn heads(&self) -> &[TaskSpec] {
        &self.heads
    }

    fn encode_with_heads(&self, inputs: Vec<EncodeInput>) -> BoxFuture<'static, Result<Encoded>> {
        let heads: Vec<FakeAnnotator> = self.heads.iter().cloned().map(FakeAnnotator::new).collect();
        let answers = |text: &str| {
            let input = AnnotateInput { text: text.to_owned(), ..AnnotateInput::default() };
            heads.iter().map(|head| head.annotation(&input)).collect()
        };
        let annotations = inputs.iter().map(|input| answers(&input.text)).collect();
        let embeddings = self.encode(inputs.into_iter().map(|input| input.input_ids).collect());
        async move { Ok(Encoded { embeddings: embeddings.await?, annotations }) }.boxed()
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The words of a text with their byte ranges.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split_whitespace().map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

fn token_id(word: &str) -> u32 {
    let hash = word.bytes().fold(7_u64, |hash, byte| mix(hash ^ u64::from(byte)));
    3 + (hash % 250_000) as u32
}

fn chunks(text: &str, spec: &TokenizeSpec) -> Result<Vec<Chunk>> {
    if text.contains(REFUSED) {
        return Err(BackendError::Input("the fake device refuses this text".into()));
    }
    let prefix: Vec<u32> = words(&spec.prefix).map(|(_, word)| token_id(word)).collect();
    let max_words = spec.chunking.max_tokens().saturating_sub(2 + prefix.len());
    if max_words == 0 {
        return Err(BackendError::Input("the prefix leaves no room".into()));
    }
    let words: Vec<_> = words(text).collect();
    let mut chunks = Vec::new();
    let (mut start, mut chars, mut counted) = (0, 0, 0);
    loop {
        let end = words.len().min(start + max_words);
        let bytes = match (words.get(start), words[..end].last()) {
            (Some(&(first, _)), Some(&(last, word))) => first..last + word.len(),
            _ => 0..0,
        };
        chars += text[counted..bytes.start].chars().count() as u64;
        counted = bytes.start;
        let len = text[bytes.clone()].chars().count() as u64;
        let ids = words[start..end].iter().map(|(_, word)| token_id(word));
        let input_ids = [BOS].into_iter().chain(prefix.iter().copied()).chain(ids).chain([EOS]).collect();
        let rest = end < words.len();
        let cut_off = rest && matches!(spec.chunking, Chunking::Truncate { .. });
        chunks.push(Chunk { chars: chars..chars + len, bytes, input_ids, truncated: cut_off });
        if !rest || cut_off {
            return Ok(chunks);
        }
        let overlap = if let Chunking::Split { overlap, .. } = spec.chunking { overlap.min(max_words - 1) } else { 0 };
        start = end - overlap;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fake_device_obeys_the_laws_of_backends() {
        futures::executor::block_on(crate::conformance::backend(&FakeBackend::new(8)));
    }
}
