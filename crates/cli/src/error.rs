//! From any error to what the user reads, and to the exit code.

use std::{error::Error, io};

pub(crate) use polylance_engine::UsageError;
use polylance_engine::{causes, damage_behind, explain};
use polylance_schema::ErrorClass;

use crate::{exit::ExitStatus, interrupt::Interrupted, output::Printer};

pub(crate) type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// The same error, or what is behind it: a table that cannot be opened because its newest version is damaged.
pub(crate) async fn with_damage(error: anyhow::Error) -> anyhow::Error {
    damage_behind(error.as_ref()).await.map_or(error, Into::into)
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
    let explained = explain(error.as_ref());
    for (at, text) in explained.messages.iter().enumerate() {
        if at == 0 {
            printer.error(text);
        } else {
            printer.message(format_args!("  caused by: {text}"));
        }
    }
    if let Some(hint) = explained.hint {
        printer.hint(hint);
    }
    match explained.class {
        Some(ErrorClass::User) => ExitStatus::WrongUsage,
        Some(ErrorClass::Environment | ErrorClass::Internal) | None => ExitStatus::Failed,
    }
}

fn broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let is_broken_pipe = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<io::Error>().is_some_and(is_broken_pipe)
        || error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind)
            == Some(io::ErrorKind::BrokenPipe)
}
