//! `polylance fit`

use std::path::PathBuf;

use polylance_dataflow::SourceSpec;
use polylance_engine::{
    fit::{ClassifierRequest, ClassifierSummary, Labelled, LeftOut, TaggerRequest, TaggerSummary},
    models,
};
use polylance_fit::TrainOptions;

use crate::{
    args::{DeviceArgs, ProgressMode},
    error::Result,
    exit::ExitStatus,
    output::{Printer, counted, progress, thousands},
};

/// Maximum number of confused pairs that are printed.
const MAX_PRINTED_PAIRS: usize = 12;

/// Train a linear head on a frozen model: a text classifier or an entity tagger
///
/// One pass over the source embeds each text. The vectors are kept in a Lance table next to the result, so another fit
/// needs no pass. The head is trained on them and written with its model as a folder, which `polylance annotate` and
/// `polylance predict` read. The same rows, options and seed give the same head.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Labelled rows: a file, a folder, a glob or `builtin:udhr`; local, s3://, gs://, az:// or http(s)://
    #[arg(long, value_name = "URI")]
    source: String,
    /// Column with the label: text or whole numbers
    #[arg(long, value_name = "COL", required_unless_present_any = ["conll", "spans"])]
    label: Option<String>,
    /// Column with a text's entities: trains a tagger. A cell is a list of structs label, start, end, counted in
    /// characters, or that list as JSON. A fifth of the texts is held back to measure the tagger
    #[arg(long, value_name = "COL", conflicts_with_all = ["label", "conll", "condition", "test"])]
    spans: Option<String>,
    /// The source is a local CoNLL file: trains a tagger. A fifth of the sentences is held back to measure it
    #[arg(long, conflicts_with_all = ["label", "condition", "test", "text", "id"])]
    conll: bool,
    /// Folder to write
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Model below the head: `builtin:multilingual-e5-small`, a folder or .gguf file (local, s3://, gs:// or az://), or a
    /// hub name
    #[arg(long, value_name = "MODEL", default_value = "builtin:multilingual-e5-small")]
    model: String,
    /// Column with the text
    #[arg(long, value_name = "COL", default_value = "text")]
    text: String,
    /// Column with the row's id
    #[arg(long, value_name = "COL", default_value = "id")]
    id: String,
    /// SQL condition: train on these rows only
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// SQL condition: measure on these rows [default: the rows held out of training]
    #[arg(long, value_name = "SQL")]
    test: Option<String>,
    /// Share of the rows held out of training; they decide when to stop
    #[arg(long, value_name = "SHARE", default_value_t = TrainOptions::default().held_out)]
    held_out: f64,
    /// Maximum number of passes over the vectors
    #[arg(long, value_name = "N", default_value_t = TrainOptions::default().epochs)]
    epochs: usize,
    /// Learning rate
    #[arg(long, value_name = "RATE", default_value_t = TrainOptions::default().learning_rate)]
    learning_rate: f64,
    /// Weight decay
    #[arg(long, value_name = "DECAY", default_value_t = TrainOptions::default().weight_decay)]
    weight_decay: f64,
    /// Seed: decides which rows are held out, and the order of the others
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Lance table with the vectors [default: FOLDER.features.lance]
    #[arg(long, value_name = "URI")]
    features: Option<String>,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "MODE")]
    progress: ProgressMode,
}

const AFTER_HELP: &str = "\
Examples:
  polylance fit --source labelled.parquet --label topic --out models/topic
  polylance fit --source builtin:udhr --label lang --out models/lang --where 'article % 2 = 1' --test 'article % 2 = 0'
  polylance fit --source tagged.conll --conll --out models/entities
  polylance fit --source tagged.parquet --spans entities --out models/entities
  polylance annotate --table docs.lance --name topic --task classify --model models/topic";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let files = models::find(&args.model).await?;
    let options = TrainOptions {
        held_out: args.held_out,
        epochs: args.epochs,
        learning_rate: args.learning_rate,
        weight_decay: args.weight_decay,
        seed: args.seed,
        ..TrainOptions::default()
    };
    let features = args.features.unwrap_or_else(|| format!("{}.features.lance", args.out.display()));
    let devices = args.devices.devices;
    let Some(label) = args.label else {
        let labelled = match args.spans {
            None => Labelled::Conll(args.source),
            Some(spans) => {
                let (id, text, keep) = (args.id, args.text, vec![spans]);
                Labelled::Spans(SourceSpec { id, text, keep, ..SourceSpec::new(args.source) })
            }
        };
        let request = TaggerRequest { labelled, out: args.out, features, devices, options };
        let corpus = request.read(files).await?;
        warn_left_out(&corpus.left_out, printer);
        let summary = corpus.fit()?;
        if args.json {
            printer.json(&summary)?;
        } else {
            print_tagger(&summary, printer)?;
        }
        return Ok(ExitStatus::Done);
    };
    let request = ClassifierRequest {
        source: args.source,
        id: args.id,
        text: args.text,
        label,
        condition: args.condition,
        test: args.test,
        model: args.model,
        out: args.out,
        features,
        devices,
        options,
    };
    let mut observer = progress::observer(args.progress);
    let embedded = Box::pin(request.embed(files, observer.as_mut())).await;
    drop(observer);
    let embedded = embedded?;
    if embedded.rows_quarantined > 0 {
        let rows = counted(embedded.rows_quarantined, "row");
        printer.warning(format_args!("{rows} left out: they could not be read or embedded"));
    }
    let summary = embedded.fit().await?;
    if args.json {
        printer.json(&summary)?;
    } else {
        print_classifier(&summary, printer)?;
    }
    Ok(ExitStatus::Done)
}

fn print_classifier(outcome: &ClassifierSummary, printer: &mut Printer) -> Result<()> {
    let n = |number: usize| thousands(number as u64);
    let ClassifierSummary { report, .. } = outcome;
    let rows = format!("{} trained on, {} held out", n(outcome.trained_rows), n(outcome.held_out_rows));
    let without = match outcome.rows_without_label {
        0 => String::new(),
        rows => format!(", {} without a label left out", n(rows)),
    };
    printer.fields(&[
        ("head", format!("{} labels on {}", n(outcome.labels), outcome.model)),
        ("rows", format!("{rows}{without}")),
        (
            "training",
            format!("{} passes, the best was {}, {:.1} s", outcome.epochs, outcome.best_epoch, outcome.seconds),
        ),
        ("accuracy", format!("{:.3} on {} {}", report.accuracy, n(report.rows), outcome.measured_on)),
        ("f1", format!("micro {:.3}, macro {:.3}", report.micro_f1, report.macro_f1)),
        ("written", outcome.out.clone()),
    ])?;
    if report.confused.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    let header = ["label", "taken for", "rows"].map(str::to_owned);
    let pair = |pair: &polylance_fit::Confusion| vec![pair.label.clone(), pair.taken_for.clone(), n(pair.rows)];
    printer.table(&header, report.confused.iter().take(MAX_PRINTED_PAIRS).map(pair).collect())?;
    if report.confused.len() > MAX_PRINTED_PAIRS {
        printer.line(format!("… and {} more pairs; --json has all", n(report.confused.len() - MAX_PRINTED_PAIRS)))?;
    }
    Ok(())
}

fn warn_left_out(left_out: &LeftOut, printer: &mut Printer) {
    if let Some(first) = &left_out.first_refused {
        let rows = counted(left_out.rows_refused as u64, "row");
        printer.warning(format_args!("{rows} left out; the first is {first}"));
    }
    if left_out.words_cut_off > 0 {
        let words = counted(left_out.words_cut_off as u64, "word");
        printer.warning(format_args!("{words} left out: they exceed the model's limit for a sentence"));
    }
    if left_out.spans_lost > 0 {
        let spans = counted(left_out.spans_lost as u64, "span");
        printer.warning(format_args!(
            "{spans} left out: they exceed the model's limit for a text, or cover only white space"
        ));
    }
}

fn print_tagger(outcome: &TaggerSummary, printer: &mut Printer) -> Result<()> {
    let n = |number: usize| thousands(number as u64);
    let TaggerSummary { report, .. } = outcome;
    let sentences = if outcome.unit == "word" { "sentences" } else { "texts" };
    let measured = format!("{} entities in {} test {sentences}", n(report.entities), n(outcome.test_sentences));
    let without = match outcome.rows_without_label {
        0 => String::new(),
        rows => format!(", {} without spans left out", n(rows)),
    };
    let words = counted(outcome.words as u64, outcome.unit);
    printer.fields(&[
        ("head", format!("{} tags on {}", n(outcome.labels), outcome.model)),
        (sentences, format!("{} trained on, {words} in all{without}", n(outcome.trained_sentences))),
        (
            "training",
            format!("{} passes, the best was {}, {:.1} s", outcome.epochs, outcome.best_epoch, outcome.seconds),
        ),
        ("f1", format!("micro {:.3}, macro {:.3} on {measured}", report.micro_f1, report.macro_f1)),
        ("baseline", format!("micro {:.3} with each {}'s most frequent tag", outcome.baseline_micro_f1, outcome.unit)),
        ("written", outcome.out.clone()),
    ])?;
    printer.line("")?;
    let header = ["entity", "count", "precision", "recall", "f1"].map(str::to_owned);
    let row = |kind: &polylance_fit::EntityScore| {
        let share = |share: f64| format!("{share:.3}");
        vec![kind.kind.clone(), n(kind.entities), share(kind.precision), share(kind.recall), share(kind.f1)]
    };
    printer.table(&header, report.kinds.iter().map(row).collect())?;
    Ok(())
}
