//! Progress of reading standard input, before a run knows its documents.

use std::{
    io::{IsTerminal, stderr},
    pin::pin,
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget};
use polylance_dataflow::stdin_bytes;

use super::{printer::Printer, progress::LINE_INTERVAL};
use crate::args::ProgressMode;

/// Time between two looks at the bytes that were read.
const INTERVAL: Duration = Duration::from_millis(200);

/// Waits for a source to open. If that is standard input, shows how much of it was read.
pub(crate) async fn while_opening<T>(mode: ProgressMode, open: impl Future<Output = T>) -> T {
    let mut shown = match mode {
        ProgressMode::None => return open.await,
        ProgressMode::Auto if stderr().is_terminal() => Shown::Bar(None),
        ProgressMode::Auto | ProgressMode::Plain => Shown::Lines { printer: Printer::new(), last: Instant::now() },
    };
    let mut open = pin!(open);
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            opened = &mut open => return opened,
            _ = ticks.tick() => shown.update(stdin_bytes()),
        }
    }
}

enum Shown {
    /// A line on a terminal, from the first byte on.
    Bar(Option<ProgressBar>),
    Lines {
        printer: Printer,
        last: Instant,
    },
}

impl Shown {
    fn update(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let message = format!("reading standard input: {}", HumanBytes(bytes));
        match self {
            Self::Bar(bar) => {
                let new = || {
                    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                    bar.with_style(indicatif::ProgressStyle::default_spinner())
                };
                let bar = bar.get_or_insert_with(new);
                bar.set_message(message);
                bar.tick();
            }
            Self::Lines { printer, last } if last.elapsed() >= LINE_INTERVAL => {
                *last = Instant::now();
                printer.message(message);
            }
            Self::Lines { .. } => {}
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Self::Bar(Some(bar)) = self {
            bar.finish_and_clear();
        }
    }
}
