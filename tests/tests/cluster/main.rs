//! A cluster of processes on loopback: scheduler, executors and runs. Whatever is killed, the table is that of a local
//! run, row for row and in its order.

mod documents;
mod faults;
mod networks;
mod refused;
mod runs;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use arrow::array::ArrayRef;
use polylance_sink::quarantine_uri;
use polylance_tests::{
    Outcome, Process, TinyModel, free_port, polylance_command, polylance_with, read_table, start_scheduler, wait_until,
};
use serde_json::Value;

const FILES: usize = 40;
const ROWS_PER_FILE: usize = 50;
const COLUMNS: [&str; 7] = ["doc_id", "chunk", "char_start", "char_end", "text", "n_tokens", "embedding"];
const QUARANTINE_COLUMNS: [&str; 5] = ["source", "row", "doc_id", "stage", "error"];

/// A corpus of many files, a model, and the processes of a cluster.
struct Cluster {
    folder: tempfile::TempDir,
    url: String,
    scheduler: Process,
}

impl Cluster {
    fn start() -> Self {
        let (scheduler, url) = start_scheduler("127.0.0.1:0");
        Self::of_scheduler(scheduler, url)
    }

    fn of_scheduler(scheduler: Process, url: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::Whole.write(&folder.path().join("tiny"));
        fs::create_dir(folder.path().join("docs")).unwrap();
        let cluster = Self { folder, url, scheduler };
        for file in 0..FILES {
            let row = |at: usize| {
                let id = file * ROWS_PER_FILE + at;
                let text = ["cat and dot", "a test is done", "see it on tin"][id % 3].repeat(1 + id % 5);
                format!("{{\"id\":\"d{id}\",\"text\":\"{text}\"}}")
            };
            let lines: Vec<String> = (0..ROWS_PER_FILE).map(row).collect();
            cluster.write(&format!("{file:03}.jsonl"), &lines.join("\n"));
        }
        // Its first row has an id of the first file.
        cluster.write("999.jsonl", "{\"id\":\"d7\",\"text\":\"again\"}\n{\"id\":\"z\",\"text\":\"the end\"}\n");
        cluster
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a file of the source.
    fn write(&self, name: &str, lines: &str) {
        let path = self.folder.path().join("docs").join(name);
        fs::write(&path, lines).unwrap();
        // A change of a file that was written just now may not show.
        let file = File::options().append(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    }

    /// Writes a pipeline into a table with this model, and returns its path.
    fn pipeline(&self, table: &str, model: &str) -> String {
        let pipeline = format!(
            "version = 1\n[source]\nuri = {:?}\n[model]\nid = {model:?}\ndtype = \"f32\"\ndevices = [\"cpu:0\"]\n\
             [table]\nuri = {:?}\n[table.commit]\nrows = 200\n[index]\nkind = \"none\"\n\
             [cluster]\nsplit = \"2 KiB\"\nshared_files = true\n",
            self.path("docs"),
            self.path(table),
        );
        let path = self.path(&format!("{table}.toml"));
        fs::write(&path, pipeline).unwrap();
        path
    }

    fn executor(&self) -> Process {
        self.executor_in(self.folder.path())
    }

    fn executor_in(&self, folder: &Path) -> Process {
        Process::start(self.executor_command(folder, free_port()))
    }

    fn executor_command(&self, folder: &Path, port: u16) -> Command {
        let mut command = polylance_command();
        command.args(["executor", "--scheduler", &self.url, "--bind", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--advertise", "127.0.0.1", "--devices", "cpu:0"]).current_dir(folder);
        command
    }

    fn local(&self, table: &str) -> Outcome {
        let pipeline = self.pipeline(table, &self.path("tiny"));
        polylance_with(&["run", &pipeline, "--json"], &[], b"").exits_with(3)
    }

    fn run_command(&self, pipeline: &str) -> Command {
        let mut command = polylance_command();
        command.args(["run", pipeline, "--cluster", &self.url, "--json"]).current_dir(self.folder.path());
        command
    }

    /// Waits until this many executors are registered.
    fn wait_for_executors(&self, count: usize) {
        polylance_tests::wait_for_executors(&self.url, count);
    }

    /// The state of the cluster, as its scheduler returns it.
    fn status(&self) -> Value {
        polylance_with(&["cluster", &self.url, "--json"], &[], b"").exits_with(0).json()
    }

    /// Waits until a table has data files: splits are in work, and some are done.
    fn wait_for_rows(&self, table: &str) {
        let table = self.folder.path().join(table);
        wait_until("data files", || has_file(&table));
    }

    /// Starts a run into a table.
    fn run_into(&self, table: &str) -> Process {
        let pipeline = self.pipeline(table, &self.path("tiny"));
        Process::start(self.run_command(&pipeline))
    }

    /// Fails unless a table has the rows of `local.lance` in their order, and its quarantine.
    fn expect_local(&self, table: &str) {
        assert_eq!(self.rows(table), self.rows("local.lance"));
        assert_eq!(self.quarantine(table), self.quarantine("local.lance"));
    }

    /// The rows of a table in their order. The metadata of two tables differ.
    fn rows(&self, table: &str) -> Vec<ArrayRef> {
        read_table(&self.path(table), &COLUMNS).columns().to_vec()
    }

    /// The rows of the quarantine of a table in their order.
    fn quarantine(&self, table: &str) -> Vec<ArrayRef> {
        read_table(&quarantine_uri(&self.path(table)), &QUARANTINE_COLUMNS).columns().to_vec()
    }
}

fn has_file(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map_while(Result::ok).any(|entry| if entry.path().is_dir() { has_file(&entry.path()) } else { true })
}

/// Waits for the end of a run that has refused rows, and returns its summary. `supervise` is called meanwhile: an
/// executor that was given up ends itself, and is started again by whatever supervises it.
fn finished(mut run: Process, mut supervise: impl FnMut()) -> Value {
    wait_until("end of the run", || {
        supervise();
        run.has_ended()
    });
    summary(run.ended())
}

/// The summary of a run that ended with refused rows.
fn summary((code, stdout, stderr): (Option<i32>, String, String)) -> Value {
    assert_eq!(code, Some(3), "{stdout}\n{stderr}");
    serde_json::from_str(&stdout).unwrap()
}
