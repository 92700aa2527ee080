//! From any error to messages for the user, and to the exit code.

use std::{error::Error, io};

use polylance_engine::{causes, explain};
use polylance_schema::ErrorClass;

use crate::{exit::ExitStatus, output::Printer, shutdown::Interrupted};

/// Prints the error, its causes and what to do about it.
pub(crate) fn report(error: &anyhow::Error, printer: &mut Printer) -> ExitStatus {
    let causes = causes(error.as_ref());
    if causes.iter().any(|cause| broken_pipe(*cause)) {
        // The reader of stdout has closed it: it needs no more.
        return ExitStatus::Done;
    }
    if let Some(Interrupted { resumable }) = causes.iter().find_map(|cause| cause.downcast_ref()) {
        printer.message("interrupted");
        if *resumable {
            printer.hint("committed rows stay in the table, and the same command continues from there");
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
