//! `polylance init`: the file it writes is a valid pipeline for the source, and runs.

use std::{fs, fs::File, path::Path, sync::Arc};

use arrow::{
    array::{Float64Array, Int64Array, RecordBatch, StringArray},
    ipc::writer::FileWriter,
};
use parquet::arrow::ArrowWriter;
use polylance_config::Pipeline;

use super::TestFolder;

/// Three rows with an id, a text, a language and a number.
fn rows() -> RecordBatch {
    let texts = ["Everyone has the right to rest.", "Nadie será sometido a torturas.", "教育を受ける権利"];
    RecordBatch::try_from_iter([
        ("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as _),
        ("lang", Arc::new(StringArray::from(vec!["en", "es", "ja"])) as _),
        ("body", Arc::new(StringArray::from_iter_values(texts)) as _),
        ("score", Arc::new(Float64Array::from(vec![0.5, 1.5, 2.5])) as _),
    ])
    .unwrap()
}

/// The rows in each format, and a folder of two files.
fn write_sources(folder: &Path) {
    let rows = rows();
    let write_parquet = |name: &str| {
        let mut writer = ArrowWriter::try_new(File::create(folder.join(name)).unwrap(), rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    };
    fs::create_dir(folder.join("corpus")).unwrap();
    for name in ["docs.parquet", "corpus/a.parquet", "corpus/b.parquet"] {
        write_parquet(name);
    }
    let mut arrow = FileWriter::try_new(File::create(folder.join("docs.arrow")).unwrap(), &rows.schema()).unwrap();
    arrow.write(&rows).unwrap();
    arrow.finish().unwrap();
    let mut csv = arrow::csv::Writer::new(File::create(folder.join("docs.csv")).unwrap());
    csv.write(&rows).unwrap();
    let mut jsonl = arrow::json::LineDelimitedWriter::new(File::create(folder.join("docs.ndjson")).unwrap());
    jsonl.write(&rows).unwrap();
    jsonl.finish().unwrap();
}

fn parse(text: &str) -> Pipeline {
    Pipeline::parse("pipeline.toml", text, &[""; 0]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn init_writes_a_valid_file_for_every_format() {
    let folder = TestFolder::new();
    write_sources(folder.path());
    let cases = [
        ("docs.parquet", "docs.lance", "1 file, "),
        ("docs.arrow", "docs.lance", "1 file, "),
        ("docs.csv", "docs.lance", "1 file, "),
        ("docs.ndjson", "docs.lance", "1 file, "),
        ("corpus", "corpus.lance", "2 files, "),
        ("corpus/*.parquet", "corpus.lance", "2 files, "),
    ];
    for (source, table, files) in cases {
        let outcome = folder.run(&["init", source, "--output", "-"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{source}: {}", outcome.shown());
        let pipeline = parse(&outcome.stdout);
        let found = [&pipeline.source.uri, &pipeline.source.id, &pipeline.source.text, &pipeline.table.uri];
        assert_eq!(found, [source, "id", "body", table]);
        let lines = [
            format!("# A pipeline for {source}: {files}"),
            "\n# keep = [\"lang\", \"score\"]\n".to_owned(),
            "\n#   score  Float64  0.5\n".to_owned(),
            format!("\n#   polylance search --table {table} "),
        ];
        for line in lines {
            assert!(outcome.stdout.contains(&line), "{source}: {line:?} is missing in\n{}", outcome.stdout);
        }
    }
    let udhr = parse(&folder.run(&["init", "builtin:udhr?codes=eng,spa", "--output", "-"]).stdout);
    assert_eq!((udhr.source.id.as_str(), udhr.source.text.as_str()), ("id", "text"));
    assert_eq!(udhr.table.uri, "udhr.lance");
}

#[test]
fn init_writes_a_file_that_runs() {
    let folder = TestFolder::new();
    write_sources(folder.path());
    let outcome = folder.run(&["init", "docs.parquet", "--table", "rights.lance"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.shown());
    let fields = ["written        pipeline.toml\n", "text           body\n", "other columns  lang, score\n"];
    assert!(fields.iter().all(|field| outcome.stdout.contains(field)), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "hint: check the columns in pipeline.toml, then: polylance run pipeline.toml\n");
    // The columns that the file suggests in a comment.
    let path = folder.path().join("pipeline.toml");
    let text = fs::read_to_string(&path).unwrap().replace("# keep", "keep");
    fs::write(&path, text).unwrap();
    let run = folder.run(&["run", "pipeline.toml", "--json"]);
    assert_eq!(run.code, Some(0), "{}", run.shown());
    assert!(run.stdout.contains("\"rows_written\":3"), "{}", run.stdout);
    let best = folder.run(&["search", "--table", "rights.lance", "tortura", "-k", "1", "--json"]);
    assert!(best.stdout.contains("\"lang\":\"es\""), "{}", best.shown());
}

#[test]
fn init_replaces_a_file_only_if_forced() {
    let folder = TestFolder::new();
    let path = folder.path().join("job.toml");
    let before = fs::read(&path).unwrap();
    let refused = folder.run(&["init", "docs.jsonl", "--output", "job.toml"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let expected = "error: job.toml exists already\nhint: --force replaces it, and --output names another file\n";
    assert_eq!(refused.stderr, expected);
    assert_eq!(fs::read(&path).unwrap(), before);
    let forced = folder.run(&["init", "docs.jsonl", "--output", "job.toml", "--force", "--json"]);
    assert_eq!(forced.code, Some(0), "{}", forced.shown());
    assert_eq!(parse(&fs::read_to_string(&path).unwrap()).source.text, "text");
    let found: serde_json::Value = serde_json::from_str(&forced.stdout).unwrap();
    assert_eq!((&found["file"], &found["text"], &found["id"]), (&"job.toml".into(), &"text".into(), &"id".into()));
    assert_eq!((&found["files"], &found["format"], &found["sampled_rows"]), (&1.into(), &"jsonl".into(), &2.into()));
    assert_eq!(found["columns"][2], serde_json::json!({ "name": "lang", "type": "Utf8", "example": "en" }));
}

#[test]
fn init_refuses_what_no_run_can_use() {
    let folder = TestFolder::new();
    // A folder with no more than a source: the files of a folder are looked at in order.
    fs::create_dir_all(folder.path().join("texts")).unwrap();
    folder.write("texts/docs.csv", "id,text\na,Everyone has the right to education.\n");
    fs::create_dir(folder.path().join("corpus")).unwrap();
    folder.write("corpus/numbers.csv", "n,m\n1,2\n");
    folder.write("corpus/numbers.jsonl", "{\"n\": 1}\n");
    let cases: [(&[&str], &str); 7] = [
        (&["init", "missing.csv"], "error: source `missing.csv`: no such file, folder or object\n"),
        (&["init", "corpus/numbers.jsonl"], "numbers.jsonl: no column has text; the columns are n (Int64)\n"),
        (&["init", "corpus/numbers.csv"], "numbers.csv: no column has text; the columns are n (Int64), m (Int64)\n"),
        (
            &["init", "texts", "--output", "texts/p.toml"],
            "error: [folder]/texts/p.toml would be in texts, whose files are all read\n",
        ),
        (
            &["init", "texts", "--table", "texts/t.lance"],
            "error: [folder]/texts/t.lance would be in texts, whose files are all read\n",
        ),
        (&["init", "docs.jsonl", "--table", "https://x/y.lance"], "pipeline.toml:"),
        (&["init", "docs.jsonl", "--output", "-", "--json"], "error: `--json` and `--output -` both print to stdout\n"),
    ];
    for (args, message) in cases {
        let outcome = folder.run(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}: {}", outcome.shown());
        assert!(outcome.stderr.contains(message), "{args:?}: {}", outcome.stderr);
    }
    assert!(!folder.path().join("pipeline.toml").exists());
}
