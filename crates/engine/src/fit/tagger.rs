//! Fits a tagger of entities to a CoNLL file, or to texts with spans.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    time::Instant,
};

use polylance_dataflow::SourceSpec;
use polylance_encoder::ModelFiles;
use polylance_fit::{EntityReport, Features, Fitted, LinearHead, Options, TaggedSentence, TokenHead};
use serde::Serialize;

use super::{
    Result,
    spans::{self, SpannedText},
    token_features::{self, Tokens},
};
use crate::EngineError;

/// Of so many sentences one is kept to measure the tagger.
const TEST: usize = 5;

/// Where the entities are.
#[derive(Debug)]
pub enum Labelled {
    /// A local CoNLL file.
    Conll(String),
    /// A source whose one kept column has spans.
    Spans(SourceSpec),
}

/// What to fit.
#[derive(Debug)]
pub struct TaggerRequest {
    /// Where the entities are.
    pub labelled: Labelled,
    /// The folder to write.
    pub out: PathBuf,
    /// The table where states of tokens are kept.
    pub features: String,
    /// Devices that compute them.
    pub devices: Vec<String>,
    /// How the head is trained.
    pub options: Options,
}

/// What was fitted, and how good it is.
#[derive(Debug, Serialize)]
pub struct TaggerSummary {
    /// The folder that was written.
    pub out: String,
    /// The model below the head.
    pub model: String,
    /// Kinds of tags.
    pub labels: usize,
    /// Sentences that it was trained on.
    pub trained_sentences: usize,
    /// Sentences that were kept to measure it.
    pub test_sentences: usize,
    /// What was tagged: words of a CoNLL file, the model's tokens of texts with spans.
    pub unit: &'static str,
    /// How many of them there are.
    pub words: usize,
    /// Words beyond what the model reads of a sentence.
    pub words_cut_off: usize,
    /// Spans beyond what the model reads of a text, or over nothing but white space.
    pub spans_lost: usize,
    /// Rows whose spans are null.
    pub rows_without_label: usize,
    /// Rows that cannot be read, or whose spans do not fit their text.
    pub rows_refused: usize,
    /// Passes over the states.
    pub epochs: usize,
    /// The one whose head was kept.
    pub best_epoch: usize,
    /// How long the training took.
    pub seconds: f64,
    /// F1 of a tagger that gives each word, or token, its most frequent tag, and any other none.
    pub baseline_micro_f1: f64,
    /// How good the head is on the sentences that were kept apart.
    pub report: EntityReport,
}

/// A sentence with the states of its words.
#[derive(Debug)]
struct Known {
    sentence: TaggedSentence,
    states: Vec<Option<Vec<f32>>>,
}

/// Sentences with the states of their words, in the order that the seed decides.
#[derive(Debug)]
pub struct TaggedCorpus {
    request: TaggerRequest,
    files: ModelFiles,
    known: Vec<Known>,
    unit: &'static str,
    /// What was left out of it.
    pub left_out: LeftOut,
}

/// What was left out of a corpus.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Rows whose spans are null.
    pub rows_without_label: usize,
    /// Rows that cannot be read, or whose spans do not fit their text.
    pub rows_refused: usize,
    /// The first of them, and why.
    pub first_refused: Option<String>,
    /// Words beyond what the model reads of a sentence.
    pub words_cut_off: usize,
    /// Spans beyond what the model reads of a text, or over nothing but white space.
    pub spans_lost: usize,
}

impl TaggerRequest {
    /// Reads the sentences, and computes the states of their words that are not kept yet.
    ///
    /// # Errors
    /// Those of the source, the model and the features' table.
    pub async fn read(self, files: ModelFiles) -> Result<TaggedCorpus> {
        let seed = self.options.seed;
        let source = token_features::Source { files: &files, devices: &self.devices, table: &self.features };
        let (known, unit, left_out) = match &self.labelled {
            Labelled::Conll(path) => of_conll(path, seed, &source).await?,
            Labelled::Spans(spec) => of_spans(spec.clone(), seed, &source).await?,
        };
        let words_cut_off = known.iter().flat_map(|one| &one.states).filter(|state| state.is_none()).count();
        Ok(TaggedCorpus { request: self, files, known, unit, left_out: LeftOut { words_cut_off, ..left_out } })
    }
}

impl TaggedCorpus {
    /// Fits a tagger, and writes it with its model as a folder.
    ///
    /// # Errors
    /// [`EngineError::Fit`] when there is nothing to learn from.
    pub fn fit(&self) -> Result<TaggerSummary> {
        let Self { request, files, known, left_out, .. } = self;
        let (test, train) = known.split_at(known.len() / TEST);
        let labels = labels(known);
        let started = Instant::now();
        let fitted = fit_words(train, &labels, files.config().hidden_size, &request.options)?;
        let seconds = started.elapsed().as_secs_f64();
        let prefix = files.defaults().prompts.passage.clone();
        TokenHead { head: &fitted.head, labels: &labels, prefix }.write(files, &request.out)?;

        let right: Vec<Vec<String>> = test.iter().map(|one| one.sentence.tags.clone()).collect();
        let found: Vec<Vec<String>> = test.iter().map(|one| tags(&fitted.head, &labels, &one.states)).collect();
        Ok(TaggerSummary {
            out: request.out.display().to_string(),
            model: files.name().to_owned(),
            labels: labels.len(),
            trained_sentences: train.len(),
            test_sentences: test.len(),
            unit: self.unit,
            words: known.iter().map(|one| one.states.len()).sum(),
            words_cut_off: left_out.words_cut_off,
            spans_lost: left_out.spans_lost,
            rows_without_label: left_out.rows_without_label,
            rows_refused: left_out.rows_refused,
            epochs: fitted.epochs,
            best_epoch: fitted.best_epoch,
            seconds,
            baseline_micro_f1: EntityReport::new(&right, &frequent(train, test)).micro_f1,
            report: EntityReport::new(&right, &found),
        })
    }
}

async fn of_conll(
    path: &str,
    seed: u64,
    source: &token_features::Source<'_>,
) -> Result<(Vec<Known>, &'static str, LeftOut)> {
    let text = std::fs::read_to_string(path).map_err(|source| EngineError::File { path: path.to_owned(), source })?;
    let mut sentences = polylance_fit::read_conll(path, &text)?;
    // The same sentence twice would be trained on and measured with.
    let mut seen = BTreeSet::new();
    sentences.retain(|sentence| seen.insert(sentence.words.clone()));
    let asked: Vec<Tokens> = sentences.iter().map(|sentence| Tokens::OfWords(sentence.words.clone())).collect();
    let features = source.features(&asked).await?;
    let width = source.files.config().hidden_size;
    let known = |at: usize| {
        let sentence = sentences[at].clone();
        let mut states = vec![None; sentence.words.len()];
        for (word, state) in features[at].places.iter().zip(features[at].states.chunks(width)) {
            states[word.start as usize] = Some(state.to_vec());
        }
        Known { sentence, states }
    };
    let known = shuffled(sentences.len(), seed).into_iter().map(known).collect();
    Ok((known, "word", LeftOut::default()))
}

async fn of_spans(
    spec: SourceSpec,
    seed: u64,
    source: &token_features::Source<'_>,
) -> Result<(Vec<Known>, &'static str, LeftOut)> {
    let read = spans::read(spec).await?;
    let asked: Vec<Tokens> = read.texts.iter().map(|one| Tokens::OfText(one.text.clone())).collect();
    let features = source.features(&asked).await?;
    let width = source.files.config().hidden_size;
    let (mut known, mut spans_lost) = (Vec::with_capacity(read.texts.len()), 0);
    for at in shuffled(read.texts.len(), seed) {
        let SpannedText { text, spans } = &read.texts[at];
        let places: Vec<_> = features[at].places.iter().map(|place| place.start as usize..place.end as usize).collect();
        let characters: Vec<char> = text.chars().collect();
        let words = places.iter().map(|chars| characters[chars.clone()].iter().collect()).collect();
        let tagged = spans.tags(&places);
        spans_lost += tagged.lost;
        let states = features[at].states.chunks(width).map(|state| Some(state.to_vec())).collect();
        known.push(Known { sentence: TaggedSentence { words, tags: tagged.tags }, states });
    }
    let spans::SpannedTexts { without_label, refused, first_refused, .. } = read;
    let left_out = LeftOut {
        rows_without_label: without_label,
        rows_refused: refused,
        first_refused,
        words_cut_off: 0,
        spans_lost,
    };
    Ok((known, "token", left_out))
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    polylance_fit::shuffle(&mut order, seed);
    order
}

/// `O` and the other tags, in their order.
fn labels(known: &[Known]) -> Vec<String> {
    let mut tags: BTreeSet<&str> = known.iter().flat_map(|one| &one.sentence.tags).map(String::as_str).collect();
    tags.remove("O");
    std::iter::once("O").chain(tags).map(str::to_owned).collect()
}

fn fit_words(train: &[Known], labels: &[String], width: usize, options: &Options) -> Result<Fitted> {
    let mut features = Features { width, ..Features::default() };
    let (mut held_out, mut trained) = (Vec::new(), Vec::new());
    // Whole sentences are held out: words of one are not independent.
    let held = ((train.len() as f64 * options.held_out).round() as usize).clamp(1, train.len().max(2) - 1);
    for (number, one) in train.iter().enumerate() {
        for (state, tag) in one.states.iter().zip(&one.sentence.tags) {
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

/// The tags of the test sentences by each word's most frequent one.
fn frequent(train: &[Known], test: &[Known]) -> Vec<Vec<String>> {
    let mut counts: HashMap<&str, HashMap<&str, usize>> = HashMap::new();
    for one in train {
        for (word, tag) in one.sentence.words.iter().zip(&one.sentence.tags) {
            *counts.entry(word).or_default().entry(tag).or_default() += 1;
        }
    }
    let tag = |word: &String| {
        // Of equally frequent tags the first by name, so that the figure is the same each time.
        let best = |counts: &HashMap<&str, usize>| {
            counts.iter().max_by(|a, b| a.1.cmp(b.1).then(b.0.cmp(a.0))).map(|(tag, _)| (*tag).to_owned())
        };
        counts.get(word.as_str()).and_then(best).unwrap_or_else(|| "O".to_owned())
    };
    test.iter().map(|one| one.sentence.words.iter().map(tag).collect()).collect()
}
