//! The laws of [`Backend`] as functions, which the tests of every implementation call.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use futures::{
    executor::block_on,
    future::{join, join_all},
};
use polylance_backend::{Backend, BackendError, Chunk, EncodeInput, Load, TokenizeSpec};
use polylance_schema::{Chunking, Cut};
use unicode_segmentation::UnicodeSegmentation;

use crate::corpora::{SCRIPTS, long_document};

/// Maximum difference between an input's vectors when it is computed with different other inputs.
pub const TOLERANCE: f32 = 2e-6;

/// Maximum time until a backend has discarded the work of a dropped call.
const DISCARD_TIMEOUT: Duration = Duration::from_mins(1);

/// Checks all laws.
///
/// # Panics
/// When the backend breaks one.
pub async fn backend(backend: &dyn Backend) {
    chunks_are_slices(backend).await;
    chunks_cover_the_text(backend).await;
    chunks_end_between_grapheme_clusters(backend).await;
    chunks_repeat_at_most_the_overlap(backend).await;
    blank_text_is_one_empty_chunk(backend).await;
    truncation_is_reported(backend).await;
    input_alone_equals_input_in_a_batch(backend).await;
    results_are_in_input_order(backend).await;
    results_do_not_depend_on_neighbours(backend).await;
    heads_do_not_change_vectors(backend).await;
    callers_on_many_threads_get_their_own_results(backend).await;
    invalid_inputs_are_refused(backend).await;
    refused_call_does_not_affect_others(backend).await;
    backend_stays_usable_after_dropped_calls(backend).await;
    dropped_calls_free_their_capacity(backend).await;
    load_stays_within_the_capacity_and_ends_with_the_call(backend).await;
    empty_input_has_empty_output(backend).await;
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
                assert_eq!(alone[0][0].input_ids, chunk.input_ids, "a chunk's tokens are those of its own text");
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

async fn chunks_end_between_grapheme_clusters(backend: &dyn Backend) {
    for spec in specs() {
        for (text, chunks) in tokenize(backend, &spec).await {
            let borders: BTreeSet<usize> = text.grapheme_indices(true).map(|(at, _)| at).chain([text.len()]).collect();
            for chunk in chunks {
                let whole = borders.contains(&chunk.bytes.start) && borders.contains(&chunk.bytes.end);
                assert!(whole, "{:?} splits a grapheme cluster", &text[chunk.bytes]);
            }
        }
    }
}

async fn chunks_repeat_at_most_the_overlap(backend: &dyn Backend) {
    let plain = TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 512 } };
    let special = token_count(backend, "", &plain).await;
    for spec in specs() {
        let Chunking::Split { overlap, .. } = spec.chunking else { continue };
        for (text, chunks) in tokenize(backend, &spec).await {
            for pair in chunks.windows(2) {
                let Some(shared) = text.get(pair[1].bytes.start..pair[0].bytes.end) else { continue };
                let repeated = token_count(backend, shared, &plain).await - special;
                assert!(repeated <= overlap, "{shared:?} is {repeated} tokens, expected at most {overlap}");
            }
        }
    }
}

async fn token_count(backend: &dyn Backend, text: &str, spec: &TokenizeSpec) -> usize {
    backend.tokenize(vec![text.to_owned()], spec).await.expect("a plain text")[0][0].input_ids.len()
}

async fn blank_text_is_one_empty_chunk(backend: &dyn Backend) {
    for spec in specs() {
        let chunks = backend.tokenize(vec![String::new(), " \n\t ".to_owned()], &spec).await.expect("plain texts");
        for chunks in chunks {
            assert_eq!((chunks.len(), &chunks[0].bytes, chunks[0].truncated), (1, &(0..0), false));
        }
    }
}

async fn truncation_is_reported(backend: &dyn Backend) {
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

async fn input_alone_equals_input_in_a_batch(backend: &dyn Backend) {
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

async fn results_do_not_depend_on_neighbours(backend: &dyn Backend) {
    let inputs: Vec<Vec<u32>> = inputs(backend).await.into_iter().step_by(2).collect();
    let whole = backend.encode(inputs.clone()).await.expect("plain inputs").values;
    let dim = backend.info().dim;
    // In reverse, with other neighbours than before, and one input repeatedly.
    let rows: Vec<usize> = (0..inputs.len()).rev().flat_map(|row| [row, 0]).collect();
    let among_others = rows.iter().map(|&row| inputs[row].clone()).collect();
    let found = backend.encode(among_others).await.expect("plain inputs").values;
    for (vector, row) in found.chunks(dim).zip(rows) {
        let expected = &whole[row * dim..][..dim];
        assert!(vector.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE), "input {row}");
    }
}

async fn heads_do_not_change_vectors(backend: &dyn Backend) {
    let chunks = tokenize(backend, &specs()[0]).await.into_iter().step_by(4).flat_map(|(text, chunks)| {
        let input = move |chunk: Chunk| EncodeInput { input_ids: chunk.input_ids, text: text[chunk.bytes].to_owned() };
        chunks.into_iter().map(input)
    });
    let inputs: Vec<EncodeInput> = chunks.collect();
    let bare =
        backend.encode(inputs.iter().map(|input| input.input_ids.clone()).collect()).await.expect("plain inputs");
    let encoded = backend.encode_with_heads(inputs.clone()).await.expect("plain inputs");
    let (bare, vectors) = (bare.values, encoded.embeddings.values);
    assert!(bare.len() == vectors.len() && bare.iter().zip(&vectors).all(|(a, b)| (a - b).abs() <= TOLERANCE));
    assert_eq!(encoded.annotations.len(), inputs.len());
    assert!(
        encoded.annotations.iter().all(|answers| answers.len() == backend.heads().len()),
        "each head answers for each input"
    );
}

async fn callers_on_many_threads_get_their_own_results(backend: &dyn Backend) {
    let inputs: Vec<Vec<u32>> = inputs(backend).await.into_iter().step_by(3).collect();
    let whole = backend.encode(inputs.clone()).await.expect("plain inputs").values;
    let dim = backend.info().dim;
    thread::scope(|scope| {
        for first in 0..8 {
            let (inputs, whole) = (&inputs, &whole);
            scope.spawn(move || {
                for row in (first..inputs.len()).step_by(8) {
                    let alone = block_on(backend.encode(vec![inputs[row].clone()])).expect("a plain input").values;
                    let expected = &whole[row * dim..][..dim];
                    assert!(alone.iter().zip(expected).all(|(a, b)| (a - b).abs() <= TOLERANCE), "input {row}");
                }
            });
        }
    });
}

async fn invalid_inputs_are_refused(backend: &dyn Backend) {
    let too_long = vec![5; backend.info().max_tokens + 1];
    for inputs in [vec![too_long.clone()], vec![vec![5], too_long]] {
        let refused = backend.encode(inputs).await;
        assert!(matches!(refused, Err(BackendError::Input(_))), "{refused:?}");
    }
    let prefix = "a prefix that leaves no room ".repeat(20);
    let spec = TokenizeSpec { prefix, chunking: Chunking::Truncate { max_tokens: 40 } };
    let refused = backend.tokenize(vec!["text".to_owned()], &spec).await;
    assert!(matches!(refused, Err(BackendError::Input(_))), "{refused:?}");
}

async fn backend_stays_usable_after_dropped_calls(backend: &dyn Backend) {
    let inputs: Vec<Vec<u32>> = inputs(backend).await.into_iter().take(20).collect();
    for _ in 0..20 {
        drop(futures::poll!(backend.encode(inputs.clone())));
        drop(futures::poll!(backend.tokenize(texts(), &specs()[0])));
    }
    let vectors = backend.encode(inputs.clone()).await.expect("plain inputs");
    assert_eq!(vectors.values.len(), inputs.len() * vectors.dim);
}

async fn refused_call_does_not_affect_others(backend: &dyn Backend) {
    let good: Vec<Vec<u32>> = inputs(backend).await.into_iter().take(10).collect();
    let bad = vec![good[0].clone(), vec![5; backend.info().max_tokens + 1]];
    let (refused, vectors) = join(backend.encode(bad), backend.encode(good.clone())).await;
    assert!(matches!(refused, Err(BackendError::Input(_))), "{refused:?}");
    assert_eq!(vectors.expect("plain inputs").values.len(), good.len() * backend.info().dim);
}

/// Inputs with more tokens together than the backend admits.
async fn inputs_beyond_the_capacity(backend: &dyn Backend) -> Vec<Vec<u32>> {
    let mut tokens = 0;
    let input = inputs(backend).await.into_iter().cycle().take_while(|input| {
        let enough = tokens > backend.load().capacity_tokens;
        tokens += input.len();
        !enough
    });
    input.collect()
}

async fn dropped_calls_free_their_capacity(backend: &dyn Backend) {
    let inputs = inputs_beyond_the_capacity(backend).await;
    for _ in 0..20 {
        drop(futures::poll!(backend.encode(inputs.clone())));
    }
    wait_until_idle(backend);
    let vectors = backend.encode(inputs.clone()).await.expect("plain inputs");
    assert_eq!(vectors.values.len(), inputs.len() * vectors.dim);
}

async fn load_stays_within_the_capacity_and_ends_with_the_call(backend: &dyn Backend) {
    let inputs = inputs_beyond_the_capacity(backend).await;
    let capacity = backend.load().capacity_tokens;
    let mut calls: Vec<_> = (0..4).map(|_| backend.encode(inputs.clone())).collect();
    for call in &mut calls {
        drop(futures::poll!(call));
        let load = backend.load();
        assert!(load.tokens() <= capacity, "{load:?}");
    }
    drop(calls);
    wait_until_idle(backend);
    drop(backend.encode(inputs).await.expect("plain inputs"));
    let load = backend.load();
    assert_eq!((load.tokens(), load.text_bytes), (0, 0), "the load of a finished call is gone");
}

/// Waits until the backend has discarded dropped work.
fn wait_until_idle(backend: &dyn Backend) {
    let started = Instant::now();
    while backend.load() != (Load { capacity_tokens: backend.load().capacity_tokens, ..Load::default() }) {
        assert!(started.elapsed() < DISCARD_TIMEOUT, "{:?} is never freed", backend.load());
        thread::sleep(Duration::from_millis(1));
    }
}

async fn empty_input_has_empty_output(backend: &dyn Backend) {
    assert_eq!(backend.tokenize(Vec::new(), &specs()[0]).await.expect("no texts"), Vec::<Vec<Chunk>>::new());
    assert!(backend.encode(Vec::new()).await.expect("no inputs").values.is_empty());
}
