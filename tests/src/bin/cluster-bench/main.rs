//! Measures clusters and shards of simulated devices with processes on this machine, and prints tables.
//!
//! A device sleeps for a fixed time per token, so that many of them fit on a few cores. What remains is what a cluster
//! costs: the scheduler, the messages, the store, the commits. At the end, the built-in model computes.
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

mod model;

use std::{
    fs,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use polylance_tests::{
    Process, Row, S3Server, binary_path, free_port, start_scheduler, wait_for_executors, wait_until, write_row_groups,
};
use serde_json::Value;
use tempfile::TempDir;

/// Words of a row's text, and the tokens before and after them.
const TOKENS_PER_ROW: usize = 10;
const ROWS_PER_SPLIT: usize = 100;
const SPLITS_PER_FILE: usize = 20;
/// Splits without device time, and rows of one.
const TINY_SPLITS: usize = 400;
const TINY_SPLITS_S3: usize = 40;
const ROWS_PER_TINY_SPLIT: usize = 10;
/// Executors, and splits for each as multiples of `--splits`.
const EXECUTORS: [(usize, usize); 4] = [(1, 1), (2, 1), (4, 1), (8, 2)];
const SHARDS: usize = 8;
/// Splits that an executor has in work at the same time.
const SLOTS: usize = 2;
/// Rows of a commit of a shard: all shards commit at about the same times, which is the worst case.
const ROWS_PER_COMMIT: usize = 500;
/// Interval at which results are looked for after a kill.
const LOOK: Duration = Duration::from_millis(5);
/// Splits of the run whose memory is measured, and rows of its commits.
const MEMORY_SPLITS: usize = 1000;
const MEMORY_ROWS_PER_COMMIT: &str = "100000";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Splits without device time, on a local disk and on an S3 server
    Overhead,
    /// One to eight executors
    Executors,
    /// From the kill of an executor to the result of its split elsewhere
    Kill,
    /// Eight shards at once
    Shards,
    /// The memory of a run with many documents
    Memory,
    /// The built-in model with a core for each executor, instead of simulated devices
    Model,
}

#[derive(Debug, Parser)]
struct Args {
    /// What to measure; everything by default
    parts: Vec<Part>,
    /// Seconds that a device takes for a split
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Splits for each executor
    #[arg(long, default_value_t = 25)]
    splits: usize,
    /// Documents of the run whose memory is measured
    #[arg(long, default_value_t = 1_000_000)]
    documents: usize,
}

fn main() {
    let args = Args::parse();
    let parts = if args.parts.is_empty() { Part::value_variants().to_vec() } else { args.parts };
    let tokens_per_split = (ROWS_PER_SPLIT * TOKENS_PER_ROW) as f64;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bench = Bench { folder, pace: (args.seconds * 1e6 / tokens_per_split) as u64, splits: args.splits };
    for part in parts {
        match part {
            Part::Overhead => bench.overhead(),
            Part::Executors => bench.executors(),
            Part::Kill => bench.kill(),
            Part::Shards => bench.shards(),
            Part::Memory => bench.memory(args.documents),
            Part::Model => model::measure(bench.folder.path()),
        }
    }
}

struct Bench {
    folder: TempDir,
    /// Microseconds per token.
    pace: u64,
    splits: usize,
}

/// A scheduler and its executors.
struct Cluster {
    url: String,
    executors: Vec<Process>,
    _scheduler: Process,
}

impl Cluster {
    fn start(executors: usize, pace: u64, variables: &[(&str, &str)]) -> Self {
        let (scheduler, url) = start_scheduler("127.0.0.1:0");
        let start = |_| {
            let mut command = Command::new(binary_path("fake-executor"));
            command.args([&url, "--port", &free_port().to_string(), "--pace", &pace.to_string()]);
            command.envs(variables.iter().copied());
            Process::start(command)
        };
        let executors: Vec<Process> = (0..executors).map(start).collect();
        wait_for_executors(&url, executors.len());
        Self { url, executors, _scheduler: scheduler }
    }
}

/// A run that ended.
struct Run {
    /// From the start of its process to the end.
    seconds: f64,
    summary: Value,
}

impl Run {
    fn number(&self, name: &str) -> f64 {
        self.summary[name].as_f64().expect("a number of the summary")
    }

    /// Seconds before, during and after the embedding.
    fn stage(&self, stage: usize) -> f64 {
        self.summary["stages"][stage].as_f64().unwrap_or_default()
    }
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes documents into a folder, a row group for each split.
    fn corpus(&self, name: &str, splits: usize, rows_per_split: usize) -> String {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("a writable folder");
        for first in (0..splits).step_by(SPLITS_PER_FILE) {
            let rows = first * rows_per_split..splits.min(first + SPLITS_PER_FILE) * rows_per_split;
            let rows =
                rows.map(|n| Row::new(format!("d{n}"), format!("document {n} has words for exactly ten tokens")));
            write_row_groups(&folder.join(format!("{first:05}.parquet")), &rows.collect::<Vec<_>>(), rows_per_split);
        }
        folder.display().to_string()
    }

    fn driver(source: &str, table: &str) -> Command {
        let mut command = Command::new(binary_path("fake-driver"));
        command.args([source, table]);
        command
    }

    fn device_seconds(&self, run: &Run) -> f64 {
        run.number("tokens") * self.pace as f64 / 1e6
    }

    fn overhead(&self) {
        println!("\n| splits without device time | splits | seconds | milliseconds per split |\n|---|---|---|---|");
        let report = |name: &str, splits: usize, run: &Run| {
            let each = run.stage(1) * 1000.0 / splits as f64;
            println!("| {name} | {splits} | {:.1} | {each:.0} |", run.stage(1));
        };
        let source = self.corpus("tiny", TINY_SPLITS, ROWS_PER_TINY_SPLIT);
        let cluster = Cluster::start(1, 0, &[]);
        let run = on_cluster(Self::driver(&source, &self.path("tiny.lance")), &cluster.url);
        report("local disk", TINY_SPLITS, &run);
        drop(cluster);

        let server = S3Server::start("bench");
        let source = self.corpus("few", TINY_SPLITS_S3, ROWS_PER_TINY_SPLIT);
        for file in fs::read_dir(source).expect("a folder").map(|file| file.expect("a file").path()) {
            let name = file.file_name().expect("a file has a name").to_string_lossy().into_owned();
            server.upload(&file, &format!("docs/{name}"));
        }
        let cluster = Cluster::start(1, 0, &server.variables());
        let mut driver = Self::driver("s3://bench/docs/", "s3://bench/docs.lance");
        driver.envs(server.variables());
        report("S3 server of the tests", TINY_SPLITS_S3, &on_cluster(driver, &cluster.url));
    }

    fn executors(&self) {
        println!(
            "\n| executors | splits | device time, s | run, s | of linear | embedding alone | compared with one executor |"
        );
        println!("|---|---|---|---|---|---|---|");
        let (mut one, mut last) = (None, None);
        for (executors, times) in EXECUTORS {
            let splits = executors * times * self.splits;
            let source = self.corpus(&format!("for-{executors}"), splits, ROWS_PER_SPLIT);
            let cluster = Cluster::start(executors, self.pace, &[]);
            let table = self.path(&format!("{executors}.lance"));
            let run = on_cluster(Self::driver(&source, &table), &cluster.url);
            let device = self.device_seconds(&run);
            let ideal = device / executors as f64;
            let (speed, alone) = (ideal / run.seconds, ideal / run.stage(1));
            let relative = speed / *one.get_or_insert(speed);
            let seconds = run.seconds;
            println!(
                "| {executors} | {splits} | {device:.0} | {seconds:.1} | {speed:.3} | {alone:.3} | {relative:.3} |"
            );
            last = Some((executors, run));
        }
        if let Some((executors, run)) = last {
            self.serial_share(executors, &run);
        }
    }

    /// What of a run does not get shorter with more executors, and the limit that follows from it.
    fn serial_share(&self, executors: usize, run: &Run) {
        let device = self.device_seconds(run);
        let embedding = run.stage(1) - device / executors as f64;
        println!("\n| seconds of the run with {executors} executors that more of them do not shorten | |\n|---|---|");
        println!("| before the embedding: listing, opening the table, planning | {:.2} |", run.stage(0));
        println!("| during it: cutting, first and last splits, first and last commit | {embedding:.2} |");
        println!("| after it: index, maintenance | {:.2} |", run.stage(2));
        let serial = run.seconds - device / executors as f64;
        println!("| all, with the start of the process | {serial:.2} |");
        println!("| share of a run with one executor | {:.4} |", serial / (serial + device));
        println!("\n| executors | speed by Amdahl's law | of linear |\n|---|---|---|");
        for executors in [1, 2, 4, 8, 16, 32, 64] {
            let speed = (serial + device) / (serial + device / f64::from(executors));
            println!("| {executors} | {speed:.1} | {:.3} |", speed / f64::from(executors));
        }
    }

    fn kill(&self) {
        let splits = self.splits;
        let source = self.corpus("killed", splits, ROWS_PER_SPLIT);
        let mut cluster = Cluster::start(2, self.pace, &[]);
        let started = Instant::now();
        let driver = Self::driver(&source, &self.path("killed.lance"));
        let run = thread::scope(|scope| {
            let url = cluster.url.clone();
            let run = scope.spawn(move || on_cluster(driver, &url));
            let outbox = self.folder.path().join("killed.outbox");
            wait_until("second result", || results(&outbox).iter().any(|split| *split >= 1));
            let killed = cluster.executors.pop().expect("two executors");
            killed.signal("-KILL");
            let (kill, before) = (Instant::now(), started.elapsed().as_secs_f64());
            // Splits are dealt in order, so these were in work on both executors. Results go when they are committed.
            let mut seen = results(&outbox);
            let in_work: Vec<usize> = (0..splits).filter(|split| !seen.contains(split)).take(SLOTS * 2).collect();
            while !in_work.iter().all(|split| seen.contains(split)) && !run.is_finished() {
                thread::sleep(LOOK);
                seen.extend(results(&outbox));
            }
            let elsewhere = kill.elapsed().as_secs_f64();
            let run = run.join().expect("the run ends");
            let ideal = before + (self.device_seconds(&run) - before * 2.0).max(0.0);
            println!("\n| one of two executors is killed | seconds |\n|---|---|");
            println!("| from the kill to the results of all splits that were in work | {elsewhere:.1} |");
            println!("| the run | {:.1} |", run.seconds);
            println!("| without repeated work and waiting | {ideal:.1} |");
            run
        });
        assert_eq!(run.number("rows_written") as usize, splits * ROWS_PER_SPLIT);
    }

    fn shards(&self) {
        let splits = SHARDS * self.splits;
        let source = self.corpus("shards", splits, ROWS_PER_SPLIT);
        let (pace, rows) = (self.pace.to_string(), ROWS_PER_COMMIT.to_string());
        let options = ["--pace", &pace, "--rows-per-commit", &rows];
        let one = self.corpus("shard", self.splits, ROWS_PER_SPLIT);
        let mut driver = Self::driver(&one, &self.path("shard.lance"));
        driver.args(options);
        let one = run(driver);
        let table = self.path("shards.lance");
        let started = Instant::now();
        let shards: Vec<Run> = thread::scope(|scope| {
            let shard = |index: usize| {
                let mut driver = Self::driver(&source, &table);
                driver.args(options).args(["--shard", &format!("{index}/{SHARDS}")]);
                scope.spawn(|| run(driver))
            };
            let shards: Vec<_> = (0..SHARDS).map(shard).collect();
            shards.into_iter().map(|shard| shard.join().expect("the shard ends")).collect()
        });
        let seconds = started.elapsed().as_secs_f64();
        let mut closing = Self::driver(&source, &table);
        closing.args(options);
        let closing = run(closing);
        let total = |name: &str| shards.iter().map(|shard| shard.number(name)).sum::<f64>();
        let device = shards.iter().map(|shard| self.device_seconds(shard)).sum::<f64>();
        let speed = device / seconds / SHARDS as f64;
        let relative = speed / (self.device_seconds(&one) / one.seconds);
        let (commits, refused) = (total("commits"), total("commits_refused"));
        println!("\n| {SHARDS} shards at once | |\n|---|---|");
        println!("| device time, s | {device:.0} |\n| until the last one ends, s | {seconds:.1} |");
        println!("| of linear | {speed:.3} |\n| compared with one process | {relative:.3} |");
        println!("| commits | {commits} |\n| refused, because another shard committed first | {refused} |");
        println!("| closing run, s | {:.1} |", closing.seconds);
        assert_eq!(total("rows_written") as usize, splits * ROWS_PER_SPLIT);
    }

    fn memory(&self, documents: usize) {
        let rows_per_split = documents.div_ceil(MEMORY_SPLITS);
        let source = self.corpus("many", MEMORY_SPLITS, rows_per_split);
        let driver = |table: &str| {
            let mut driver = Self::driver(&source, &self.path(table));
            driver.args(["--without-index", "--rows-per-commit", MEMORY_ROWS_PER_COMMIT]);
            driver
        };
        let local = run(driver("many-local.lance"));
        let cluster = Cluster::start(1, 0, &[]);
        let on_cluster = on_cluster(driver("many.lance"), &cluster.url);
        println!("\n| documents | {MEMORY_SPLITS} splits, seconds | peak memory, MB |\n|---|---|---|");
        for (name, run) in [("local", local), ("on a cluster of one executor", on_cluster)] {
            let (rows, memory) = (run.number("rows_written"), run.number("peak_memory") / 1e6);
            assert_eq!(rows as usize, rows_per_split * MEMORY_SPLITS);
            println!("| {rows}, {name} | {:.0} | {memory:.0} |", run.seconds);
        }
    }
}

fn on_cluster(mut driver: Command, url: &str) -> Run {
    driver.args(["--cluster", url]);
    run(driver)
}

fn run(driver: Command) -> Run {
    let started = Instant::now();
    let (code, stdout, stderr) = Process::start(driver).ended();
    assert_eq!(code, Some(0), "{stderr}");
    let seconds = started.elapsed().as_secs_f64();
    Run { seconds, summary: serde_json::from_str(&stdout).expect("a run prints its summary") }
}

/// The splits with a result in an outbox.
fn results(outbox: &Path) -> Vec<usize> {
    let Ok(entries) = fs::read_dir(outbox) else { return Vec::new() };
    let split = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".arrow")?.split_once('-')?.0.parse().ok();
    let below = entries.map_while(Result::ok).flat_map(|entry| {
        let path = entry.path();
        if path.is_dir() { results(&path) } else { split(&path).into_iter().collect() }
    });
    below.collect()
}
