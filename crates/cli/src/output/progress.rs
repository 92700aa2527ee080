//! Progress of a run on stderr: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use polylance_backend::Load;
use polylance_engine::{Observer, SourceProgress, Stage};

use super::printer::{Printer, thousands};
use crate::args::ProgressMode;

/// Time between plain lines: the log of a long run stays readable.
pub(super) const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The observer for a mode.
pub(crate) fn observer(mode: ProgressMode) -> Box<dyn Observer> {
    match mode {
        ProgressMode::None => Box::new(()),
        ProgressMode::Auto if stderr().is_terminal() => Box::new(Bar::new()),
        ProgressMode::Auto | ProgressMode::Plain => Box::new(Plain::new()),
    }
}

/// Rate, queue and remaining time of a run.
#[derive(Debug)]
struct Pace {
    started: Instant,
    committed: u64,
    load: Load,
}

impl Pace {
    fn new() -> Self {
        Self { started: Instant::now(), committed: 0, load: Load::default() }
    }

    fn text(&self, progress: &SourceProgress) -> String {
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = (progress.tokens_encoded as f64 / seconds.max(0.001)).round() as u64;
        let left = remaining(progress, seconds).map(|left| format!(", {} left", HumanDuration(left)));
        format!(
            "{} rows read, {} unchanged, {} committed, {} tok/s{}{}",
            thousands(progress.rows_read),
            thousands(progress.rows_skipped),
            thousands(self.committed),
            thousands(rate),
            queue(&self.load),
            left.unwrap_or_default()
        )
    }
}

/// How full the device queues are; empty before there are any.
fn queue(load: &Load) -> String {
    let n = |tokens: usize| thousands(tokens as u64);
    match load.capacity_tokens {
        0 => String::new(),
        capacity => format!(", queue {} of {} tokens", n(load.tokens()), n(capacity)),
    }
}

/// The time left, extrapolated from the share of bytes read; `None` while that share is too small.
fn remaining(progress: &SourceProgress, seconds: f64) -> Option<Duration> {
    let share = progress.bytes_read as f64 / progress.bytes_total.max(1) as f64;
    let known = seconds > 1.0 && share > 0.01 && share < 1.0;
    known.then(|| Duration::from_secs_f64(seconds * (1.0 - share) / share))
}

struct Bar {
    bar: ProgressBar,
    pace: Pace,
}

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, pace: Pace::new() }
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("━╸ "));
        }
    }
}

impl Observer for Bar {
    fn stage(&mut self, stage: Stage) {
        match stage {
            Stage::Embedding => self.style("{bar:24.cyan} {bytes}/{total_bytes} {wide_msg}"),
            Stage::Indexing => {
                self.style("{spinner} {wide_msg}");
                self.bar.set_message("updating the index");
                self.bar.enable_steady_tick(Duration::from_millis(100));
            }
        }
    }

    fn progress(&mut self, progress: &SourceProgress) {
        self.bar.set_length(progress.bytes_total);
        self.bar.set_position(progress.bytes_read);
        self.bar.set_message(self.pace.text(progress));
    }

    fn load(&mut self, load: &Load) {
        self.pace.load = *load;
    }

    fn committed(&mut self, documents: u64) {
        self.pace.committed = documents;
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

struct Plain {
    printer: Printer,
    pace: Pace,
    last: Instant,
}

impl Plain {
    fn new() -> Self {
        Self { printer: Printer::new(), pace: Pace::new(), last: Instant::now() }
    }
}

impl Observer for Plain {
    fn progress(&mut self, progress: &SourceProgress) {
        if self.last.elapsed() >= LINE_INTERVAL {
            self.last = Instant::now();
            let percent = progress.bytes_read * 100 / progress.bytes_total.max(1);
            self.printer.message(format_args!("{percent:3} %  {}", self.pace.text(progress)));
        }
    }

    fn load(&mut self, load: &Load) {
        self.pace.load = *load;
    }

    fn committed(&mut self, documents: u64) {
        self.pace.committed = documents;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_follows_the_share_of_bytes() {
        let progress = |bytes_read| SourceProgress { bytes_read, bytes_total: 1000, ..SourceProgress::default() };
        assert_eq!(remaining(&progress(250), 10.0), Some(Duration::from_secs(30)));
        assert_eq!(remaining(&progress(250), 0.5), None);
        assert_eq!(remaining(&progress(1), 10.0), None);
        assert_eq!(remaining(&progress(1000), 10.0), None);
        assert_eq!(remaining(&SourceProgress::default(), 10.0), None);
    }

    #[test]
    fn queue_is_shown_once_it_exists() {
        assert_eq!(queue(&Load::default()), "");
        let load = Load { queued_tokens: 12_000, running_tokens: 288, capacity_tokens: 24_576, ..Load::default() };
        assert_eq!(queue(&load), ", queue 12,288 of 24,576 tokens");
    }
}
