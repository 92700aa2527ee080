//! Shards of a source, embedded by processes that know nothing of each other, and a closing run make the table of one
//! run.

mod launchers;

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, SystemTime},
};

use polylance_tests::{
    Outcome, Row, TinyModel, fake_job, polylance_with, read_contents, read_table, strings, write_fake_corpus,
    write_parquet, write_row_groups,
};
use serde_json::Value;

/// Rows of the Parquet file of the corpus, in row groups of 50.
const PARQUET_ROWS: usize = 600;
/// Rows of its JSON Lines, in files of 143: no two files have an equal error in a row of the same number.
const JSONL_ROWS: usize = 1_000;
const ROWS_PER_FILE: usize = 143;
const SHARDS: usize = 3;

/// A folder of files of two formats. A row of the last file has the id of one before it. All files but `a.parquet` and
/// `b.jsonl` have rows that go to the quarantine.
struct Corpus {
    folder: tempfile::TempDir,
}

impl Corpus {
    fn new() -> Self {
        let corpus = Self { folder: tempfile::tempdir().unwrap() };
        let docs = corpus.folder.path().join("docs");
        fs::create_dir(&docs).unwrap();
        // As many bytes as the other files together.
        let rows = (0..PARQUET_ROWS).map(|at| Row::new(format!("p{at}"), format!("{at} ").repeat(60 + at % 40)));
        write_row_groups(&docs.join("a.parquet"), &rows.collect::<Vec<_>>(), 50);
        let lines = corpus.folder.path().join("docs.jsonl");
        write_fake_corpus(&lines, JSONL_ROWS);
        let lines = fs::read_to_string(lines).unwrap();
        let lines: Vec<&str> = lines.lines().collect();
        for (number, part) in lines.chunks(ROWS_PER_FILE).enumerate() {
            fs::write(docs.join(format!("part-{number}.jsonl")), part.join("\n")).unwrap();
        }
        let good: Vec<String> = (0..10).map(|at| format!("{{\"id\":\"b{at}\",\"text\":\"good {at}\"}}")).collect();
        fs::write(docs.join("b.jsonl"), good.join("\n")).unwrap();
        let repeated = "{\"id\":\"p1\",\"text\":\"again\"}\n{\"id\":\"z\",\"text\":\"the end\"}\n";
        fs::write(docs.join("z.jsonl"), repeated).unwrap();
        age(&docs);
        corpus
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn job(&self, table: &str, rows_per_commit: u64) -> Command {
        fake_job(&self.path("docs"), &self.path(table), rows_per_commit)
    }

    fn shard(&self, table: &str, rows_per_commit: u64, index: usize) -> Command {
        let mut job = self.job(table, rows_per_commit);
        job.arg(format!("{index}/{SHARDS}"));
        job
    }
}

/// Makes the files of a folder an hour old: a change of a file that was written just now may not show.
fn age(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let file = File::options().append(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    }
}

/// Waits for a job and returns its summary.
fn finished(job: Child) -> Value {
    let output = job.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn run(mut job: Command) -> Value {
    finished(job.spawn().unwrap())
}

#[test]
fn simultaneous_shards_and_a_closing_run_make_the_table_of_one_run() {
    let corpus = Corpus::new();
    let one = run(corpus.job("one.lance", 200));
    // No table exists when they start.
    let shards: Vec<Child> = (0..SHARDS).map(|index| corpus.shard("many.lance", 100, index).spawn().unwrap()).collect();
    let shards: Vec<Value> = shards.into_iter().map(finished).collect();
    for (index, shard) in shards.iter().enumerate() {
        assert_eq!(shard["shard"], format!("{index}/{SHARDS}"));
        assert!(shard["index"].is_null() && shard["rows_written"].as_u64() > Some(100), "{shard}");
    }
    for counted in ["rows_read", "rows_written", "rows_quarantined"] {
        let sum: u64 = shards.iter().map(|shard| shard[counted].as_u64().unwrap()).sum();
        assert_eq!(Some(sum), one[counted].as_u64(), "{counted}");
    }
    let closing = run(corpus.job("many.lance", 200));
    assert_eq!((&closing["rows_read"], &closing["rows_written"]), (&one["rows_read"], &0.into()));
    assert_eq!((&closing["tokens"], &closing["rows_quarantined"]), (&0.into(), &one["rows_quarantined"]));
    assert!(closing.get("shard").is_none() && closing["index"].is_object(), "{closing}");
    assert_eq!(closing["files_unchanged"], 1, "b.jsonl is of one shard, and has no bad row");
    assert_eq!(read_contents(&corpus.path("many.lance")), read_contents(&corpus.path("one.lance")));
}

#[test]
fn killed_shard_is_run_again() {
    let corpus = Corpus::new();
    let _ = run(corpus.job("one.lance", 200));
    for index in 0..SHARDS {
        let mut killed = corpus.shard("many.lance", 20, index).spawn().unwrap();
        let versions = corpus.folder.path().join("many.lance/_versions");
        // A version that is being written has another extension.
        let is_version = |file: &fs::DirEntry| file.path().extension().is_some_and(|extension| extension == "manifest");
        let count = || fs::read_dir(&versions).map_or(0, |files| files.flatten().filter(is_version).count());
        let before = count();
        while count() == before && killed.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        killed.kill().unwrap();
        killed.wait().unwrap();
        let again = run(corpus.shard("many.lance", 100, index));
        let kept = again["rows_skipped"].as_u64().unwrap();
        let written = again["rows_written"].as_u64().unwrap() + again["rows_quarantined"].as_u64().unwrap();
        assert_eq!(Some(kept + written), again["rows_read"].as_u64(), "{again}");
        assert!(kept > 0, "the killed process committed: {again}");
    }
    assert_eq!(run(corpus.job("many.lance", 200))["rows_written"], 0);
    assert_eq!(read_contents(&corpus.path("many.lance")), read_contents(&corpus.path("one.lance")));
}

#[test]
fn last_shard_alone_writes_its_rows_and_knows_the_ids_before_it() {
    let corpus = Corpus::new();
    let shard = run(corpus.shard("last.lance", 100, SHARDS - 1));
    let count = |name: &str| shard[name].as_u64().unwrap();
    assert_eq!(count("rows_read"), count("rows_written") + count("rows_quarantined"));
    assert_eq!(count("rows_skipped"), 0);
    let contents = read_contents(&corpus.path("last.lance"));
    let has = |id: &str| contents.rows.contains_key(&(id.to_owned(), 0));
    assert!(has("z") && has("d999") && !has("p1") && !has("d0"));
    let repeated = contents.refused.iter().filter(|(_, _, error)| error.contains("\"p1\"")).count();
    assert_eq!(repeated, 1, "{:?}", contents.refused);
    assert_eq!(contents.refused.len() as u64, count("rows_quarantined"));
}

/// A pipeline over two files of a folder, with a model of a few kilobytes.
struct Pipeline {
    folder: tempfile::TempDir,
}

impl Pipeline {
    fn new() -> Self {
        let pipeline = Self { folder: tempfile::tempdir().unwrap() };
        TinyModel::Whole.write(pipeline.folder.path().join("model").as_ref());
        fs::create_dir(pipeline.folder.path().join("docs")).unwrap();
        pipeline.write("a", &["a0", "a1"]);
        pipeline.write("b", &["b0", "b1"]);
        let path = |name: &str| pipeline.folder.path().join(name).display().to_string();
        let toml = format!(
            "version = 1\n[source]\nuri = {:?}\n[model]\nid = {:?}\n[table]\nuri = {:?}\n",
            path("docs"),
            path("model"),
            path("docs.lance")
        );
        fs::write(path("job.toml"), toml).unwrap();
        pipeline
    }

    fn write(&self, name: &str, ids: &[&str]) {
        let rows: Vec<Row> = ids.iter().map(|id| Row::new(*id, format!("cat {id}"))).collect();
        write_parquet(&self.folder.path().join(format!("docs/{name}.parquet")), &rows);
    }

    fn run_in(&self, variables: &[(&str, &str)], more: &[&str]) -> Outcome {
        let job = self.folder.path().join("job.toml").display().to_string();
        polylance_with(&[&["run", &job, "--json", "--progress", "none"], more].concat(), variables, b"")
    }

    fn run(&self, more: &[&str]) -> Outcome {
        self.run_in(&[], more)
    }

    fn ids(&self) -> Vec<String> {
        let table = self.folder.path().join("docs.lance").display().to_string();
        let mut ids = strings(&read_table(&table, &["doc_id"]), "doc_id");
        ids.sort();
        ids
    }
}

#[test]
fn shard_comes_from_the_environment_of_a_launcher() {
    let pipeline = Pipeline::new();
    let slurm = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "2")];
    let second = pipeline.run_in(&slurm, &["--shard", "auto"]).exits_with(0).json();
    assert_eq!((&second["shard"], &second["rows_written"]), (&"1/2".into(), &2.into()));
    assert_eq!(pipeline.ids(), ["b0", "b1"]);
    let kubernetes = [("JOB_COMPLETION_INDEX", "0"), ("POLYLANCE_SHARDS", "2")];
    let first = pipeline.run_in(&kubernetes, &["--shard", "auto"]).exits_with(0).json();
    assert_eq!((&first["shard"], &first["rows_written"]), (&"0/2".into(), &2.into()));
    let closing = pipeline.run(&[]).exits_with(0).json();
    assert_eq!(
        (&closing["rows_read"], &closing["rows_written"], &closing["tokens"]),
        (&4.into(), &0.into(), &0.into())
    );

    drop(pipeline.run(&["--shard", "auto"]).exits_with(2).stderr_contains(&[
        "the environment names no shard",
        "SLURM_ARRAY_TASK_ID with SLURM_ARRAY_TASK_COUNT",
        "JOB_COMPLETION_INDEX",
        "POLYLANCE_SHARDS",
    ]));
    let half = pipeline.run_in(&kubernetes[..1], &["--shard", "auto"]).exits_with(2);
    drop(half.stderr_contains(&["JOB_COMPLETION_INDEX is set, and POLYLANCE_SHARDS is not"]));
}

#[test]
fn shard_that_cannot_be_is_refused() {
    let pipeline = Pipeline::new();
    for (arguments, message) in [
        (&["--shard", "2/2"][..], "there is no shard 2/2"),
        (&["--shard", "half"], "expected INDEX/COUNT such as 0/8, found \"half\""),
        (&["--shard", "0/2", "--set", "source.uri=-"], "standard input has no shards"),
        (&["--shard", "0/2", "--set", "table.concurrent=refuse"], "`table.concurrent` is \"refuse\""),
    ] {
        drop(pipeline.run(arguments).exits_with(2).stderr_contains(&[message]));
    }
    assert!(!pipeline.folder.path().join("docs.lance").exists());
}

#[test]
fn documents_are_deleted_by_the_closing_run_alone() {
    let pipeline = Pipeline::new();
    pipeline.write("c", &["gone"]);
    drop(pipeline.run(&[]).exits_with(0));
    fs::remove_file(pipeline.folder.path().join("docs/c.parquet")).unwrap();
    pipeline.write("d", &["d0"]);
    let delete = ["--set", "source.removed=delete"];
    for shard in ["0/3", "1/3", "2/3"] {
        let run = pipeline.run(&[&delete[..], &["--shard", shard]].concat()).exits_with(0);
        assert!(!run.stderr.contains("no document was deleted"), "{}", run.stderr);
        assert_eq!(run.json()["documents_removed"], 0);
    }
    assert_eq!(pipeline.ids(), ["a0", "a1", "b0", "b1", "d0", "gone"]);
    let closing = pipeline.run(&delete).exits_with(0).json();
    assert_eq!((&closing["documents_removed"], &closing["rows_written"]), (&1.into(), &0.into()));
    assert_eq!(pipeline.ids(), ["a0", "a1", "b0", "b1", "d0"]);
}

#[test]
fn closing_run_reads_the_ids_alone_of_files_that_shards_have_finished() {
    let pipeline = Pipeline::new();
    age(&pipeline.folder.path().join("docs"));
    for (shard, files_unchanged) in [("0/2", 0), ("1/2", 0), ("0/2", 1)] {
        let run = pipeline.run(&["--shard", shard]).exits_with(0).json();
        assert_eq!((&run["source_unchanged"], &run["files_unchanged"]), (&false.into(), &files_unchanged.into()));
    }
    let closing = pipeline.run(&[]).exits_with(0).json();
    assert_eq!((&closing["source_unchanged"], &closing["files_unchanged"]), (&false.into(), &2.into()));
    assert_eq!((&closing["rows_skipped"], &closing["tokens"]), (&4.into(), &0.into()));
    let next = pipeline.run(&["--shard", "1/2"]).exits_with(0).json();
    assert_eq!((&next["source_unchanged"], &next["bytes_read"]), (&true.into(), &0.into()));
}

#[test]
fn more_shards_than_files_leave_some_without_rows() {
    let pipeline = Pipeline::new();
    let written = (0..7).map(|index| {
        let run = pipeline.run(&["--shard", &format!("{index}/7")]).exits_with(0).json();
        run["rows_written"].as_u64().unwrap()
    });
    let written: Vec<u64> = written.collect();
    assert_eq!((written.iter().sum::<u64>(), written.iter().filter(|rows| **rows > 0).count()), (4, 2));
    assert_eq!(pipeline.ids(), ["a0", "a1", "b0", "b1"]);
}
