//! From any error to what the user reads, and to the exit code.

use std::{error::Error, io};

use datafusion::error::DataFusionError;
use polylance_config::ConfigError;
use polylance_dataflow::SourceError;
use polylance_encoder::ModelError;
pub(crate) use polylance_engine::UsageError;
use polylance_engine::{EngineError, LoadError};
use polylance_fit::FitError;
use polylance_search::SearchError;
use polylance_sink::SinkError;
use polylance_worker::PoolError;

use crate::{exit::ExitStatus, interrupt::Interrupted, output::Printer};

pub(crate) type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// The same error, or what is behind it: a table that cannot be opened because its newest version is damaged.
pub(crate) async fn with_damage(error: anyhow::Error) -> anyhow::Error {
    let unopened = causes(error.as_ref()).iter().find_map(|cause| match cause.downcast_ref() {
        Some(SearchError::Storage { uri, .. }) => Some(uri.clone()),
        _ => None,
    });
    let damaged = match unopened {
        Some(uri) => Box::pin(polylance_sink::damage(&uri)).await,
        None => None,
    };
    damaged.map_or(error, Into::into)
}

/// Prints the error, its causes and what to do about it.
pub(crate) fn report(error: &anyhow::Error, printer: &mut Printer) -> ExitStatus {
    let causes = causes(error.as_ref());
    if causes.iter().any(|cause| broken_pipe(*cause)) {
        // The reader of stdout has what it wanted.
        return ExitStatus::Done;
    }
    if let Some(Interrupted { resumable }) = causes.iter().find_map(|cause| cause.downcast_ref()) {
        printer.message("interrupted");
        if *resumable {
            printer.hint("what was committed stays in the table, and the same command continues from there");
        }
        return ExitStatus::Interrupted;
    }
    let mut said: Vec<String> = Vec::new();
    for cause in &causes {
        let text = without_places(&cause.to_string());
        if !said.iter().any(|above| above.contains(without_store(&text))) {
            said.push(text);
        }
    }
    for (at, text) in said.iter().enumerate() {
        if at == 0 {
            printer.error(text);
        } else {
            printer.message(format_args!("  caused by: {text}"));
        }
    }
    if let Some(hint) = causes.iter().find_map(|cause| hint(*cause)) {
        printer.hint(hint);
    }
    causes.iter().find_map(|cause| status(*cause)).unwrap_or(ExitStatus::Failed)
}

/// The error and what it came from, without the envelopes that a plan puts around errors of ours.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> Vec<&'e (dyn Error + 'static)> {
    let mut causes = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        // A transparent error is its inner one, and the type of that one is what matters.
        let inner: Option<&(dyn Error + 'static)> = if let Some(error) = error.downcast_ref::<EngineError>() {
            error.inner()
        } else if let Some(PoolError::Model(inner)) = error.downcast_ref() {
            Some(inner)
        } else if let Some(LoadError(inner)) = error.downcast_ref() {
            Some(inner.as_ref())
        } else if let Some(SearchError::Model(inner)) = error.downcast_ref() {
            Some(inner.as_ref())
        } else {
            None
        };
        if inner.is_some() {
            next = inner;
            continue;
        }
        if let Some(error) = error.downcast_ref::<DataFusionError>() {
            let root = error.find_root();
            if let DataFusionError::External(inner) = root {
                next = Some(inner.as_ref());
            } else {
                causes.push(root as &(dyn Error + 'static));
                next = None;
            }
            continue;
        }
        causes.push(error);
        next = error.source();
    }
    causes
}

/// Without the name of the store that an error came through: `object_store` puts it before words that Lance repeats.
fn without_store(text: &str) -> &str {
    text.strip_prefix("Generic ").and_then(|rest| rest.split_once(" error: ")).map_or(text, |(_, words)| words)
}

/// Without the places in Lance's source that its errors carry: they tell a user nothing.
#[expect(clippy::case_sensitive_file_extension_comparisons, reason = "Rust's own sources end so")]
fn without_places(text: &str) -> String {
    let text = &without_attempt(text);
    let is_place = |part: &&str| {
        let mut parts = part.rsplitn(3, ':');
        let mut number =
            || parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        let numbered = number() && number();
        numbered && parts.next().is_some_and(|file| file.ends_with(".rs") && !file.contains(' '))
    };
    text.split(", ").filter(|part| !is_place(part)).collect::<Vec<_>>().join(", ")
}

/// Leaves out how Lance tried to write a local file, with numbers that differ from time to time.
fn without_attempt(text: &str) -> String {
    const STORE: &str = "Generic LocalFileSystem error: ";
    match (text.find("single PUT of "), text.find(STORE)) {
        (Some(attempt), Some(store)) if attempt < store => {
            format!("{}{}", &text[..attempt], &text[store + STORE.len()..])
        }
        _ => text.to_owned(),
    }
}

fn broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe)
        || error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
            == Some(io::ErrorKind::BrokenPipe)
}

/// What to do about an error.
fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<UsageError>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<SourceError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<SinkError>() {
        return Some(sink_hint(error).to_owned());
    }
    if let Some(EngineError::Quarantine { table, .. }) = error.downcast_ref() {
        return Some(format!(
            "what is good is committed; `polylance quarantine list --table {table}` shows what is wrong"
        ));
    }
    if let Some(error) = error.downcast_ref::<ModelError>() {
        return model_hint(error).map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<SearchError>() {
        return search_hint(error).map(str::to_owned);
    }
    error.downcast_ref::<PoolError>().and_then(PoolError::hint).map(str::to_owned)
}

fn sink_hint(error: &SinkError) -> &'static str {
    match error {
        SinkError::ContractMismatch(_) => {
            "vectors of two contracts cannot be compared: write to a new table, or set what differs as the table has it"
        }
        SinkError::SchemaMismatch { .. } => {
            "set `keep` in [source] and `text` in [table] as for the table, or write to a new table; columns that \
             others add to a table must be nullable"
        }
        SinkError::OtherFeatures { .. } => "name another table with --features, or delete this one",
        SinkError::NotATable { .. } | SinkError::NoContract { .. } => "write to an address where nothing is yet",
        SinkError::UnreadableContract { .. } | SinkError::UnreadableHead { .. } | SinkError::LaterTable { .. } => {
            "use the version of polylance that wrote the table"
        }
        SinkError::NoTable { .. } => "`polylance embed` and `polylance run` make tables",
        SinkError::MissingColumn { .. } => {
            "`polylance show` lists the table's columns; texts are there unless `text = false` in [table] left them out"
        }
        SinkError::NotAnAnnotation { .. } => "choose another name for the annotation",
        SinkError::ColumnChanged { .. } => "let one run at a time fill a column, then run again",
        SinkError::Damaged { .. } => {
            "`polylance compact --repair` sets the file aside, after which the version before it is the latest"
        }
        SinkError::Replaced { .. } | SinkError::FilesGone { .. } => {
            "run the same command again: it begins with what is there now"
        }
        SinkError::Clock { .. } => "set the clock of this machine, then clean up",
        SinkError::Conflict { .. } => "run the same command again: it continues from what is committed",
        SinkError::Storage { .. } if error.is_refusal() => polylance_dataflow::REFUSED,
        SinkError::Storage { .. } => {
            "look at space, permissions and credentials, then run again: it continues from what is committed"
        }
        SinkError::Held { .. } => {
            "wait for it, or let runs write side by side with `concurrent = \"merge\"` in [table]; \
             a run that died is forgotten after a minute"
        }
        SinkError::NoLease { .. } => "let runs write side by side with `concurrent = \"merge\"` in [table]",
        SinkError::Ids { .. } => "look at the space in the folder for temporary files (TMPDIR), then run again",
        SinkError::Index { .. } => "the rows are committed; change `kind` or `metric` in [index] and run again",
        SinkError::Rows { .. } => "this is a defect of polylance: please report it",
    }
}

fn model_hint(error: &ModelError) -> Option<&'static str> {
    match error {
        ModelError::NotFound { .. } => {
            Some("a model is `builtin:multilingual-e5-small`, a folder, a .gguf file, or a name on the hub")
        }
        ModelError::Hub { .. } => Some(
            "`builtin:multilingual-e5-small` needs no network; HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured",
        ),
        ModelError::MissingFile { .. } => Some(
            "a model's folder has config.json, tokenizer.json (the fast tokenizer's) and weights, as save_pretrained \
             writes them",
        ),
        ModelError::Damaged { .. } => Some("fetch the file again"),
        ModelError::WrongShape { .. } | ModelError::MissingTensor { .. } => {
            Some("config.json and the weights are not of one model: fetch the folder again")
        }
        _ => None,
    }
}

fn search_hint(error: &SearchError) -> Option<&'static str> {
    match error {
        SearchError::NoTable { .. } => Some("`polylance embed` and `polylance run` make tables"),
        SearchError::NoContract { .. } => Some("`polylance sql` reads any Lance table"),
        SearchError::DuplicateTable(_) => Some("name them: --table first=URI --table second=URI"),
        SearchError::ReadOnly(_) => Some("polylance changes tables with `run` and `embed` only"),
        SearchError::NoTextIndex { .. } => {
            Some("`polylance index words` builds it; --mode vector searches by meaning without it")
        }
        SearchError::Filter { .. } => Some("`polylance show` lists the table's columns"),
        _ => None,
    }
}

/// Which errors are the user's to mend, by changing the command or its configuration.
fn status(error: &(dyn Error + 'static)) -> Option<ExitStatus> {
    let wrong_usage = if error.is::<UsageError>() || error.is::<ConfigError>() {
        true
    } else if let Some(error) = error.downcast_ref::<SourceError>() {
        !matches!(
            error,
            SourceError::Storage { .. }
                | SourceError::Store { .. }
                | SourceError::Changed { .. }
                | SourceError::File { .. }
                | SourceError::Temporary { .. }
        )
    } else if let Some(error) = error.downcast_ref::<SinkError>() {
        matches!(
            error,
            SinkError::ContractMismatch(_)
                | SinkError::SchemaMismatch { .. }
                | SinkError::OtherFeatures { .. }
                | SinkError::NotATable { .. }
                | SinkError::NoContract { .. }
                | SinkError::NoTable { .. }
                | SinkError::MissingColumn { .. }
                | SinkError::NotAnAnnotation { .. }
        )
    } else if let Some(error) = error.downcast_ref::<ModelError>() {
        matches!(
            error,
            ModelError::NotFound { .. }
                | ModelError::MissingFile { .. }
                | ModelError::Config { .. }
                | ModelError::Unsupported { .. }
                | ModelError::Option(_)
        )
    } else if let Some(error) = error.downcast_ref::<SearchError>() {
        !matches!(error, SearchError::Storage { .. } | SearchError::Backend(_) | SearchError::UnreadableContract { .. })
    } else if let Some(error) = error.downcast_ref::<FitError>() {
        matches!(error, FitError::Data(_))
    } else if let Some(error) = error.downcast_ref::<PoolError>() {
        matches!(error, PoolError::Device { .. } | PoolError::Gpu { .. })
    } else {
        return None;
    };
    Some(if wrong_usage { ExitStatus::WrongUsage } else { ExitStatus::Failed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_inside_a_plan_is_found() {
        let inner = SinkError::NoContract { uri: "t.lance".into() };
        let wrapped = anyhow::Error::new(DataFusionError::from(inner).context("while running"));
        let causes = causes(wrapped.as_ref());
        assert!(causes[0].is::<SinkError>());
        assert_eq!(status(causes[0]), Some(ExitStatus::WrongUsage));
        assert!(hint(causes[0]).is_some());
    }

    #[test]
    fn places_in_the_source_are_left_out() {
        let text = "no field named x, y., /registry/lance-14.0.2/src/scanner.rs:839:33";
        assert_eq!(without_places(text), "no field named x, y.");
        for text in ["a, b", "see job.rs:3", "docs.lance: 12:30:00, later", ""] {
            assert_eq!(without_places(text), text);
        }
    }

    #[test]
    fn a_transparent_envelope_is_seen_through() {
        let error = anyhow::Error::new(PoolError::from(ModelError::Option("dims is 9".into())));
        let causes = causes(error.as_ref());
        assert!(causes[0].is::<ModelError>());
    }
}
