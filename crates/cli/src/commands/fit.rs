//! `polylance fit`

use std::{collections::BTreeSet, path::PathBuf, time::Instant};

use arrow::{
    array::{Array, AsArray},
    datatypes::Float32Type,
};
use futures::TryStreamExt;
use polylance_config::{ChunkMode, Pipeline, Source, Table};
use polylance_dataflow::{CsvSpec, SourceSpec};
use polylance_encoder::{FittedHead, FittedKind};
use polylance_fit::{Features, Options, Report, SequenceHead};
use polylance_search::SqlSession;
use serde::Serialize;

use crate::{
    entities::{self, Labelled},
    error::{Result, UsageError},
    exit::ExitStatus,
    known_models,
    model_args::DeviceArgs,
    pipeline::{self, ProgressMode},
    printer::{Printer, counted, thousands},
};

/// Confused pairs that are shown.
const PAIRS: usize = 12;

/// Fit a classifier of texts to labelled rows, on a model as it is
///
/// One pass over the source makes a vector of each text; they are kept as a Lance table beside the result, so that
/// another fit costs no pass. A linear head is trained on them, and written with the model as a folder that
/// `polylance annotate` and `polylance predict` read. The same rows, options and seed give the same head.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Labelled rows: a file, a folder, a glob or `builtin:udhr`; local, s3://, gs://, az://, http(s)://
    #[arg(long, value_name = "URI")]
    source: String,
    /// The column with the label, text or whole numbers
    #[arg(long, value_name = "COL", required_unless_present_any = ["conll", "spans"])]
    label: Option<String>,
    /// The column with a text's entities: fit a tagger of them. A cell is a list of structs label, start, end, in
    /// characters, or that list as JSON. A fifth of the texts is kept to measure the tagger
    #[arg(long, value_name = "COL", conflicts_with_all = ["label", "conll", "condition", "test"])]
    spans: Option<String>,
    /// The source is a local CoNLL file: fit a tagger of entities. A fifth of the sentences is kept to measure it
    #[arg(long, conflicts_with_all = ["label", "condition", "test", "text", "id"])]
    conll: bool,
    /// The folder to write
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// The model below the head: `builtin:multilingual-e5-small`, a folder, a .gguf file or a name on the hub
    #[arg(long, value_name = "MODEL", default_value = "builtin:multilingual-e5-small")]
    model: String,
    /// The column with the text
    #[arg(long, value_name = "COL", default_value = "text")]
    text: String,
    /// The column that names a row
    #[arg(long, value_name = "COL", default_value = "id")]
    id: String,
    /// Train on these rows only, a condition in SQL
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    /// Measure on these rows, a condition in SQL [default: the rows held out of training]
    #[arg(long, value_name = "SQL")]
    test: Option<String>,
    /// Share of the rows held out of training, which decide when to stop
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().held_out)]
    held_out: f64,
    /// Passes over the vectors at most
    #[arg(long, value_name = "N", default_value_t = Options::default().epochs)]
    epochs: usize,
    /// Step size
    #[arg(long, value_name = "RATE", default_value_t = Options::default().learning_rate)]
    learning_rate: f64,
    /// Weight decay
    #[arg(long, value_name = "DECAY", default_value_t = Options::default().weight_decay)]
    weight_decay: f64,
    /// Decides which rows are held out, and the order of the others
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The Lance table with the vectors [default: FOLDER.features.lance]
    #[arg(long, value_name = "URI")]
    features: Option<String>,
    #[command(flatten)]
    devices: DeviceArgs,
    /// End with one JSON object on stdout
    #[arg(long)]
    json: bool,
    /// How progress is shown on stderr
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

/// What was done, for scripts.
#[derive(Serialize)]
struct Outcome<'a> {
    out: String,
    model: &'a str,
    labels: usize,
    trained_rows: usize,
    held_out_rows: usize,
    rows_without_label: usize,
    epochs: usize,
    best_epoch: usize,
    seconds: f64,
    measured_on: &'static str,
    report: Report,
}

/// A source whose rows have their entities in the column `spans`.
fn with_spans(uri: String, id: String, text: String, spans: String) -> SourceSpec {
    let max_bytes = Source::new(uri.as_str()).max_bytes.0;
    SourceSpec { uri, format: None, id, text, keep: vec![spans], max_bytes, csv: CsvSpec::default() }
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let files = known_models::find(&args.model)?;
    let options = Options {
        held_out: args.held_out,
        epochs: args.epochs,
        learning_rate: args.learning_rate,
        weight_decay: args.weight_decay,
        seed: args.seed,
        ..Options::default()
    };
    let table = args.features.clone().unwrap_or_else(|| format!("{}.features.lance", args.out.display()));
    let Some(label) = args.label.clone() else {
        let labelled = match args.spans {
            None => Labelled::Conll(args.source),
            Some(spans) => Labelled::Spans(with_spans(args.source, args.id, args.text, spans)),
        };
        let request =
            entities::Request { labelled, out: args.out, features: table, devices: args.devices.devices, options };
        return entities::fit(request, files, args.json, printer).await;
    };
    let pipeline = pipeline(&args, &table);
    pipeline.validate()?;
    let quarantined = pipeline::embed_quietly(&pipeline, args.progress).await?;
    if quarantined > 0 {
        printer.warning(format_args!("{} could not be read or embedded and are left out", counted(quarantined, "row")));
    }

    let rows = read(&table, &label, args.condition.as_deref()).await?;
    let labels: Vec<String> = rows.labels.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
    let class = |name: &String| labels.binary_search(name).map(|class| class as u32);
    let classes: Vec<u32> = rows.labels.iter().filter_map(|name| class(name).ok()).collect();
    let features = Features { width: rows.width, values: rows.values, classes };
    let started = Instant::now();
    let (features, count) = (features, labels.len());
    let (features, fitted) = tokio::task::spawn_blocking(move || {
        let fitted = polylance_fit::train(&features, count, &options)?;
        Ok::<_, polylance_fit::FitError>((features, fitted))
    })
    .await??;
    let seconds = started.elapsed().as_secs_f64();

    let (pairs, measured_on) = match &args.test {
        None => {
            let pair = |&row: &usize| (features.classes[row], fitted.head.predict(features.row(row)));
            (fitted.held_out.iter().map(pair).collect::<Vec<_>>(), "held-out rows")
        }
        Some(condition) => {
            let test = read(&table, &label, Some(condition)).await?;
            let unknown = test.labels.iter().find(|name| class(name).is_err());
            if let Some(label) = unknown {
                let message = format!("a row of --test has the label {label:?}, and no row of the training has it");
                return Err(UsageError::new(message).into());
            }
            let right = test.labels.iter().filter_map(|name| class(name).ok());
            let found = test.values.chunks(test.width.max(1)).map(|row| fitted.head.predict(row));
            (right.zip(found).collect(), "test rows")
        }
    };
    let report = Report::new(&pairs, &labels);
    let defaults = files.defaults();
    let head = SequenceHead {
        head: &fitted.head,
        labels: &labels,
        fitted: FittedHead {
            head: Some(FittedKind::PooledLinear),
            pooling: defaults.pooling,
            normalize: defaults.normalize,
            prefix: defaults.prompts.passage.clone(),
            backbone: None,
        },
    };
    head.write(&files, &args.out)?;
    let outcome = Outcome {
        out: args.out.display().to_string(),
        model: files.name(),
        labels: labels.len(),
        trained_rows: fitted.trained_rows,
        held_out_rows: fitted.held_out.len(),
        rows_without_label: rows.without_label,
        epochs: fitted.epochs,
        best_epoch: fitted.best_epoch,
        seconds,
        measured_on,
        report,
    };
    if args.json {
        printer.json(&outcome)?;
    } else {
        show(&outcome, printer)?;
    }
    Ok(ExitStatus::Done)
}

/// The job that makes a vector of each text.
fn pipeline(args: &Args, table: &str) -> Pipeline {
    let source = Source {
        id: args.id.clone(),
        text: args.text.clone(),
        keep: vec!["*".to_owned()],
        ..Source::new(args.source.clone())
    };
    let mut pipeline = Pipeline::new(source, Table { text: false, ..Table::new(table.to_owned()) });
    pipeline.model.id.clone_from(&args.model);
    if !args.devices.devices.is_empty() {
        pipeline.model.devices.clone_from(&args.devices.devices);
    }
    pipeline.chunk.mode = ChunkMode::Truncate;
    pipeline.index.kind = polylance_config::IndexKind::None;
    pipeline
}

/// Labelled vectors.
#[derive(Debug, Default)]
struct Rows {
    width: usize,
    values: Vec<f32>,
    labels: Vec<String>,
    without_label: usize,
}

/// The rows of the features table that fulfil a condition, in the order of their ids.
async fn read(table: &str, label: &str, condition: Option<&str>) -> Result<Rows> {
    let session = SqlSession::open(&[("features".to_owned(), table.to_owned())], None).await?;
    let quoted = label.replace('"', "\"\"");
    let condition = condition.map(|condition| format!(" WHERE ({condition})")).unwrap_or_default();
    let sql =
        format!("SELECT embedding, CAST(\"{quoted}\" AS VARCHAR) AS label FROM features{condition} ORDER BY doc_id");
    let mut batches = session.query(&sql).await?;
    let mut rows = Rows::default();
    while let Some(batch) = batches.try_next().await? {
        let vectors = batch.column(0).as_fixed_size_list();
        rows.width = vectors.value_length() as usize;
        let labels = arrow::compute::cast(batch.column(1), &arrow::datatypes::DataType::Utf8)?;
        let labels = labels.as_string::<i32>();
        for row in 0..batch.num_rows() {
            if labels.is_null(row) {
                rows.without_label += 1;
                continue;
            }
            rows.labels.push(labels.value(row).to_owned());
            rows.values.extend_from_slice(vectors.value(row).as_primitive::<Float32Type>().values());
        }
    }
    Ok(rows)
}

fn show(outcome: &Outcome<'_>, printer: &mut Printer) -> Result<()> {
    let n = |number: usize| thousands(number as u64);
    let Outcome { report, .. } = outcome;
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
    let pair = |pair: &polylance_fit::Confused| vec![pair.label.clone(), pair.taken_for.clone(), n(pair.rows)];
    printer.table(&header, report.confused.iter().take(PAIRS).map(pair).collect())?;
    if report.confused.len() > PAIRS {
        printer.line(format!("… and {} more pairs; --json tells all", n(report.confused.len() - PAIRS)))?;
    }
    Ok(())
}
