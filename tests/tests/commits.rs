//! Every commit says which run of which pipeline made it, of which rows.

use std::collections::HashMap;

use lance::Dataset;
use polylance_sink::properties;
use polylance_tests::{fake_job, write_fake_corpus};

/// What the transaction of a version says about itself.
fn said(table: &str, version: u64) -> HashMap<String, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let dataset = Dataset::open(table).await.unwrap();
        let transaction = dataset.read_transaction_by_version(version).await.unwrap().unwrap();
        transaction.transaction_properties.unwrap().as_ref().clone()
    })
}

#[test]
fn a_commit_says_which_run_of_which_pipeline_made_it_of_what() {
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
    let (of_first, of_second) = (said(&table, 1), said(&table, 2));
    for (summary, said, first, last, documents) in [(&first, &of_first, 0, 5, "6"), (&second, &of_second, 6, 6, "1")] {
        assert_eq!(summary["run_id"], said[properties::RUN_ID]);
        assert_eq!(said[properties::SOURCE_FIRST], format!("{source}#{first}"));
        assert_eq!(said[properties::SOURCE_LAST], format!("{source}#{last}"));
        assert_eq!(said[properties::DOCUMENTS], documents);
    }
    assert_eq!(of_first[properties::PIPELINE].len(), 16);
    assert_eq!(of_first[properties::PIPELINE], of_second[properties::PIPELINE]);
}
