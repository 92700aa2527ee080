//! Trains an entity tagger on a CoNLL file, or on texts with spans.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    time::Instant,
};

use polylance_dataflow::SourceSpec;
use polylance_encoder::ModelFiles;
use polylance_fit::{EntityReport, Features, LinearHead, TaggedSentence, TokenHead, TrainOptions, TrainedHead};
use serde::Serialize;

use super::{
    Result,
    spanned_texts::{self, SpannedText},
    token_features::{FeatureInput, FeatureSource},
};
use crate::EngineError;

/// One in this many sentences is held back to measure the tagger.
const TEST_FRACTION_DENOM: usize = 5;

/// The labelled texts.
#[derive(Debug)]
pub enum Labelled {
    /// A local CoNLL file.
    Conll(String),
    /// A source whose one kept column has spans.
    Spans(SourceSpec),
}

/// A tagger to train.
#[derive(Debug)]
pub struct TaggerRequest {
    /// The labelled texts.
    pub labelled: Labelled,
    /// The folder to write.
    pub out: PathBuf,
    /// The Lance table of the token states.
    pub features: String,
    /// Devices that compute them.
    pub devices: Vec<String>,
    /// How the head is trained.
    pub options: TrainOptions,
}

/// The trained head, and its quality.
#[derive(Debug, Serialize)]
pub struct TaggerSummary {
    /// The folder that was written.
    pub out: String,
    /// The model below the head.
    pub model: String,
    /// Number of tags.
    pub labels: usize,
    /// Sentences that the head was trained on.
    pub trained_sentences: usize,
    /// Sentences that were held back to measure it.
    pub test_sentences: usize,
    /// The tagged unit: `word` for a CoNLL file, `token` for texts with spans.
    pub unit: &'static str,
    /// Number of units.
    pub words: usize,
    /// Words beyond the model's limit for a sentence.
    pub words_cut_off: usize,
    /// Spans beyond the model's limit for a text, or over white space only.
    pub spans_lost: usize,
    /// Rows whose spans are null.
    pub rows_without_label: usize,
    /// Rows that are unreadable, or whose spans do not fit their text.
    pub rows_refused: usize,
    /// Passes over the states.
    pub epochs: usize,
    /// The pass whose head was kept.
    pub best_epoch: usize,
    /// Duration of the training.
    pub seconds: f64,
    /// Micro F1 of a tagger that gives each unit its most frequent tag, and unknown units none.
    pub baseline_micro_f1: f64,
    /// The quality of the head on the test sentences.
    pub report: EntityReport,
}

/// A sentence with the states of its units.
#[derive(Debug)]
struct EncodedSentence {
    sentence: TaggedSentence,
    states: Vec<Option<Vec<f32>>>,
}

/// Sentences with the states of their units, shuffled by the seed.
#[derive(Debug)]
pub struct TaggedCorpus {
    request: TaggerRequest,
    files: ModelFiles,
    sentences: Vec<EncodedSentence>,
    unit: &'static str,
    /// The parts that were left out.
    pub left_out: LeftOut,
}

/// The parts of a corpus that are not used.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Rows whose spans are null.
    pub rows_without_label: usize,
    /// Rows that are unreadable, or whose spans do not fit their text.
    pub rows_refused: usize,
    /// The place and the error of the first of them.
    pub first_refused: Option<String>,
    /// Words beyond the model's limit for a sentence.
    pub words_cut_off: usize,
    /// Spans beyond the model's limit for a text, or over white space only.
    pub spans_lost: usize,
}

impl TaggerRequest {
    /// Reads the sentences, and computes the states that are not cached.
    ///
    /// # Errors
    /// Those of the source, the model and the table of features.
    pub async fn read(self, files: ModelFiles) -> Result<TaggedCorpus> {
        let seed = self.options.seed;
        let source = FeatureSource { files: &files, devices: &self.devices, table: &self.features };
        let (sentences, unit, left_out) = match &self.labelled {
            Labelled::Conll(path) => encode_conll(path, seed, &source).await?,
            Labelled::Spans(spec) => encode_spans(spec.clone(), seed, &source).await?,
        };
        let words_cut_off =
            sentences.iter().flat_map(|sentence| &sentence.states).filter(|state| state.is_none()).count();
        Ok(TaggedCorpus { request: self, files, sentences, unit, left_out: LeftOut { words_cut_off, ..left_out } })
    }
}

impl TaggedCorpus {
    /// Trains a tagger and writes it with its model as a folder.
    ///
    /// # Errors
    /// [`EngineError::Fit`] if there is nothing to learn from.
    pub fn fit(&self) -> Result<TaggerSummary> {
        let Self { request, files, sentences, left_out, .. } = self;
        let (test, train) = sentences.split_at(sentences.len() / TEST_FRACTION_DENOM);
        let labels = labels(sentences);
        let started = Instant::now();
        let fitted = fit_words(train, &labels, files.config().hidden_size, &request.options)?;
        let seconds = started.elapsed().as_secs_f64();
        let prefix = files.defaults().prompts.passage.clone();
        TokenHead { head: &fitted.head, labels: &labels, prefix }.write(files, &request.out)?;

        let right: Vec<Vec<String>> = test.iter().map(|tested| tested.sentence.tags.clone()).collect();
        let found: Vec<Vec<String>> = test.iter().map(|tested| tags(&fitted.head, &labels, &tested.states)).collect();
        Ok(TaggerSummary {
            out: request.out.display().to_string(),
            model: files.name().to_owned(),
            labels: labels.len(),
            trained_sentences: train.len(),
            test_sentences: test.len(),
            unit: self.unit,
            words: sentences.iter().map(|sentence| sentence.states.len()).sum(),
            words_cut_off: left_out.words_cut_off,
            spans_lost: left_out.spans_lost,
            rows_without_label: left_out.rows_without_label,
            rows_refused: left_out.rows_refused,
            epochs: fitted.epochs,
            best_epoch: fitted.best_epoch,
            seconds,
            baseline_micro_f1: EntityReport::new(&right, &most_frequent_tags(train, test)).micro_f1,
            report: EntityReport::new(&right, &found),
        })
    }
}

async fn encode_conll(
    path: &str,
    seed: u64,
    source: &FeatureSource<'_>,
) -> Result<(Vec<EncodedSentence>, &'static str, LeftOut)> {
    let text = std::fs::read_to_string(path).map_err(|source| EngineError::File { path: path.to_owned(), source })?;
    let mut sentences = polylance_fit::read_conll(path, &text)?;
    // A duplicate could be in both the training and the test sentences.
    let mut seen = BTreeSet::new();
    sentences.retain(|sentence| seen.insert(sentence.words.clone()));
    let inputs: Vec<FeatureInput> =
        sentences.iter().map(|sentence| FeatureInput::Words(sentence.words.clone())).collect();
    let features = source.features(&inputs).await?;
    let width = source.files.config().hidden_size;
    let encoded = |at: usize| {
        let sentence = sentences[at].clone();
        let mut states = vec![None; sentence.words.len()];
        for (word, state) in features[at].positions.iter().zip(features[at].states.chunks(width)) {
            states[word.start as usize] = Some(state.to_vec());
        }
        EncodedSentence { sentence, states }
    };
    let encoded = shuffled(sentences.len(), seed).into_iter().map(encoded).collect();
    Ok((encoded, "word", LeftOut::default()))
}

async fn encode_spans(
    spec: SourceSpec,
    seed: u64,
    source: &FeatureSource<'_>,
) -> Result<(Vec<EncodedSentence>, &'static str, LeftOut)> {
    let read = spanned_texts::read(spec).await?;
    let inputs: Vec<FeatureInput> = read.texts.iter().map(|spanned| FeatureInput::Text(spanned.text.clone())).collect();
    let features = source.features(&inputs).await?;
    let width = source.files.config().hidden_size;
    let (mut encoded, mut spans_lost) = (Vec::with_capacity(read.texts.len()), 0);
    for at in shuffled(read.texts.len(), seed) {
        let SpannedText { text, spans } = &read.texts[at];
        let ranges: Vec<_> =
            features[at].positions.iter().map(|range| range.start as usize..range.end as usize).collect();
        let characters: Vec<char> = text.chars().collect();
        let words = ranges.iter().map(|chars| characters[chars.clone()].iter().collect()).collect();
        let tagged = spans.tags(&ranges);
        spans_lost += tagged.lost;
        let states = features[at].states.chunks(width).map(|state| Some(state.to_vec())).collect();
        encoded.push(EncodedSentence { sentence: TaggedSentence { words, tags: tagged.tags }, states });
    }
    let spanned_texts::SpannedTexts { without_label, refused, first_refused, .. } = read;
    let left_out = LeftOut {
        rows_without_label: without_label,
        rows_refused: refused,
        first_refused,
        words_cut_off: 0,
        spans_lost,
    };
    Ok((encoded, "token", left_out))
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    polylance_fit::shuffle(&mut order, seed);
    order
}

/// `O` and the other tags, in their order.
fn labels(sentences: &[EncodedSentence]) -> Vec<String> {
    let mut tags: BTreeSet<&str> =
        sentences.iter().flat_map(|encoded| &encoded.sentence.tags).map(String::as_str).collect();
    tags.remove("O");
    std::iter::once("O").chain(tags).map(str::to_owned).collect()
}

fn fit_words(
    train: &[EncodedSentence],
    labels: &[String],
    width: usize,
    options: &TrainOptions,
) -> Result<TrainedHead> {
    let mut features = Features { width, ..Features::default() };
    let (mut held_out, mut trained) = (Vec::new(), Vec::new());
    // Whole sentences are held out: the words of a sentence are not independent.
    let held = ((train.len() as f64 * options.held_out).round() as usize).clamp(1, train.len().max(2) - 1);
    for (number, encoded) in train.iter().enumerate() {
        for (state, tag) in encoded.states.iter().zip(&encoded.sentence.tags) {
            let (Some(state), Some(class)) = (state, labels.iter().position(|label| label == tag)) else { continue };
            let rows = if number < held { &mut held_out } else { &mut trained };
            rows.push(features.classes.len());
            features.values.extend_from_slice(state);
            features.classes.push(class as u32);
        }
    }
    Ok(polylance_fit::train_on(&features, labels.len(), held_out, trained, options)?)
}

/// The tags of a sentence; a word that was cut off has none.
fn tags(head: &LinearHead, labels: &[String], states: &[Option<Vec<f32>>]) -> Vec<String> {
    let tag = |state: &Option<Vec<f32>>| {
        let class = state.as_ref().map_or(0, |state| head.predict(state));
        labels.get(class as usize).cloned().unwrap_or_default()
    };
    states.iter().map(tag).collect()
}

/// The tags of the test sentences if each word has its most frequent tag.
fn most_frequent_tags(train: &[EncodedSentence], test: &[EncodedSentence]) -> Vec<Vec<String>> {
    let mut counts: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    for encoded in train {
        for (word, tag) in encoded.sentence.words.iter().zip(&encoded.sentence.tags) {
            *counts.entry(word).or_default().entry(tag).or_default() += 1;
        }
    }
    let tag = |word: &String| {
        // Ties are broken by name, so that the figure is reproducible.
        let best = |counts: &HashMap<&str, usize>| {
            counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0))).map(|(tag, _)| (*tag).to_owned())
        };
        counts.get(word.as_str()).and_then(best).unwrap_or_else(|| "O".to_owned())
    };
    test.iter().map(|encoded| encoded.sentence.words.iter().map(tag).collect()).collect()
}
