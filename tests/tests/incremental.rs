//! Running the same job again embeds only changed documents.

use std::collections::{BTreeMap, HashSet};

use arrow::{array::AsArray, datatypes::UInt32Type};
use polylance_tests::{Row, TinyModel, polylance, read_table, strings, write_parquet};
use serde_json::Value;

struct Job {
    folder: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::Whole.write(&folder.path().join("model"));
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs the job over these rows and returns the summary.
    fn run(&self, rows: &[Row]) -> Value {
        write_parquet(&self.folder.path().join("docs.parquet"), rows);
        let pipeline = self.folder.path().join("job.toml");
        let toml = format!(
            "version = 1\n[source]\nuri = \"{}\"\n[model]\nid = \"{}\"\n[chunk]\ntokens = 12\noverlap = 0\n[table]\nuri = \"{}\"\n",
            self.path("docs.parquet"),
            self.path("model"),
            self.path("docs.lance")
        );
        std::fs::write(&pipeline, toml).unwrap();
        polylance(&["run", pipeline.to_str().unwrap(), "--json", "--progress", "none"]).exits_with(0).json()
    }

    /// The table's texts by document, chunks in order. Checks that chunks are numbered from 0 without a gap.
    fn documents(&self) -> BTreeMap<String, Vec<String>> {
        let rows = read_table(&self.path("docs.lance"), &["doc_id", "chunk", "text"]);
        let chunks = rows["chunk"].as_primitive::<UInt32Type>().values().to_vec();
        let mut documents: BTreeMap<String, Vec<(u32, String)>> = BTreeMap::new();
        for ((id, chunk), text) in strings(&rows, "doc_id").into_iter().zip(chunks).zip(strings(&rows, "text")) {
            documents.entry(id).or_default().push((chunk, text));
        }
        documents
            .into_iter()
            .map(|(id, mut chunks)| {
                chunks.sort();
                assert!(chunks.iter().enumerate().all(|(at, (chunk, _))| at == *chunk as usize), "{id}: {chunks:?}");
                (id, chunks.into_iter().map(|(_, text)| text).collect())
            })
            .collect()
    }
}

fn text(seed: usize, words: usize) -> String {
    let words: Vec<String> =
        (0..words).map(|word| ["cat", "tin", "dot", "arc", "nest"][(seed * 7 + word * 3) % 5].into()).collect();
    format!("{}. {}", words.join(" "), ["a", "b", "c", "d", "e"][seed % 5].repeat(seed / 5 % 7 + 1))
}

#[test]
fn second_run_writes_nothing() {
    let job = Job::new();
    let rows: Vec<Row> = (0..500).map(|n| Row::new(format!("doc-{n}"), text(n, 4))).collect();
    let first = job.run(&rows);
    assert_eq!((&first["rows_read"], &first["rows_written"]), (&500.into(), &500.into()));
    let second = job.run(&rows);
    assert_eq!(second["rows_read"], 500);
    assert_eq!(second["rows_skipped"], 500);
    assert_eq!(second["rows_written"], 0);
    assert_eq!(second["tokens"], 0);
    assert_eq!(second["version"], first["version"], "nothing to write makes no version");
}

#[test]
fn only_changed_and_added_documents_are_embedded() {
    let job = Job::new();
    // The last twenty are long: several chunks each.
    let mut rows: Vec<Row> =
        (0..500).map(|n| Row::new(format!("doc-{n:03}"), text(n, if n < 480 { 2 } else { 40 }))).collect();
    let _ = job.run(&rows);
    let before = job.documents();
    assert!(rows[480..].iter().all(|row| before[&row.id].len() > 3));

    for (n, row) in rows.iter_mut().enumerate().take(100) {
        row.text = Some(text(n + 1000, 3));
    }
    for (n, row) in rows.iter_mut().enumerate().skip(480) {
        row.text = Some(text(n, 10));
    }
    rows.extend((0..50).map(|n| Row::new(format!("new-{n:03}"), text(n, 2))));

    let second = job.run(&rows);
    assert_eq!(second["rows_read"], 550);
    assert_eq!(second["rows_skipped"], 380);
    assert_eq!(second["rows_written"], 170);

    let after = job.documents();
    assert_eq!(after.keys().cloned().collect::<HashSet<_>>(), rows.iter().map(|row| row.id.clone()).collect());
    let all_chunks: usize = after.values().map(Vec::len).sum();
    let table = read_table(&job.path("docs.lance"), &["doc_id"]);
    assert_eq!(table.num_rows(), all_chunks);
    for row in &rows {
        let source: String = row.text.as_ref().unwrap().split_whitespace().collect();
        let stored: String = after[&row.id].concat().split_whitespace().collect();
        assert_eq!(stored, source, "{}", row.id);
    }
    assert!(rows[480..500].iter().all(|row| after[&row.id].len() < before[&row.id].len()));
    assert_eq!(job.run(&rows)["rows_written"], 0);
}
