//! Heads on the embedding's own encoder need no pass of their own and give the same annotations as in one.

use std::{fs, path::Path};

use polylance_encoder::HeadKind;
use polylance_tests::{Row, polylance, write_head_model, write_parquet};
use serde_json::{Value, json};

fn write_corpus(path: &Path, documents: usize) {
    let long = "Ada Lovelace met Charles Babbage in London, and they wrote of engines. ".repeat(12);
    let texts = ["Everyone has the right to education.", "ทุกคนมีสิทธิในการศึกษา", "👩‍👩‍👧 São Paulo 🇧🇷 Zoe\u{308}!", &long];
    let rows: Vec<Row> = (0..documents).map(|at| Row::new(at.to_string(), texts[at % texts.len()])).collect();
    write_parquet(path, &rows);
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, task, labels) in [
            ("classes", HeadKind::SequenceClassification, &["sport", "law"][..]),
            ("tags", HeadKind::TokenClassification, &["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]),
            ("nli", HeadKind::SequenceClassification, &["contradiction", "neutral", "entailment"]),
        ] {
            write_head_model(&folder.path().join(name), task, labels);
        }
        write_corpus(&folder.path().join("docs.parquet"), 6);
        Self(folder)
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Runs the pipeline with `heads` into a table.
    fn run(&self, table: &str, heads: &str, more: &[&str]) -> polylance_tests::Outcome {
        let (docs, classes, table) = (self.at("docs.parquet"), self.at("classes"), self.at(table));
        let pipeline = format!(
            "version = 1\n[source]\nuri = \"{docs}\"\n[model]\nid = \"{classes}\"\ndtype = \"f32\"\n[chunk]\ntokens = 64\noverlap = 12\n\
             [table]\nuri = \"{table}\"\n{heads}"
        );
        let job = self.at("job.toml");
        fs::write(&job, pipeline).unwrap();
        polylance(&[&["run", &job], more].concat())
    }

    fn heads(&self) -> String {
        let (classes, tags) = (self.at("classes"), self.at("tags"));
        format!(
            "[[annotate]]\nname = \"topic\"\ntask = \"classify\"\nmodel = \"{classes}\"\n\
             [[annotate]]\nname = \"people\"\ntask = \"ner\"\nmodel = \"{tags}\"\naggregation = \"simple\"\n"
        )
    }

    fn rows(&self, table: &str) -> Vec<Value> {
        let table = format!("t={}", self.at(table));
        let sql = "SELECT doc_id, chunk, topic, people FROM t ORDER BY doc_id, chunk";
        let outcome = polylance(&["sql", "--table", &table, "--json", sql]).exits_with(0);
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn data_files(&self, table: &str) -> usize {
        fs::read_dir(self.0.path().join(table).join("data")).unwrap().count()
    }
}

/// Whether two values are equal, scores up to the rounding of a sum in another order.
fn nearly_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= 1e-5,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| nearly_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| nearly_equal(a, b)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn fused_heads_need_no_pass_and_give_the_same_annotations() {
    let place = Place::new();
    let first = place.run("shared.lance", &place.heads(), &[]).exits_with(0);
    let first = first.stderr_contains(&["a new row costs one pass: the embedding with topic, people"]);
    assert!(first.stdout.contains("annotated with the embedding"), "{}", first.stdout);
    assert_eq!(place.data_files("shared.lance"), 1, "vectors, classes and spans are in one file");

    let _ = place.run("apart.lance", "", &[]).exits_with(0);
    let (table, classes, tags) = (place.at("apart.lance"), place.at("classes"), place.at("tags"));
    let annotate = |args: &[&str]| {
        let _ = polylance(&[&["annotate", "--table", table.as_str()], args].concat()).exits_with(0);
    };
    annotate(&["--name", "topic", "--task", "classify", "--model", &classes]);
    annotate(&["--name", "people", "--task", "ner", "--model", &tags, "--aggregation", "simple"]);
    let (shared, apart) = (place.rows("shared.lance"), place.rows("apart.lance"));
    assert!(shared.len() > 6 && shared.iter().any(|row| !row["people"].as_array().unwrap().is_empty()));
    assert!(nearly_equal(&json!(shared), &json!(apart)), "{shared:?}\n{apart:?}");

    // No row is missing and the column is of the same head: `annotate` has nothing to do.
    let shared = place.at("shared.lance");
    let again =
        ["annotate", "--table", &shared, "--name", "topic", "--task", "classify", "--model", &classes, "--json"];
    assert_eq!(polylance(&again).exits_with(0).json()["rows_missing"], 0);
}

#[test]
fn fused_head_added_later_fills_old_rows_too() {
    let place = Place::new();
    let _ = place.run("docs.lance", "", &[]).exits_with(0);
    write_corpus(&place.0.path().join("docs.parquet"), 10);
    let nli = place.at("nli");
    let zero_shot = format!(
        "[[annotate]]\nname = \"subject\"\ntask = \"zero-shot\"\nmodel = \"{nli}\"\nlabels = [\"law\", \"food\"]\n"
    );
    let heads = place.heads() + &zero_shot;
    let outcome = place.run("docs.lance", &heads, &["--json"]).exits_with(0);
    let outcome = outcome
        .stderr_contains(&["a new row costs 2 passes: the embedding with topic, people, then one each for subject"]);
    let lines: Vec<Value> = outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (written, all) = (lines[0]["chunks_written"].as_u64().unwrap(), place.rows("docs.lance"));
    let old = all.len() as u64 - written;
    let missing: Vec<_> =
        lines[1..].iter().map(|line| (&line["in_pass"], line["rows_missing"].as_u64().unwrap())).collect();
    assert_eq!(missing, [(&json!(true), old), (&json!(true), old), (&json!(false), all.len() as u64)]);
    assert!(all.iter().all(|row| row["topic"]["label"].is_string() && row["people"].is_array()), "{all:?}");

    // A different head under the same name: all rows are annotated again, once.
    let other = heads.replace("\"simple\"", "\"first\"");
    let outcome = place.run("docs.lance", &other, &["--json"]).exits_with(0);
    let outcome = outcome.stderr_contains(&["column people was filled by another head"]);
    let people: Value = serde_json::from_str(outcome.stdout.lines().nth(2).unwrap()).unwrap();
    assert_eq!(people["rows_annotated"], json!(all.len()));
}
