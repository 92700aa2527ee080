//! Running the same job again embeds only changed documents, whatever the source is.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{AsArray, RecordBatch, StringArray},
    datatypes::UInt32Type,
    ipc::writer::StreamWriter,
};
use lance::{
    Dataset,
    dataset::{InsertBuilder, WriteMode, WriteParams},
};
use polylance_tests::{Outcome, Row, TinyModel, polylance, polylance_with, read_table, strings, write_parquet};
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

    /// Runs a pipeline over standard input, with the table's other settings.
    fn pipe(&self, input: &[u8], more: &[&str]) -> Outcome {
        let pipeline = self.path("piped.toml");
        let (model, table) = (self.path("model"), self.path("docs.lance"));
        let toml = format!("version = 1\nsource.uri = \"-\"\nmodel.id = {model:?}\ntable.uri = {table:?}\n");
        std::fs::write(&pipeline, toml).unwrap();
        polylance_with(&[&["run", &pipeline, "--json", "--progress", "none"], more].concat(), &[], input)
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

const DELETE: [&str; 2] = ["--set", "source.removed=delete"];

/// An Arrow stream with a batch for each list of ids.
fn arrow_stream(batches: &[&[&str]]) -> Vec<u8> {
    let batch = |ids: &&[&str]| {
        let texts = ids.iter().map(|id| format!("cat {id}"));
        RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from(ids.to_vec())) as _),
            ("text", Arc::new(StringArray::from_iter_values(texts)) as _),
        ])
    };
    let batches: Vec<RecordBatch> = batches.iter().map(batch).collect::<Result<_, _>>().unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in &batches {
        writer.write(batch).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn piped_documents_are_embedded_once_in_any_format() {
    let job = Job::new();
    let lines = br#"{"id": "a", "text": "cat a"}
{"id": "b", "text": "cat b"}
"#;
    let embed = |input: &[u8]| {
        let (table, model) = (job.path("docs.lance"), job.path("model"));
        let args = ["embed", "--source", "-", "--table", &table, "--model", &model, "--json", "--progress", "none"];
        polylance_with(&args, &[], input).exits_with(0).json()
    };
    let first = embed(lines);
    assert_eq!((&first["rows_written"], &first["bytes_total"]), (&2.into(), &lines.len().into()));
    let csv = b"id,text\na,cat a\nb,cat b\n";
    for input in [&lines[..], csv, &arrow_stream(&[&["a"], &["b"]])] {
        let again = embed(input);
        assert_eq!(
            (&again["rows_skipped"], &again["rows_written"], &again["tokens"]),
            (&2.into(), &0.into(), &0.into())
        );
        assert_eq!((&again["source_unchanged"], &again["version"]), (&false.into(), &first["version"]));
    }
    let more = job.pipe(&arrow_stream(&[&["a", "b"], &["c"]]), &[]).exits_with(0).json();
    assert_eq!((&more["rows_skipped"], &more["rows_written"]), (&2.into(), &1.into()));
    assert_eq!(job.documents().into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn input_that_breaks_off_fails_the_run_and_deletes_nothing() {
    let job = Job::new();
    drop(job.pipe(&arrow_stream(&[&["a", "b"]]), &[]).exits_with(0));
    let other = arrow_stream(&[&["c"], &["d"]]);
    // In the middle of a batch, and between two of them.
    for length in [other.len() - 100, other.len() - 8] {
        let failed = job.pipe(&other[..length], &DELETE).exits_with(1);
        drop(failed.stderr_contains(&["standard input could not be read to its end", "caused by: ", "hint: "]));
        assert!(job.documents().contains_key("a") && job.documents().contains_key("b"));
    }
    let whole = job.pipe(&other, &DELETE).exits_with(0).json();
    assert_eq!(whole["documents_removed"], 2);
    assert_eq!(job.documents().into_keys().collect::<Vec<_>>(), ["c", "d"]);
}

#[test]
fn input_without_documents_deletes_nothing() {
    let job = Job::new();
    drop(job.pipe(b"id,text\na,cat\nb,dot\n", &[]).exits_with(0));
    drop(job.pipe(b"", &DELETE).exits_with(2).stderr_contains(&["standard input is empty"]));
    let header = job.pipe(b"id,text\n", &DELETE).exits_with(0);
    let header = header.stderr_contains(&["no document was deleted", "standard input has no rows"]);
    assert_eq!(header.json()["documents_removed"], 0);
    assert_eq!(job.pipe(b"id,text\na,cat\n", &DELETE).exits_with(0).json()["documents_removed"], 1);
    assert_eq!(job.documents().into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn rejected_rows_of_standard_input_cannot_be_replayed() {
    let job = Job::new();
    drop(job.pipe(b"id,text\na,cat\nb,\n", &[]).exits_with(3));
    let listed = polylance(&["quarantine", "list", "--table", &job.path("docs.lance"), "--json"]).exits_with(0);
    assert_eq!(listed.json()["source"], "stdin");
    let replay = polylance(&["quarantine", "replay", &job.path("piped.toml"), "--progress", "none"]).exits_with(2);
    drop(replay.stderr_contains(&["standard input cannot be read again", "run the pipeline again"]));
    // The next run over the same rows retries them.
    let corrected = job.pipe(b"id,text\na,cat\nb,dot\n", &[]).exits_with(0).json();
    assert_eq!((&corrected["rows_skipped"], &corrected["rows_written"]), (&1.into(), &1.into()));
    let listed = polylance(&["quarantine", "list", "--table", &job.path("docs.lance"), "--json"]).exits_with(0);
    assert!(listed.stdout.is_empty(), "{}", listed.stdout);
}

/// Appends rows to the Lance table at `uri`.
fn append(uri: &str, ids: &[&str]) -> Dataset {
    let texts = ids.iter().map(|id| format!("cat {id}"));
    let batch = RecordBatch::try_from_iter([
        ("key", Arc::new(StringArray::from(ids.to_vec())) as _),
        ("body", Arc::new(StringArray::from_iter_values(texts)) as _),
    ]);
    let params = WriteParams { mode: WriteMode::Append, ..WriteParams::default() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let builder = InsertBuilder::new(uri).with_params(&params);
    runtime.block_on(Box::pin(builder.execute(vec![batch.unwrap()]))).unwrap()
}

#[test]
fn lance_table_is_read_once_and_then_for_its_new_rows() {
    let job = Job::new();
    let (source, table, model) = (job.path("notes.lance"), job.path("docs.lance"), job.path("model"));
    let embed = || {
        let args =
            ["embed", "--source", &source, "--table", &table, "--model", &model, "--id", "key", "--text", "body"];
        polylance(&[&args[..], &["--json", "--progress", "none"]].concat()).exits_with(0).json()
    };
    append(&source, &["a"]);
    append(&source, &["b"]);
    assert_eq!(embed()["rows_written"], 2);
    let again = embed();
    assert_eq!((&again["source_unchanged"], &again["bytes_read"]), (&true.into(), &0.into()));
    append(&source, &["c"]);
    let more = embed();
    assert_eq!((&more["rows_skipped"], &more["rows_written"]), (&2.into(), &1.into()));
    assert_eq!((&more["files_unchanged"], &more["source_unchanged"]), (&2.into(), &false.into()));
    assert_eq!(job.documents().into_keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(embed()["source_unchanged"], true);
}

#[test]
fn table_of_documents_in_one_piece_is_a_source_of_its_documents() {
    let job = Job::new();
    let short: Vec<Row> = ["a", "b"].map(|id| Row::new(id.to_owned(), "cat")).into();
    let _ = job.run(&short);
    let (source, copy, model) = (job.path("docs.lance"), job.path("copy.lance"), job.path("model"));
    let args = ["embed", "--source", &source, "--table", &copy, "--model", &model, "--json", "--progress", "none"];
    assert_eq!(polylance(&args).exits_with(0).json()["rows_written"], 2);
    assert_eq!(strings(&read_table(&copy, &["doc_id"]), "doc_id"), ["a", "b"]);
    let _ = job.run(&[Row::new("a".to_owned(), text(1, 60))]);
    drop(polylance(&args).exits_with(2).stderr_contains(&["`doc_id` is not unique", "several chunks"]));
}
