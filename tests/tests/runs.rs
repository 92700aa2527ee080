//! Runs besides embedding: the quarantine, deleted documents, the lease and shutdown signals.

use std::{
    fmt::Write,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use polylance_tests::{
    Outcome, S3Server, TinyModel, fake_job, polylance, polylance_command, polylance_with, read_table, repository,
    strings, write_fake_corpus,
};

/// A folder with a model, and a pipeline from `docs.jsonl` to `docs.lance` in it.
struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        TinyModel::Whole.write(&folder.path().join("model"));
        let (source, model, table) = (at("docs.jsonl"), at("model"), at("docs.lance"));
        let toml = format!(
            "version = 1\nsource.uri = {source:?}\nmodel.id = {model:?}\nmodel.devices = [\"cpu\"]\ntable.uri = {table:?}\n{more}"
        );
        fs::write(at("job.toml"), toml).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Writes the corpus: one line per text, with the ids `d0`, `d1`, ….
    fn write<'a>(&self, texts: impl IntoIterator<Item = (usize, &'a str)>) {
        let mut lines = String::new();
        for (number, text) in texts {
            writeln!(lines, "{}", serde_json::json!({"id": format!("d{number}"), "text": text})).unwrap();
        }
        fs::write(self.path("docs.jsonl"), lines).unwrap();
    }

    fn run(&self, more: &[&str]) -> Outcome {
        let pipeline = self.text("job.toml");
        polylance(&[&["run", &pipeline, "--json", "--progress", "none"], more].concat())
    }

    /// Starts a run without waiting for it.
    fn start(&self) -> Child {
        let mut command = polylance_command();
        command.args(["run", &self.text("job.toml"), "--json", "--progress", "none"]).current_dir(repository());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn documents(&self) -> Vec<String> {
        let mut ids = strings(&read_table(&self.text("docs.lance"), &["doc_id"]), "doc_id");
        ids.sort();
        ids.dedup();
        ids
    }

    /// Waits until a run has committed something.
    fn wait_for_commit(&self, run: &mut Child) {
        while fs::read_dir(self.path("docs.lance/_versions")).map_or(0, Iterator::count) < 2 {
            assert!(run.try_wait().unwrap().is_none(), "the run ended before it committed");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn signal(name: &str, process: u32) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

const LONG: &str = "cat dot tin arc nest cat dot tin arc nest cat dot tin arc nest cat dot tin arc nest";

#[test]
fn quarantined_rows_are_listed_replayed_and_dropped() {
    let job = Job::new("source.max_bytes = 64\n");
    job.write([(0, "cat"), (1, LONG), (2, ""), (3, "dot")]);
    assert_eq!(job.run(&[]).exits_with(3).json()["rows_quarantined"], 2);

    let table = job.text("docs.lance");
    let list = |more: &[&str]| polylance(&[&["quarantine", "list", "--table", &table], more].concat()).exits_with(0);
    let listed = list(&["--json"]).stdout;
    let rows: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let keys: Vec<_> = rows.iter().map(|row| (row["doc_id"].as_str().unwrap(), row["row"].as_u64().unwrap())).collect();
    assert_eq!(keys, [("d1", 1), ("d2", 2)]);
    assert!(list(&[]).stdout.contains("d1"));
    assert!(list(&["--stage", "encode", "--json"]).stdout.is_empty());

    // Only quarantined rows are retried, no new document.
    job.write([(0, "cat"), (1, LONG), (2, ""), (3, "dot"), (4, "tin")]);
    let pipeline = job.text("job.toml");
    let replay = ["quarantine", "replay", &pipeline, "--set", "source.max_bytes=4096", "--json", "--progress", "none"];
    let summary = polylance(&replay).exits_with(3).json();
    assert_eq!((&summary["rows_written"], &summary["rows_quarantined"]), (&1.into(), &1.into()));
    assert_eq!(job.documents(), ["d0", "d1", "d3"]);

    let remove = ["quarantine", "drop", "--table", &table, "--id", "d2"];
    drop(polylance(&remove).exits_with(2).stderr_contains(&["no terminal to ask", "--yes"]));
    let dropped = polylance(&[&remove[..], &["--yes", "--json"]].concat()).exits_with(0).json();
    assert_eq!(dropped["dropped"], 1);
    assert!(list(&["--json"]).stdout.is_empty());
    drop(
        polylance(&["quarantine", "list", "--table", "nothing.lance"])
            .exits_with(2)
            .stderr_contains(&["no table at nothing.lance"]),
    );
}

#[test]
fn missing_documents_are_kept_or_deleted_as_configured() {
    let job = Job::new("source.max_bytes = 64\n");
    job.write((0..10).map(|n| (n, "cat dot")));
    drop(job.run(&[]).exits_with(0));
    job.write((3..12).map(|n| (n, "cat dot")));
    assert_eq!(job.run(&[]).exits_with(0).json()["documents_removed"], 0);
    assert_eq!(job.documents().len(), 12);

    let delete = ["--set", "source.removed=delete"];
    // A line whose id cannot be read could be any document.
    let lines = fs::read_to_string(job.path("docs.jsonl")).unwrap();
    fs::write(job.path("docs.jsonl"), format!("{lines}{{broken\n")).unwrap();
    let unsure = job.run(&delete).exits_with(3).stderr_contains(&["no document was deleted"]);
    assert_eq!(unsure.json()["documents_removed"], 0);
    assert_eq!(job.documents().len(), 12);

    // A refused document is not missing.
    job.write((3..11).map(|n| (n, "cat dot")).chain([(11, LONG)]));
    let summary = job.run(&delete).exits_with(3).json();
    assert_eq!((&summary["documents_removed"], &summary["rows_written"]), (&3.into(), &0.into()));
    assert_eq!(job.documents(), ["d10", "d11", "d3", "d4", "d5", "d6", "d7", "d8", "d9"]);
    assert_eq!(job.run(&delete).exits_with(3).json()["documents_removed"], 0);
}

#[test]
fn too_many_quarantined_rows_fail_the_run() {
    let job = Job::new("[quarantine]\nmax_rows = 5\n");
    job.write((0..40).map(|n| (n, if n % 4 == 0 { "" } else { "cat" })));
    let refused = job.run(&[]).exits_with(1).stderr_contains(&[
        "10 of 40 rows",
        "`quarantine.max_rows` allows 5",
        "quarantine list",
    ]);
    assert!(refused.stdout.is_empty());
    // Good rows are committed.
    assert_eq!(job.documents().len(), 30);
    assert_eq!(job.run(&["--set", "quarantine.max_rows=10"]).exits_with(3).json()["rows_skipped"], 30);

    let job = Job::new("[quarantine]\nmax_share = 0.2\n");
    job.write((0..1200).map(|n| (n, if n % 4 == 0 { "" } else { "cat" })));
    drop(job.run(&[]).exits_with(1).stderr_contains(&["`quarantine.max_share` allows 20 %"]));
    drop(job.run(&["--set", "quarantine.max_share=0.25"]).exits_with(3));
}

#[test]
fn second_run_is_refused_while_the_first_holds_the_lease() {
    let job = Job::new("table.concurrent = \"refuse\"\ntable.commit.rows = 100\n");
    job.write((0..20_000).map(|n| (n, LONG)));
    let mut first = job.start();
    job.wait_for_commit(&mut first);
    drop(job.run(&[]).exits_with(1).stderr_contains(&["docs.lance is being written by run", "concurrent = \"merge\""]));
    signal("-KILL", first.id());
    first.wait().unwrap();
    // A dead process does not block the next.
    job.write((0..200).map(|n| (n, LONG)));
    drop(job.run(&[]).exits_with(0));
    drop(job.run(&[]).exits_with(0));
}

#[test]
fn stopped_run_commits_its_work_and_the_next_run_continues() {
    let job = Job::new("table.commit.rows = 1000\n");
    job.write((0..50_000).map(|n| (n, LONG)));
    let mut run = job.start();
    job.wait_for_commit(&mut run);
    signal("-TERM", run.id());
    let stopped = Outcome::of(run).exits_with(130).stderr_contains(&[
        "stopping",
        "of the source remains",
        "interrupted",
        "continues",
    ]);
    let summary = stopped.json();
    assert_eq!(summary["stopped"], true);
    let written = summary["rows_written"].as_u64().unwrap();
    assert!((1..50_000).contains(&written), "{written}");
    // The summary counts every document in the table, and none of them is embedded again.
    assert_eq!(job.documents().len() as u64, written);
    job.write((0..usize::try_from(written).unwrap() + 10).map(|n| (n, LONG)));
    let rest = job.run(&[]).exits_with(0).json();
    assert_eq!((rest["rows_skipped"].as_u64(), rest["rows_written"].as_u64()), (Some(written), Some(10)));
}

#[test]
fn second_signal_ends_a_run_that_cannot_commit() {
    let server = S3Server::start("corpus");
    let job = Job::new("table.commit.rows = 1000\nrun.grace = 600\n");
    job.write((0..50_000).map(|n| (n, LONG)));
    let mut command = polylance_command();
    command.args(["run", &job.text("job.toml"), "--progress", "none", "--set", "table.uri=s3://corpus/docs.lance"]);
    command.envs(server.variables()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut run = command.spawn().unwrap();
    while !server.has("docs.lance/_versions/") {
        assert!(run.try_wait().unwrap().is_none(), "the run ended before it committed");
        thread::sleep(Duration::from_millis(20));
    }
    // The store no longer answers, so the run cannot commit after the first signal.
    signal("-STOP", server.id());
    signal("-TERM", run.id());
    thread::sleep(Duration::from_millis(500));
    assert!(run.try_wait().unwrap().is_none(), "the first signal waits for the commit");
    signal("-TERM", run.id());
    drop(Outcome::of(run).exits_with(130));
    signal("-CONT", server.id());

    job.write((0..3000).map(|n| (n, LONG)));
    let table =
        ["run", &job.text("job.toml"), "--json", "--set", "table.uri=s3://corpus/docs.lance"].map(str::to_owned);
    let rest = polylance_with(&table, &server.variables(), b"").exits_with(0).json();
    assert_eq!(rest["rows_skipped"].as_u64().unwrap() + rest["rows_written"].as_u64().unwrap(), 3000);
}

#[test]
fn signal_interrupts_an_index_build() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, table) = (at("docs.jsonl"), at("docs.lance"));
    write_fake_corpus(source.as_ref(), 30_000);
    assert!(fake_job(&source, &table, 30_000).output().unwrap().status.success());
    let mut command = polylance_command();
    command.args(["index", "vectors", "--table", &table, "--kind", "ivf_hnsw_sq"]);
    let index = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Long enough for the build to have started; the whole index takes a multiple of it.
    thread::sleep(Duration::from_secs(1));
    signal("-TERM", index.id());
    drop(Outcome::of(index).exits_with(130).stderr_contains(&["interrupted"]));
    let shown = polylance(&["show", &table, "--json"]).exits_with(0).json();
    let kinds: Vec<_> = shown["indices"].as_array().unwrap().iter().map(|index| &index["kind"]).collect();
    assert_eq!(kinds, ["IVF_FLAT"], "the index that the run made is still the table's");
}
