//! Annotating a million rows rewrites no file of the table, and a kill loses no commit.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use arrow::array::{Array, AsArray};
use futures::TryStreamExt;
use lance::Dataset;
use polylance_tests::binary_path;

const ROWS: u64 = 1_000_000;

/// The table's data files with their sizes and when they were written.
fn data_files(table: &Path) -> BTreeMap<String, (u64, std::time::SystemTime)> {
    let files = fs::read_dir(table.join("data")).unwrap().map(|file| {
        let file = file.unwrap();
        let metadata = file.metadata().unwrap();
        (file.file_name().into_string().unwrap(), (metadata.len(), metadata.modified().unwrap()))
    });
    files.collect()
}

/// Complete versions: a version that is being written has another name.
fn versions(table: &Path) -> usize {
    let names = fs::read_dir(table.join("_versions")).unwrap().map(|file| file.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "manifest")).count()
}

fn annotate(table: &Path) -> Command {
    let mut command = Command::new(binary_path("fake-annotate"));
    command.arg("run").arg(table).arg("100000").stdout(Stdio::piped());
    command
}

/// Starts the job and kills it after `commits` commits.
fn kill_after_commits(table: &Path, commits: usize) {
    let before = versions(table);
    let mut child = annotate(table).spawn().unwrap();
    while versions(table) < before + commits {
        assert!(child.try_wait().unwrap().is_none(), "the job ended before it was killed");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The number of rows, and of those whose spans differ from the fake head's result for their text.
async fn check(table: &Path) -> (u64, u64) {
    let dataset = Dataset::open(table.to_str().unwrap()).await.unwrap();
    dataset.validate().await.unwrap();
    let mut scan = dataset.scan();
    scan.project(&["char_start", "text", "names"]).unwrap();
    let mut batches = scan.try_into_stream().await.unwrap();
    let (mut rows, mut wrong) = (0, 0);
    while let Some(batch) = batches.try_next().await.unwrap() {
        let (texts, names) = (batch["text"].as_string::<i32>(), batch["names"].as_list::<i32>());
        for row in 0..batch.num_rows() {
            let expected: Vec<&str> =
                texts.value(row).split_whitespace().filter(|word| word.starts_with(char::is_uppercase)).collect();
            let spans = names.value(row);
            let found = spans.as_struct().column_by_name("text").unwrap().as_string::<i32>();
            let same = names.is_valid(row) && found.iter().flatten().eq(expected);
            (rows, wrong) = (rows + 1, wrong + u64::from(!same));
        }
    }
    (rows, wrong)
}

#[test]
fn annotating_a_million_rows_survives_kills_and_rewrites_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("docs.lance");
    let made =
        Command::new(binary_path("fake-annotate")).arg("make").arg(&table).arg(ROWS.to_string()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let before = data_files(&table);

    // The first commit declares the column, the others fill it.
    kill_after_commits(&table, 1);
    kill_after_commits(&table, 2);
    kill_after_commits(&table, 1);
    let output = annotate(&table).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let last: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let missing = last["rows_missing"].as_u64().unwrap();
    assert!(missing <= ROWS - 300_000, "the last run had {missing} rows left to do");
    assert_eq!(last["rows_annotated"], missing);

    let after = data_files(&table);
    assert!(before.iter().all(|(name, file)| after.get(name) == Some(file)), "a data file was rewritten");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(check(&table)), (ROWS, 0));

    let again = annotate(&table).output().unwrap();
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((again["rows_missing"].as_u64(), again["version"].is_null()), (Some(0), true));
}
