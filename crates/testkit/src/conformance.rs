//! What every [`Backend`] must fulfil, as functions that every implementation's tests call.

use futures::future::join_all;
use polylance_backend::{Backend, Chunk, TokenizeSpec};
use polylance_schema::{Chunking, Cut};

use crate::corpora::{SCRIPTS, long_document};

/// How far the same input's vectors may be apart when it is computed among other inputs.
pub const TOLERANCE: f32 = 2e-6;

/// Runs all laws.
///
/// # Panics
/// When one is broken.
pub async fn backend(backend: &dyn Backend) {
    chunks_are_slices(backend).await;
    chunks_cover_the_text(backend).await;
    truncation_is_told(backend).await;
    an_item_alone_equals_the_item_in_a_batch(backend).await;
    results_are_in_input_order(backend).await;
    nothing_in_nothing_out(backend).await;
}

fn spec(chunking: Chunking) -> TokenizeSpec {
    TokenizeSpec { prefix: "passage: ".into(), chunking }
}

fn specs() -> Vec<TokenizeSpec> {
    let split = |cut| spec(Chunking::Split { max_tokens: 40, overlap: 8, cut });
    let mut specs: Vec<_> = [Cut::Sentence, Cut::Word, Cut::Token].into_iter().map(split).collect();
    specs.push(spec(Chunking::Truncate { max_tokens: 40 }));
    specs
}

fn texts() -> Vec<String> {
    let mut texts: Vec<String> = SCRIPTS.iter().map(|(_, text)| (*text).to_owned()).collect();
    texts.extend(SCRIPTS.iter().map(|(_, text)| long_document(text, 400)));
    texts.extend(["x".to_owned(), "  spaces around  ".to_owned()]);
    texts
}

async fn tokenize(backend: &dyn Backend, spec: &TokenizeSpec) -> Vec<(String, Vec<Chunk>)> {
    let texts = texts();
    let chunks = backend.tokenize(texts.clone(), spec).await.expect("plain texts");
    assert_eq!(chunks.len(), texts.len());
    texts.into_iter().zip(chunks).collect()
}

async fn chunks_are_slices(backend: &dyn Backend) {
    for spec in specs() {
        for (text, chunks) in tokenize(backend, &spec).await {
            let scalars: Vec<char> = text.chars().collect();
            for chunk in chunks {
                let by_chars: String = scalars[chunk.chars.start as usize..chunk.chars.end as usize].iter().collect();
                assert_eq!(text[chunk.bytes.clone()], by_chars);
                assert!(chunk.input_ids.len() <= spec.chunking.max_tokens(), "{spec:?}");
                let alone = backend.tokenize(vec![by_chars.clone()], &spec).await.expect("a slice of a plain text");
                assert_eq!(alone[0].len(), 1, "{by_chars:?}");
                assert_eq!(alone[0][0].input_ids, chunk.input_ids, "a chunk's ids are those of its own text");
            }
        }
    }
}

async fn chunks_cover_the_text(backend: &dyn Backend) {
    for spec in specs().into_iter().filter(|spec| matches!(spec.chunking, Chunking::Split { .. })) {
        for (text, chunks) in tokenize(backend, &spec).await {
            assert!(chunks.iter().all(|chunk| !chunk.truncated));
            assert!(chunks.windows(2).all(|pair| pair[0].bytes.start < pair[1].bytes.start));
            let mut covered = 0;
            for chunk in &chunks {
                let skipped = text.get(covered..chunk.bytes.start).unwrap_or_default();
                assert!(skipped.chars().all(char::is_whitespace), "{skipped:?} is in no chunk");
                covered = covered.max(chunk.bytes.end);
            }
            assert!(text[covered..].chars().all(char::is_whitespace));
        }
    }
}

async fn truncation_is_told(backend: &dyn Backend) {
    let spec = spec(Chunking::Truncate { max_tokens: 40 });
    for (text, chunks) in tokenize(backend, &spec).await {
        assert_eq!(chunks.len(), 1);
        let rest = !text[chunks[0].bytes.end..].chars().all(char::is_whitespace);
        assert_eq!(chunks[0].truncated, rest);
    }
}

async fn inputs(backend: &dyn Backend) -> Vec<Vec<u32>> {
    let tokenized = tokenize(backend, &specs()[0]).await;
    tokenized.into_iter().flat_map(|(_, chunks)| chunks).map(|chunk| chunk.input_ids).collect()
}

async fn an_item_alone_equals_the_item_in_a_batch(backend: &dyn Backend) {
    let inputs = inputs(backend).await;
    let together = backend.encode(inputs.clone()).await.expect("plain inputs");
    let dim = backend.info().dim;
    assert_eq!((together.dim, together.values.len()), (dim, inputs.len() * dim));
    for (row, input) in inputs.into_iter().enumerate().step_by(5) {
        let alone = backend.encode(vec![input]).await.expect("a plain input").values;
        let apart = alone.iter().zip(&together.values[row * dim..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart <= TOLERANCE, "input {row} differs by {apart}");
    }
}

async fn results_are_in_input_order(backend: &dyn Backend) {
    let inputs = inputs(backend).await;
    let whole = backend.encode(inputs.clone()).await.expect("plain inputs").values;
    let parts = join_all(inputs.chunks(3).map(|part| backend.encode(part.to_vec()))).await;
    let joined: Vec<f32> = parts.into_iter().flat_map(|part| part.expect("plain inputs").values).collect();
    assert_eq!(whole.len(), joined.len());
    assert!(whole.iter().zip(&joined).all(|(a, b)| (a - b).abs() <= TOLERANCE));
}

async fn nothing_in_nothing_out(backend: &dyn Backend) {
    assert_eq!(backend.tokenize(Vec::new(), &specs()[0]).await.expect("no texts"), Vec::<Vec<Chunk>>::new());
    assert!(backend.encode(Vec::new()).await.expect("no inputs").values.is_empty());
}
