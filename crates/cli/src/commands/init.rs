//! `polylance init`

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf, absolute},
};

use anyhow::Context;
use indicatif::HumanBytes;
use polylance_config::Pipeline;
use polylance_engine::{IdChoice, PipelineDraft};
use serde_json::{Value, json};

use crate::{
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{Printer, atomic_file::write_atomically, counted},
};

/// Write a pipeline file for a source, with the columns that it has
///
/// Reads the listing, the columns and the first rows of the source. The file names the columns with the text and the
/// id; the other columns, other models and the next commands are in its comments.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Source: a file, a folder, a glob or `builtin:udhr`; local, s3://, gs://, az:// or http(s)://
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Lance table [default: the name of the source with .lance, in the current folder]
    #[arg(long, value_name = "URI")]
    table: Option<String>,
    /// File to write; `-` prints it
    #[arg(short, long, value_name = "FILE", default_value = "pipeline.toml")]
    output: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
    /// Print what was found as one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance init docs.jsonl.gz
  polylance init 's3://corpus/*.parquet' --table s3://tables/corpus.lance --output corpus.toml
  polylance init builtin:udhr --output - | less";

/// The output that stands for stdout.
const STDOUT: &str = "-";
/// The name of the file in the comments of a printed one.
const DEFAULT_FILE: &str = "pipeline.toml";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let prints = args.output.as_os_str() == STDOUT;
    if prints && args.json {
        return Err(UsageError::new("`--json` and `--output -` both print to stdout")
            .with_hint("give one of them")
            .into());
    }
    if !prints && !args.force && fs::symlink_metadata(&args.output).is_ok() {
        return Err(exists(&args.output).into());
    }
    let draft = PipelineDraft::of_source(&args.source, args.table.as_deref()).await?;
    expect_outside(&args.source, (!prints).then_some(args.output.as_path()), &draft.table)?;
    let file = if prints { DEFAULT_FILE.to_owned() } else { args.output.display().to_string() };
    let text = draft.to_toml(&file);
    // A table that no run can write to is refused here.
    Pipeline::parse(&file, &text, &[""; 0])?;
    if prints {
        printer.bytes(text.as_bytes())?;
        return Ok(ExitStatus::Done);
    }
    if args.force {
        write_atomically(&args.output, text.as_bytes())?;
    } else {
        write_new(&args.output, text.as_bytes())?;
    }
    if args.json {
        printer.json(&described(&draft, &file))?;
    } else {
        printer.fields(&fields(&draft, &file))?;
    }
    for note in &draft.profile.notes {
        printer.warning(note);
    }
    printer.hint(format_args!("check the columns in {file}, then: polylance run {file}"));
    Ok(ExitStatus::Done)
}

fn exists(path: &Path) -> UsageError {
    let error = UsageError::new(format!("{} exists already", path.display()));
    error.with_hint("--force replaces it, and --output names another file")
}

/// Writes a file that does not exist yet.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = match File::create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(exists(path).into()),
        created => created.with_context(|| format!("creating {}", path.display()))?,
    };
    file.write_all(bytes).with_context(|| format!("writing {}", path.display()))
}

/// Refuses a pipeline file or a table in the folder that is the source: a run would read them as documents.
fn expect_outside(source: &str, file: Option<&Path>, table: &str) -> Result<()> {
    let source = Path::new(source.strip_prefix("file://").unwrap_or(source));
    let Ok(folder) = fs::canonicalize(source) else { return Ok(()) };
    let table = (!table.contains("://")).then_some(Path::new(table));
    for path in [file, table].into_iter().flatten() {
        let path = absolute(path)?;
        let parent = path.parent().map(Path::to_owned).unwrap_or_default();
        if folder.is_dir() && fs::canonicalize(&parent).unwrap_or(parent).starts_with(&folder) {
            let message = format!("{} would be in {}, whose files are all read", path.display(), source.display());
            let hint = "give a glob such as 'corpus/*.parquet', or name other places with --output and --table";
            return Err(UsageError::new(message).with_hint(hint).into());
        }
    }
    Ok(())
}

/// The id as the file has it, and whether it is a column.
fn id(draft: &PipelineDraft) -> (&str, bool) {
    match &draft.id {
        IdChoice::Column(name) => (name, true),
        IdChoice::Content { .. } => ("a hash of the text", false),
    }
}

fn fields(draft: &PipelineDraft, file: &str) -> Vec<(&'static str, String)> {
    let profile = &draft.profile;
    let (files, size) = (counted(profile.files as u64, "file"), HumanBytes(profile.bytes));
    let others = draft.keep();
    vec![
        ("written", file.to_owned()),
        ("source", format!("{}: {files}, {size}, {}", profile.address, format_name(draft))),
        ("text", draft.text.column.clone()),
        ("id", id(draft).0.to_owned()),
        ("other columns", if others.is_empty() { "none".to_owned() } else { others.join(", ") }),
        ("table", draft.table.clone()),
    ]
}

fn format_name(draft: &PipelineDraft) -> String {
    format!("{:?}", draft.profile.format).to_lowercase()
}

fn described(draft: &PipelineDraft, file: &str) -> Value {
    let profile = &draft.profile;
    let column = |column: &polylance_dataflow::SourceColumn| {
        let example = column.sample.as_ref().and_then(|sample| sample.example.as_ref());
        json!({ "name": column.name, "type": column.data_type.to_string(), "example": example })
    };
    let (id, is_column) = id(draft);
    json!({
        "file": file,
        "source": profile.address,
        "files": profile.files,
        "bytes": profile.bytes,
        "format": format_name(draft),
        "columns": profile.columns.iter().map(column).collect::<Vec<_>>(),
        "sampled_rows": profile.sampled_rows,
        "text": draft.text.column,
        "id": is_column.then_some(id),
        "table": draft.table,
        "notes": profile.notes,
    })
}
