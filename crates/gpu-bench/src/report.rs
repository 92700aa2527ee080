//! The results of a step: lines for people, JSON for the report, and a watchdog for a device that hangs.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::{
    env, fmt,
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

/// The results and the progress of one step.
#[derive(Debug)]
pub(crate) struct Report {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    step: &'static str,
    json: Option<PathBuf>,
    started: Instant,
    facts: Map<String, Value>,
    failures: Vec<String>,
    last_progress: Instant,
    /// The current activity, for the message of the watchdog.
    doing: String,
    finished: bool,
}

impl Report {
    /// Starts the step and its watchdog. Without progress for `patience` the process aborts, because a thread that
    /// waits for a hanging device cannot be ended otherwise.
    pub(crate) fn start(step: &'static str, json: Option<PathBuf>, patience: Duration) -> Self {
        let now = Instant::now();
        let state = State {
            step,
            json,
            started: now,
            facts: Map::new(),
            failures: Vec::new(),
            last_progress: now,
            doing: "starting".to_owned(),
            finished: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let watched = Arc::clone(&shared);
        thread::spawn(move || watched.watch(patience));
        Self { shared }
    }

    /// Sets the current activity.
    pub(crate) fn doing(&self, what: impl fmt::Display) {
        let mut state = self.state();
        state.doing = what.to_string();
        state.last_progress = Instant::now();
    }

    /// Reports progress of the device.
    pub(crate) fn progress(&self) {
        self.state().last_progress = Instant::now();
    }

    /// Records a fact without a requirement.
    pub(crate) fn record(&self, name: &str, text: impl fmt::Display, value: impl Into<Value>) {
        println!("  {name:<44} {text}");
        let mut state = self.state();
        state.facts.insert(name.to_owned(), value.into());
        state.last_progress = Instant::now();
    }

    /// Records a fact that must hold.
    pub(crate) fn check(&self, name: &str, holds: bool, text: impl fmt::Display, value: impl Into<Value>) {
        println!("  {name:<44} {} {text}", if holds { "ok  " } else { "FAIL" });
        let mut state = self.state();
        state.facts.insert(name.to_owned(), value.into());
        state.last_progress = Instant::now();
        if !holds {
            state.failures.push(format!("{name}: {text}"));
        }
    }

    /// Records an error that ended the step.
    pub(crate) fn fail(&self, reason: &str) {
        println!("  FAIL {reason}");
        self.state().failures.push(reason.to_owned());
    }

    /// Ends the step, and returns whether all checks passed.
    pub(crate) fn finish(&self) -> bool {
        let mut state = self.state();
        state.finished = true;
        let passed = state.failures.is_empty();
        let seconds = state.started.elapsed().as_secs_f64();
        println!("{} {} in {seconds:.1} s", state.step, if passed { "passed" } else { "FAILED" });
        state.write();
        drop(state);
        self.shared.changed.notify_all();
        passed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, patience: Duration) {
        let mut state = self.lock();
        while !state.finished {
            let idle = state.last_progress.elapsed();
            let Some(left) = patience.checked_sub(idle).filter(|left| !left.is_zero()) else {
                let reason = format!("no progress for {:.0} s while {}", idle.as_secs_f64(), state.doing);
                eprintln!("{}: {reason}: aborted", state.step);
                state.failures.push(reason);
                state.write();
                process::abort();
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Appends the step to the file of results.
    fn write(&self) {
        let Some(path) = &self.json else { return };
        let line = json!({
            "step": self.step,
            "arguments": env::args().skip(1).collect::<Vec<_>>(),
            "passed": self.failures.is_empty(),
            "seconds": self.started.elapsed().as_secs_f64(),
            "failures": self.failures,
            "facts": self.facts,
        });
        let append = || -> io::Result<()> {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            file.write_all(format!("{line}\n").as_bytes())
        };
        if let Err(error) = append() {
            eprintln!("{}: {error}", path.display());
        }
    }
}
