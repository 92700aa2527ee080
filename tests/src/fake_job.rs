//! A corpus with good and bad rows of every kind, and the table that a run of `fake-job` makes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{UInt32Type, UInt64Type},
    json::LineDelimitedWriter,
};
use polylance_testkit::FakeBackend;
use serde_json::json;

use crate::{binary::binary_path, table::read_table};

/// Writes `documents` rows of JSON Lines: most are good and have one to four chunks, some have no text, a repeated
/// id, or a text that the device refuses.
pub fn write_fake_corpus(path: &Path, documents: usize) {
    let text = |at: usize| {
        let words = (0..5 + at * 7 % 40)
            .map(|word| if word % 9 == at % 9 { format!("Name{at}") } else { format!("word{word}") });
        words.collect::<Vec<_>>().join(" ")
    };
    let row = |at: usize| match at % 50 {
        7 => json!({"id": format!("d{at}"), "text": null}),
        19 => json!({"id": format!("d{}", at - 1), "text": text(at)}),
        31 => json!({"id": format!("d{at}"), "text": format!("{} {}", text(at), FakeBackend::REFUSED)}),
        _ => json!({"id": format!("d{at}"), "text": text(at)}),
    };
    let lines: Vec<String> = (0..documents).map(|at| row(at).to_string()).collect();
    fs::write(path, lines.join("\n")).expect("a writable folder");
}

/// A command that runs the job over `source` into `table`, with commits of `rows_per_commit` rows.
pub fn fake_job(source: &str, table: &str, rows_per_commit: u64) -> Command {
    let mut command = Command::new(binary_path("fake-job"));
    command.args([source, table, &rows_per_commit.to_string()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The contents of a table and its quarantine, without the columns that differ from run to run.
#[derive(Debug, PartialEq, Eq)]
pub struct TableContents {
    /// The other columns of each chunk as JSON, by document and chunk number.
    pub rows: BTreeMap<(String, u32), String>,
    /// `(row, stage, error)` of the refused rows.
    pub refused: BTreeSet<(u64, String, String)>,
}

/// Reads a table of `fake-job` and its quarantine.
///
/// # Panics
/// When a chunk is in the table twice.
pub fn read_contents(table: &str) -> TableContents {
    let more = ["char_start", "char_end", "text", "n_tokens", "embedding", "content_hash", "names"];
    read_contents_of(table, &more)
}

/// Reads a table, with some of its columns, and its quarantine.
///
/// # Panics
/// When a chunk is in the table twice.
pub fn read_contents_of(table: &str, columns: &[&str]) -> TableContents {
    let batch = read_table(table, &[&["doc_id", "chunk"], columns].concat());
    let (ids, chunks) = (batch["doc_id"].as_string::<i32>(), batch["chunk"].as_primitive::<UInt32Type>());
    let mut rows = BTreeMap::new();
    for (row, line) in lines(&batch).into_iter().enumerate() {
        let key = (ids.value(row).to_owned(), chunks.value(row));
        assert!(rows.insert(key.clone(), line).is_none(), "{key:?} is in {table} twice");
    }
    let quarantine = read_table(&polylance_sink::quarantine_uri(table), &["row", "stage", "error"]);
    let (stages, errors) = (quarantine["stage"].as_string::<i32>(), quarantine["error"].as_string::<i32>());
    let numbers = quarantine["row"].as_primitive::<UInt64Type>();
    let refused = |row: usize| (numbers.value(row), stages.value(row).to_owned(), errors.value(row).to_owned());
    let refused: Vec<_> = (0..quarantine.num_rows()).map(refused).collect();
    let distinct: BTreeSet<_> = refused.iter().cloned().collect();
    assert_eq!(distinct.len(), refused.len(), "a row is in the quarantine of {table} twice");
    TableContents { rows, refused: distinct }
}

fn lines(batch: &RecordBatch) -> Vec<String> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write(batch).expect("columns that JSON has");
    let json = String::from_utf8(writer.into_inner()).expect("JSON is UTF-8");
    json.lines().map(str::to_owned).collect()
}
