//! Fits a tagger of entities to a CoNLL file.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    time::Instant,
};

use anyhow::Context;
use polylance_encoder::ModelFiles;
use polylance_fit::{EntityReport, Features, Fitted, LinearHead, Options, TaggedSentence, TokenHead};
use polylance_worker::{PoolOptions, TokenStates};
use serde::Serialize;

use crate::{
    error::Result,
    exit::ExitStatus,
    printer::{Printer, thousands},
};

/// Sentences that are computed together.
const SENTENCES: usize = 512;
/// Of so many sentences one is kept to measure the tagger.
const TEST: usize = 5;

/// What to fit.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) source: String,
    pub(crate) out: PathBuf,
    pub(crate) devices: Vec<String>,
    pub(crate) options: Options,
}

/// What was done, for scripts.
#[derive(Serialize)]
struct Outcome<'a> {
    out: String,
    model: &'a str,
    labels: usize,
    trained_sentences: usize,
    test_sentences: usize,
    words: usize,
    words_cut_off: usize,
    epochs: usize,
    best_epoch: usize,
    seconds: f64,
    /// F1 of a tagger that gives each word its most frequent tag, and any other word none.
    baseline_micro_f1: f64,
    report: EntityReport,
}

/// A sentence with the states of its words.
struct Known {
    sentence: TaggedSentence,
    states: Vec<Option<Vec<f32>>>,
}

pub(crate) async fn fit(request: Request, files: ModelFiles, json: bool, printer: &mut Printer) -> Result<ExitStatus> {
    let text = std::fs::read_to_string(&request.source).with_context(|| format!("cannot read {}", request.source))?;
    let mut sentences = polylance_fit::read_conll(&request.source, &text)?;
    // The same sentence twice would be trained on and measured with.
    let mut seen = BTreeSet::new();
    sentences.retain(|sentence| seen.insert(sentence.words.clone()));
    let mut order: Vec<usize> = (0..sentences.len()).collect();
    polylance_fit::shuffle(&mut order, request.options.seed);

    let prefix = files.defaults().prompts.passage.clone();
    let options = PoolOptions { devices: request.devices, ..PoolOptions::default() };
    let (model, before) = (files.clone(), prefix.clone());
    let states = tokio::task::spawn_blocking(move || TokenStates::open(&model, &before, &options)).await??;
    let width = states.width();
    let mut known = Vec::with_capacity(sentences.len());
    for part in order.chunks(SENTENCES) {
        let words = part.iter().map(|&at| sentences[at].words.clone()).collect();
        let of_part = states.of_words(words).await?;
        let with = |(&at, states): (&usize, _)| Known { sentence: sentences[at].clone(), states };
        known.extend(part.iter().zip(of_part).map(with));
    }
    let (test, train) = known.split_at(known.len() / TEST);
    let labels = labels(&sentences);
    let started = Instant::now();
    let fitted = fit_words(train, &labels, width, &request.options)?;
    let seconds = started.elapsed().as_secs_f64();
    TokenHead { head: &fitted.head, labels: &labels, prefix }.write(&files, &request.out)?;

    let right: Vec<Vec<String>> = test.iter().map(|one| one.sentence.tags.clone()).collect();
    let found: Vec<Vec<String>> = test.iter().map(|one| tags(&fitted.head, &labels, &one.states)).collect();
    let outcome = Outcome {
        out: request.out.display().to_string(),
        model: files.name(),
        labels: labels.len(),
        trained_sentences: train.len(),
        test_sentences: test.len(),
        words: known.iter().map(|one| one.states.len()).sum(),
        words_cut_off: known.iter().flat_map(|one| &one.states).filter(|state| state.is_none()).count(),
        epochs: fitted.epochs,
        best_epoch: fitted.best_epoch,
        seconds,
        baseline_micro_f1: EntityReport::new(&right, &frequent(train, test)).micro_f1,
        report: EntityReport::new(&right, &found),
    };
    if json {
        printer.json(&outcome)?;
    } else {
        show(&outcome, printer)?;
    }
    Ok(ExitStatus::Done)
}

/// `O` and the other tags, in their order.
fn labels(sentences: &[TaggedSentence]) -> Vec<String> {
    let mut tags: BTreeSet<&str> = sentences.iter().flat_map(|one| &one.tags).map(String::as_str).collect();
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

fn show(outcome: &Outcome<'_>, printer: &mut Printer) -> Result<()> {
    let n = |number: usize| thousands(number as u64);
    let Outcome { report, .. } = outcome;
    let measured = format!("{} entities in {} sentences kept apart", n(report.entities), n(outcome.test_sentences));
    printer.fields(&[
        ("head", format!("{} tags on {}", n(outcome.labels), outcome.model)),
        ("sentences", format!("{} trained on, {} words in all", n(outcome.trained_sentences), n(outcome.words))),
        (
            "training",
            format!("{} passes, the best was {}, {:.1} s", outcome.epochs, outcome.best_epoch, outcome.seconds),
        ),
        ("f1", format!("micro {:.3}, macro {:.3} on {measured}", report.micro_f1, report.macro_f1)),
        ("baseline", format!("micro {:.3} by each word's most frequent tag", outcome.baseline_micro_f1)),
        ("written", outcome.out.clone()),
    ])?;
    printer.line("")?;
    let header = ["entity", "there", "precision", "recall", "f1"].map(str::to_owned);
    let row = |kind: &polylance_fit::EntityScore| {
        let share = |share: f64| format!("{share:.3}");
        vec![kind.kind.clone(), n(kind.entities), share(kind.precision), share(kind.recall), share(kind.f1)]
    };
    printer.table(&header, report.kinds.iter().map(row).collect())?;
    Ok(())
}
