//! Heads in pipelines, read back with pylance, and the commands `annotate` and `predict`.

use std::{collections::HashMap, fs, path::Path, process::Command};

use polylance_encoder::HeadKind;
use polylance_tests::{Row, polylance, polylance_with, python, repository, write_head_model, write_parquet};
use serde_json::{Value, json};

const TAGS: [&str; 5] = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"];

fn corpus() -> Vec<Row> {
    let long = "Ada Lovelace met Charles Babbage in London, and they wrote of engines. ".repeat(12);
    [
        "Everyone has the right to education.",
        "ทุกคนมีสิทธิในการศึกษา",
        "すべて人は、教育を受ける権利を有する。",
        "لكل شخص الحق في التعلم",
        "👩‍👩‍👧 went to São Paulo 🇧🇷 with Zoe\u{308}!",
        "Mtu ye yote ana haki ya kuelimishwa; \u{202b}שלום\u{202c}.",
        &long,
    ]
    .iter()
    .enumerate()
    .map(|(id, text)| Row::new(id.to_string(), *text))
    .collect()
}

/// Writes the corpus, a model for every task, and a pipeline over them.
fn write_fixture(folder: &Path) {
    write_parquet(&folder.join("docs.parquet"), &corpus());
    let models = [
        ("classes", HeadKind::SequenceClassification, &["sport", "law"][..]),
        ("nli", HeadKind::SequenceClassification, &["contradiction", "neutral", "entailment"]),
        ("tags", HeadKind::TokenClassification, &TAGS),
        ("answers", HeadKind::QuestionAnswering, &[]),
        ("masks", HeadKind::MaskedLm, &[]),
        ("texts", HeadKind::CausalLm, &[]),
        ("choices", HeadKind::MultipleChoice, &[]),
        ("ranks", HeadKind::SequenceClassification, &["relevance"]),
    ];
    for (name, task, labels) in models {
        write_head_model(&folder.join(name), task, labels);
    }
    let at = |name: &str| folder.join(name).display().to_string();
    let pipeline = format!(
        r#"version = 1
[source]
uri = "{docs}"
[chunk]
tokens = 64
overlap = 12
[table]
uri = "{table}"
[[annotate]]
name = "topic"
task = "classify"
model = "{classes}"
scores = "all"
[[annotate]]
name = "subject"
task = "zero-shot"
model = "{nli}"
labels = ["law", "music", "food"]
[[annotate]]
name = "people"
task = "ner"
model = "{tags}"
aggregation = "first"
[[annotate]]
name = "answer"
task = "qa"
model = "{answers}"
question = "Who has a right?"
[[annotate]]
name = "more"
task = "generate"
model = "{texts}"
max_new_tokens = 4
[[annotate]]
name = "choice"
task = "choose"
model = "{choices}"
choices = ["tea", "milk"]
"#,
        docs = at("docs.parquet"),
        table = at("docs.lance"),
        classes = at("classes"),
        nli = at("nli"),
        tags = at("tags"),
        answers = at("answers"),
        texts = at("texts"),
        choices = at("choices"),
    );
    fs::write(folder.join("job.toml"), pipeline).unwrap();
}

fn read(table: &str, columns: &[&str]) -> Value {
    let script = repository().join("tests/python/read_annotations.py");
    let output = Command::new(python()).arg(script).arg(table).args(columns).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A slice of the document, in characters.
fn slice(document: &str, start: &Value, end: &Value) -> String {
    let (start, end) = (start.as_u64().unwrap() as usize, end.as_u64().unwrap() as usize);
    document.chars().skip(start).take(end - start).collect()
}

#[test]
fn pipeline_fills_a_column_for_every_task_and_pylance_reads_it() {
    let folder = tempfile::tempdir().unwrap();
    write_fixture(folder.path());
    let job = folder.path().join("job.toml").display().to_string();
    let table = folder.path().join("docs.lance").display().to_string();
    let passes =
        "a new row costs 7 passes: the embedding, then one each for topic, subject, people, answer, more, choice";
    let run = polylance(&["run", &job]).exits_with(0).stderr_contains(&[passes]);
    assert!(run.stdout.contains("column  people"), "{}", run.stdout);

    let columns = ["topic", "subject", "people", "answer", "more", "choice"];
    let found = read(&table, &columns);
    let documents: HashMap<String, String> = corpus().into_iter().map(|row| (row.id, row.text.unwrap())).collect();
    let rows = found["rows"].as_array().unwrap();
    assert!(rows.len() > documents.len(), "the long document has several chunks");
    let mut spans_of: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for row in rows {
        let id = row["doc_id"].as_str().unwrap();
        let document = &documents[id];
        assert_eq!(row["topic"]["scores"].as_array().unwrap().len(), 2);
        assert_eq!(row["topic"]["label"], row["topic"]["scores"][0]["label"]);
        assert_eq!(row["subject"].as_array().unwrap().len(), 3);
        for span in row["people"].as_array().unwrap() {
            assert_eq!(span["text"], slice(document, &span["start"], &span["end"]), "{id}");
            spans_of.entry(id).or_default().push((span["start"].as_u64().unwrap(), span["end"].as_u64().unwrap()));
        }
        assert_eq!(row["answer"]["answer"], slice(document, &row["answer"]["start"], &row["answer"]["end"]), "{id}");
        assert!(row["more"].is_string());
        assert_eq!(row["choice"]["scores"].as_array().unwrap().len(), 2);
        let best = row["choice"]["index"].as_u64().unwrap() as usize;
        assert_eq!(row["choice"]["choice"], ["tea", "milk"][best]);
    }
    assert!(spans_of.len() >= 5, "{spans_of:?}");
    let count: HashMap<&str, usize> = spans_of.iter().map(|(id, spans)| (*id, spans.len())).collect();
    for (id, mut spans) in spans_of {
        // Ordered and without repetitions, across the borders of chunks too. Spans may share an offset: a combining mark
        // may be a token of its own.
        assert!(spans.windows(2).all(|pair| pair[0].0 <= pair[1].0), "spans of {id} are out of order: {spans:?}");
        spans.dedup();
        assert_eq!(spans.len(), count[id], "{id}: {spans:?}");
    }
    assert_eq!(found["contracts"]["people"]["spec"], json!({"task": "ner", "aggregation": "first"}));
    assert_eq!(found["contracts"]["people"]["labels"], json!(TAGS));

    let again = polylance(&["run", &job, "--json"]).exits_with(0);
    let lines: Vec<Value> = again.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["rows_written"]), (7, &json!(0)));
    assert!(lines[1..].iter().all(|line| line["rows_missing"] == 0), "{lines:?}");
}

#[test]
fn annotate_fills_missing_rows_rebuilds_for_another_head_and_quarantines() {
    let folder = tempfile::tempdir().unwrap();
    write_fixture(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (docs, table) = (at("docs.parquet"), at("docs.lance"));
    let _ = polylance(&["embed", "--source", &docs, "--table", &table]).exits_with(0);
    let annotate = |args: &[&str]| polylance(&[&["annotate", "--table", table.as_str()], args].concat());

    let tags = at("tags");
    let ner = ["--name", "people", "--task", "ner", "--model", tags.as_str(), "--json"];
    let first = annotate(&ner).exits_with(0).json();
    assert!(first["rows_annotated"].as_u64().unwrap() >= 7);
    assert_eq!(annotate(&ner).exits_with(0).json()["rows_missing"], 0);
    let other = annotate(&[&ner[..], &["--aggregation", "max"]].concat()).exits_with(0);
    let other = other.stderr_contains(&["column people was filled by another head"]);
    assert_eq!(other.json()["rows_annotated"], first["rows_annotated"]);

    // No text of the corpus has a mask.
    let masks = at("masks");
    let refused = annotate(&["--name", "words", "--task", "fill-mask", "--model", &masks, "--json"]).exits_with(3);
    assert_eq!(refused.json()["rows_annotated"], 0);
    assert_eq!(refused.json()["rows_quarantined"], first["rows_annotated"]);
    let quarantine = format!("q={}", at("docs.quarantine.lance"));
    let errors = polylance(&["sql", "--table", &quarantine, "SELECT DISTINCT stage, error FROM q", "--json"]);
    assert!(
        errors.stdout.contains("annotate") && errors.stdout.contains("the text has no <mask>"),
        "{}",
        errors.stdout
    );
}

#[test]
fn predict_runs_every_task() {
    let folder = tempfile::tempdir().unwrap();
    write_fixture(folder.path());
    let predict = |task: &str, model: &str, more: &[&str], line: &str| {
        let model = folder.path().join(model).display().to_string();
        let args = [&["predict", "--task", task, "--model", model.as_str()], more].concat();
        polylance_with(&args, &[], format!("{line}\n").as_bytes()).exits_with(0).json()
    };
    let classes = predict("classify", "classes", &["--all-scores"], "a text");
    assert_eq!(classes["labels"].as_array().unwrap().len(), 2);
    let subjects = predict("zero-shot", "nli", &["--labels", "law,music"], "a text");
    assert_eq!(subjects["labels"].as_array().unwrap().len(), 2);
    let text = "👩‍👩‍👧 ทุกคน met Ada";
    for span in predict("ner", "tags", &["--aggregation", "simple"], text)["spans"].as_array().unwrap() {
        assert_eq!(span["text"], slice(text, &span["start"], &span["end"]));
    }
    let question = json!({"question": "Who?", "context": "It was Ada Lovelace."}).to_string();
    let answers = predict("qa", "answers", &["--top-k", "3"], &question);
    for answer in answers["answers"].as_array().unwrap() {
        assert_eq!(answer["text"], slice("It was Ada Lovelace.", &answer["start"], &answer["end"]));
    }
    assert!(!answers["answers"].as_array().unwrap().is_empty());
    let tokens = predict("fill-mask", "masks", &[], "Paris is the <mask> of France.");
    assert_eq!(tokens["tokens"].as_array().unwrap().len(), 5);
    assert!(predict("generate", "texts", &["--max-new-tokens", "4"], "Once")["text"].is_string());
    let choices = predict("choose", "choices", &[], r#"{"text": "To drink", "choices": ["tea", "stone"]}"#);
    assert_eq!(choices["choices"][1]["choice"], "stone");
    let scores = predict("rerank", "ranks", &[], r#"{"query": "tea", "passages": ["green tea", "stone", "milk"]}"#);
    assert_eq!(scores["scores"].as_array().unwrap().len(), 3);
}

#[test]
fn mismatched_options_inputs_and_heads_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    write_fixture(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let predict = |args: &[&str], line: &str| polylance_with(&[&["predict"], args].concat(), &[], line.as_bytes());
    let tags = at("tags");
    let ner = ["--task", "ner", "--model", tags.as_str()];
    let _ =
        predict(&["--task", "zero-shot", "--model", &at("nli")], "").exits_with(2).stderr_contains(&["needs --labels"]);
    let _ = predict(&["--task", "zero-shot", "--model", &at("nli"), "--labels", ""], "")
        .exits_with(2)
        .stderr_contains(&["--labels"]);
    let _ = predict(&[&ner[..], &["--top-k", "3"]].concat(), "")
        .exits_with(2)
        .stderr_contains(&["--top-k does not belong"]);
    let _ = predict(&["--task", "qa", "--model", &at("answers")], "plain\n")
        .stderr_contains(&["line 1 of stdin", "\"question\""]);
    let _ = predict(&["--task", "qa", "--model", &tags], "").stderr_contains(&["has no head for question answering"]);

    // A gap in the labels, and a head for another hidden size.
    let config = folder.path().join("tags/config.json");
    let whole: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
    let mut gap = whole.clone();
    gap["id2label"].as_object_mut().unwrap().remove("2");
    fs::write(&config, gap.to_string()).unwrap();
    let _ = predict(&ner, "a\n").exits_with(2).stderr_contains(&["id2label", "2"]);
    let mut wide = whole;
    wide["hidden_size"] = json!(32);
    fs::write(&config, wide.to_string()).unwrap();
    let _ = predict(&ner, "a\n").stderr_contains(&["expected", "by the configuration"]);

    // A question column that the table lacks.
    let table = at("docs.lance");
    let _ = polylance(&["embed", "--source", &at("docs.parquet"), "--table", &table]).exits_with(0);
    let answers = at("answers");
    let column = ["annotate", "--table", &table, "--name", "who", "--task", "qa", "--model", &answers];
    let _ = polylance(&[&column[..], &["--question-column", "ask"]].concat())
        .exits_with(2)
        .stderr_contains(&["no column \"ask\""]);
    let _ = polylance(&column).exits_with(2).stderr_contains(&["--question"]);
    let _ = polylance(&[
        "annotate",
        "--table",
        &table,
        "--name",
        "text",
        "--task",
        "qa",
        "--model",
        &answers,
        "--question",
        "q",
    ])
    .exits_with(2)
    .stderr_contains(&["column \"text\" exists"]);
}
