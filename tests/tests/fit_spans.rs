//! `fit --spans` trains a tagger on a column of spans, as lists or JSON, and counts and names unusable rows.

use std::{fs, path::Path};

use polylance_encoder::HeadKind;
use polylance_tests::{Outcome, polylance, polylance_with, write_head_model};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMES: [&str; 5] = ["Ada Lovelace", "Zoë", "Čapek", "สมชาย", "東京"];

/// The form of the spans in the file.
#[derive(Clone, Copy)]
enum Spans {
    List,
    Json,
}

/// A text with a name between words, after characters of more than one byte.
fn row(at: usize, spans: Spans) -> Value {
    let name = NAMES[at % NAMES.len()];
    let (before, after) = (format!("👍 ทุกคน{at} "), [" wrote", "เขียน"][at % 2]);
    let start = before.chars().count();
    let list = json!([{"label": "PER", "start": start, "end": start + name.chars().count()}]);
    let cell = match spans {
        Spans::List => list,
        Spans::Json => json!(list.to_string()),
    };
    json!({"id": at.to_string(), "text": format!("{before}{name}{after}"), "people": cell})
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_head_model(&folder.path().join("backbone"), HeadKind::SequenceClassification, &["a", "b"]);
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, rows: &[Value]) {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(self.path(name), lines.join("\n")).unwrap();
    }

    fn fit(&self, source: &str, column: &str, out: &str) -> Outcome {
        let (source, backbone, out) = (self.path(source), self.path("backbone"), self.path(out));
        polylance(&["fit", "--source", &source, "--spans", column, "--model", &backbone, "--out", &out, "--json"])
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }
}

#[test]
fn tagger_fitted_to_spans_returns_exact_slices() {
    let folder = Folder::new();
    folder.write("list.jsonl", &(0..100).map(|at| row(at, Spans::List)).collect::<Vec<_>>());
    let summary = folder.fit("list.jsonl", "people", "tagger").exits_with(0).json();
    assert_eq!(
        (&summary["unit"], &summary["trained_sentences"], &summary["test_sentences"]),
        (&json!("token"), &json!(80), &json!(20))
    );
    assert_eq!(
        (&summary["rows_refused"], &summary["rows_without_label"], &summary["spans_lost"]),
        (&json!(0), &json!(0), &json!(0))
    );
    assert_eq!(summary["report"]["entities"], 20);
    // Even with synthetic weights, most names are found.
    assert!(summary["report"]["micro_f1"].as_f64().unwrap() > 0.8, "{summary}");

    let model = folder.path("tagger");
    let predict = ["predict", "--task", "ner", "--model", &model, "--aggregation", "simple"];
    let mut found = 0;
    for text in ["👍 ทุกคน7 Čapekเขียน", "👍 ทุกคน3 สมชายเขียน", "👍 ทุกคน2 Ada Lovelace wrote"]
    {
        let answer = polylance_with(&predict, &[], format!("{text}\n").as_bytes()).exits_with(0).json();
        for span in answer["spans"].as_array().unwrap() {
            let number = |key: &str| usize::try_from(span[key].as_u64().unwrap()).unwrap();
            let slice: String = text.chars().skip(number("start")).take(number("end") - number("start")).collect();
            assert_eq!(span["text"], slice, "{answer}");
            assert_eq!(span["label"], "PER");
            found += usize::from(NAMES.contains(&slice.as_str()));
        }
    }
    assert!(found >= 2, "of three names {found} were found");

    // The same spans as JSON in a text: the same file.
    folder.write("json.jsonl", &(0..100).map(|at| row(at, Spans::Json)).collect::<Vec<_>>());
    let _ = folder.fit("json.jsonl", "people", "again").exits_with(0);
    assert!(folder.read("tagger/model.safetensors") == folder.read("again/model.safetensors"), "another head");
    let config: Value = serde_json::from_slice(&folder.read("tagger/tokenizer_config.json")).unwrap();
    assert_eq!((&config["mask_token"], &config["model_max_length"]), (&json!("<mask>"), &json!(128)));
}

#[test]
fn unusable_rows_are_skipped_counted_and_the_first_is_named() {
    let folder = Folder::new();
    let mut rows: Vec<Value> = (0..60).map(|at| row(at, Spans::List)).collect();
    rows[7]["people"][0]["end"] = json!(900);
    rows[9]["people"] = Value::Null;
    rows[11]["people"] = json!([]);
    rows[20]["people"] = json!([{"label": "PER", "start": 0, "end": 4}, {"label": "LOC", "start": 3, "end": 6}]);
    rows[31]["text"] = Value::Null;
    folder.write("docs.jsonl", &rows);
    let outcome = folder.fit("docs.jsonl", "people", "tagger").exits_with(0);
    let outcome = outcome.stderr_contains(&["3 rows left out", "docs.jsonl, row 7", "9..900 of PER ends beyond"]);
    let summary = outcome.json();
    assert_eq!((&summary["rows_refused"], &summary["rows_without_label"]), (&json!(3), &json!(1)));
    assert_eq!(summary["trained_sentences"].as_u64().unwrap() + summary["test_sentences"].as_u64().unwrap(), 56);
}

#[test]
fn column_without_usable_spans_is_refused() {
    let folder = Folder::new();
    let beyond = |at: usize| json!({"id": at.to_string(), "text": "Ada", "people": [{"label": "PER", "start": 0, "end": 4}], "n": at});
    folder.write("docs.jsonl", &(0..3).map(beyond).collect::<Vec<_>>());
    let refused = |column: &str, says: &[&str]| {
        let _ = folder.fit("docs.jsonl", column, "tagger").exits_with(2).stderr_contains(says);
        assert!(!Path::new(&folder.path("tagger")).exists(), "a tagger that was not fitted was written");
    };
    refused("people", &["no row is usable", "docs.jsonl, row 0", "0..4 of PER ends beyond the text's 3 characters"]);
    refused("n", &["docs.jsonl, row 0", "not a list of objects with label, start and end"]);
    refused("poeple", &["poeple", "people"]);
    folder.write("docs.jsonl", &[json!({"id": "1", "text": "Ada", "people": null, "n": 1})]);
    refused("people", &["has spans in its column people"]);
}
