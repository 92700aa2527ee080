//! `fit` trains heads on labelled rows; the folder it writes is a model like any other.

use std::{fs, path::Path};

use polylance_encoder::HeadKind;
use polylance_tests::{polylance, polylance_with, write_head_model};
use serde_json::{Value, json};

/// Labelled texts that even synthetic weights can separate, one of them without a label.
fn write_corpus(path: &Path) {
    let words = [("tea", "green tea with milk and honey"), ("law", "ทุกคนมีสิทธิในการศึกษา")];
    let line = |at: usize| {
        let (label, text) = words[at % 2];
        let label = if at == 7 { Value::Null } else { json!(label) };
        json!({"id": at.to_string(), "text": format!("{text} {}", at % 9), "topic": label, "number": at}).to_string()
    };
    fs::write(path, (0..60).map(line).collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn fitted_head_is_measured_usable_and_reproducible() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write_corpus(&folder.path().join("docs.jsonl"));
    write_head_model(&folder.path().join("backbone"), HeadKind::TokenClassification, &["O", "B-X"]);
    let (docs, backbone) = (at("docs.jsonl"), at("backbone"));
    let fit = |out: &str, more: &[&str]| {
        let out = at(out);
        let args = ["fit", "--source", &docs, "--label", "topic", "--model", &backbone, "--out", &out, "--json"];
        polylance(&[&args[..], more].concat())
    };

    let first = fit("topic", &["--where", "number < 40", "--test", "number >= 40"]).exits_with(0).json();
    assert_eq!((&first["labels"], &first["rows_without_label"]), (&json!(2), &json!(1)));
    assert_eq!((&first["report"]["rows"], &first["measured_on"]), (&json!(20), &json!("test rows")));
    assert_eq!(first["report"]["accuracy"], 1.0);

    // The stored vectors are reused, and the same seed gives the same file.
    let features = at("topic.features.lance");
    let again = fit("again", &["--where", "number < 40", "--features", &features]).exits_with(0).json();
    assert_eq!(again["measured_on"], "held-out rows");
    let weights = |name: &str| fs::read(folder.path().join(name).join("model.safetensors")).unwrap();
    assert!(weights("topic") == weights("again"), "the same seed gave another head");

    let config: Value = serde_json::from_slice(&fs::read(folder.path().join("topic/config.json")).unwrap()).unwrap();
    assert_eq!(config["id2label"], json!({"0": "law", "1": "tea"}));
    assert_eq!(config["polylance"]["head"], "pooled-linear");
    let model = at("topic");
    let predict = ["predict", "--task", "classify", "--model", model.as_str()];
    let answer = polylance_with(&predict, &[], "green tea with milk and honey 4\n".as_bytes()).exits_with(0).json();
    assert_eq!(answer["labels"][0]["label"], "tea");

    let table = at("docs.lance");
    let _ = polylance(&["embed", "--source", &docs, "--table", &table, "--keep", "topic"]).exits_with(0);
    let _ = polylance(&["annotate", "--table", &table, "--name", "found", "--task", "classify", "--model", &model])
        .exits_with(0);
    let sql = "SELECT count(*) AS wrong FROM t WHERE found.label <> topic";
    let wrong = polylance(&["sql", "--table", &format!("t={table}"), "--json", sql]).exits_with(0);
    assert_eq!(wrong.stdout.trim(), "{\"wrong\":0}");
}

#[test]
fn unusable_training_sets_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write_corpus(&folder.path().join("docs.jsonl"));
    write_head_model(&folder.path().join("backbone"), HeadKind::TokenClassification, &["O", "B-X"]);
    let (docs, backbone, out) = (at("docs.jsonl"), at("backbone"), at("out"));
    let fit = |label: &str, more: &[&str]| {
        let args = ["fit", "--source", &docs, "--label", label, "--model", &backbone, "--out", &out];
        polylance(&[&args[..], more].concat())
    };
    let _ = fit("topic", &["--where", "topic = 'tea'"])
        .exits_with(2)
        .stderr_contains(&["1 label: at least two are needed"]);
    let _ = fit("topic", &["--where", "number < 6"]).exits_with(2).stderr_contains(&["6 labelled rows: at least 10"]);
    let _ = fit("topik", &[]).stderr_contains(&["topik"]);
    let unknown = ["--where", "topic = 'tea' OR number < 2", "--held-out", "2"];
    let _ = fit("topic", &unknown).exits_with(2).stderr_contains(&["a share of 2 cannot be held out"]);
    assert!(!folder.path().join("out").exists(), "a head that was not fitted was written");
}

#[test]
fn tagger_fitted_to_conll_finds_its_entities() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    write_head_model(&folder.path().join("backbone"), HeadKind::SequenceClassification, &["a", "b"]);
    let names = ["Ada", "Zoë", "Čapek", "สมชาย", "Grace"];
    let sentence =
        |at: usize| format!("today\tO\n{}\tI-PER\nwrote\tO\nnumber\tO\nn{at}\tO\n\n", names[at % names.len()]);
    fs::write(folder.path().join("ner.txt"), (0..80).map(sentence).collect::<String>()).unwrap();
    let (source, backbone, out) = (at("ner.txt"), at("backbone"), at("tagger"));
    let fit = ["fit", "--source", &source, "--conll", "--model", &backbone, "--out", &out];
    let summary = polylance(&[&fit[..], &["--json"]].concat()).exits_with(0).json();
    assert_eq!((&summary["labels"], &summary["test_sentences"]), (&json!(2), &json!(16)));
    assert_eq!(summary["report"]["micro_f1"], 1.0, "{summary}");
    assert_eq!(summary["baseline_micro_f1"], 1.0);
    let config: Value = serde_json::from_slice(&fs::read(folder.path().join("tagger/config.json")).unwrap()).unwrap();
    assert_eq!(config["architectures"], json!(["XLMRobertaForTokenClassification"]));

    let predict = ["predict", "--task", "ner", "--model", &out, "--aggregation", "first"];
    let answer = polylance_with(&predict, &[], "today Čapek wrote\n".as_bytes()).exits_with(0).json();
    assert_eq!(answer["spans"][0]["text"], "Čapek");
    assert_eq!((&answer["spans"][0]["label"], &answer["spans"][0]["start"]), (&json!("PER"), &json!(6)));

    fs::write(folder.path().join("ner.txt"), "today\tO\nword\n").unwrap();
    let _ = polylance(&fit).exits_with(2).stderr_contains(&["line 2: the word \"word\" has no tag"]);
}
