//! Every commit records its run, its pipeline and its range of source rows. Tables of the first version stay usable.

use std::{collections::HashMap, fs, process::Command};

use lance::Dataset;
use polylance_sink::properties;
use polylance_tests::{Outcome, fake_job, polylance, repository, write_fake_corpus};

/// The properties of the transaction that made a version.
fn transaction_properties(table: &str, version: u64) -> HashMap<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dataset = Dataset::open(table).await.unwrap();
        let transaction = dataset.read_transaction_by_version(version).await.unwrap().unwrap();
        transaction.transaction_properties.unwrap().as_ref().clone()
    })
}

#[test]
fn commit_records_its_run_pipeline_and_source_rows() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, table) = (at("docs.jsonl"), at("docs.lance"));
    let run = |documents: usize, rows: u64| -> serde_json::Value {
        write_fake_corpus(source.as_ref(), documents);
        let output = fake_job(&source, &table, rows).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let first = run(6, 1000);
    let second = run(7, 1000);
    assert_eq!((&first["version"], &second["version"]), (&1.into(), &2.into()));
    let (of_first, of_second) = (transaction_properties(&table, 1), transaction_properties(&table, 2));
    for (summary, recorded, first, last, documents) in
        [(&first, &of_first, 0, 5, "6"), (&second, &of_second, 6, 6, "1")]
    {
        assert_eq!(summary["run_id"], recorded[properties::RUN_ID]);
        assert_eq!(recorded[properties::SOURCE_FIRST], format!("{source}#{first}"));
        assert_eq!(recorded[properties::SOURCE_LAST], format!("{source}#{last}"));
        assert_eq!(recorded[properties::DOCUMENTS], documents);
    }
    assert_eq!(of_first[properties::PIPELINE].len(), 16);
    assert_eq!(of_first[properties::PIPELINE], of_second[properties::PIPELINE]);
}

/// Unpacks a table that version 0.1.0 made, with a pipeline file for its new place.
fn old_table(folder: &std::path::Path) -> [String; 3] {
    let archive = repository().join("tests/data/table-0.1.0.tar");
    let unpacked = Command::new("tar").arg("xf").arg(archive).arg("-C").arg(folder).status().unwrap();
    assert!(unpacked.success());
    let at = |name: &str| folder.join(name).display().to_string();
    let pipeline = fs::read_to_string(at("pipeline.toml")).unwrap();
    let pipeline = ["docs.jsonl", "docs.lance", "model", "head"]
        .iter()
        .fold(pipeline, |pipeline, name| pipeline.replace(&format!("= \"{name}\""), &format!("= \"{}\"", at(name))));
    fs::write(at("pipeline.toml"), pipeline).unwrap();
    [at("docs.jsonl"), at("docs.lance"), at("pipeline.toml")]
}

/// Such a table has content hashes of the first rule and no identity.
#[test]
fn table_of_version_0_1_0_is_continued_annotated_compacted_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let [source, table, pipeline] = old_table(folder.path());
    let run = || polylance(&["run", &pipeline, "--json"]).exits_with(3);
    let first_line = |outcome: &Outcome| -> serde_json::Value {
        serde_json::from_str(outcome.stdout.lines().next().unwrap()).unwrap()
    };
    // No hash has changed: only the refused row is tried again.
    let summary = first_line(&run());
    assert_eq!((&summary["rows_skipped"], &summary["rows_written"]), (&300.into(), &0.into()), "{summary}");

    let mut rows = fs::read_to_string(&source).unwrap();
    rows = rows.replacen(r#""tags": ["a", "n3"]"#, r#""tags": ["a, n3"]"#, 1);
    rows = rows.replacen("to be near stone 5\"", "to be near bread 5\"", 1);
    rows += "{\"id\":\"new\",\"text\":\"a tree near bread\",\"lang\":\"eng\",\"tags\":[]}\n";
    fs::write(&source, rows).unwrap();
    let summary = first_line(&run());
    // Under the first rule, lists that print alike are equal.
    assert_eq!((&summary["rows_skipped"], &summary["rows_written"]), (&299.into(), &2.into()), "{summary}");

    let _merged = polylance(&["compact", "--table", &table, "--cleanup", "--older-than", "0"]).exits_with(0);
    let count = "SELECT count(*) n, count(topic) topics, count(DISTINCT doc_id) documents FROM docs";
    let counted = polylance(&["sql", "--json", "--table", &table, count]).exits_with(0).json();
    assert_eq!(counted, serde_json::json!({"n": 301, "topics": 301, "documents": 301}));
    let hits = polylance(&["search", "--table", &table, "--mode", "text", "--json", "bread"]).exits_with(0);
    assert!(hits.stdout.contains("\"new\"") && hits.stdout.contains("\"d5\""), "{}", hits.stdout);
    assert!(!hits.stdout.contains("\"d6\""), "{}", hits.stdout);
}
