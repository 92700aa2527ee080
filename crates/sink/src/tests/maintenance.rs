use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    CleanupMode, CleanupReport, IndexSpec, MAX_SMALL_FRAGMENTS, OnConflict, Retention, cleanup, compact,
    declare_columns, maintain, merge_index, missing_rows, plan_compaction, tests::columns::topic, update_index,
};
use polylance_schema::{IndexKind, MaintenancePolicy};

/// Maintenance that keeps one version, of any age.
const KEEP_ONE_VERSION: MaintenancePolicy =
    MaintenancePolicy { compact: true, cleanup: true, keep_versions: 1, keep_days: 0 };

const NOW: Retention = Retention { older_than: Duration::ZERO, keep_versions: 1, orphan_age: Duration::ZERO };

/// Document `n`, of two chunks.
fn doc(n: u64) -> Doc {
    Doc::new(n, &format!("d{n:03}"), &[&format!("d{n:03}0"), &format!("d{n:03}1")])
}

fn bad(n: u64) -> Doc {
    doc(n).failing_at(0)
}

impl TestTable {
    /// Adds documents, each by a commit of its own.
    async fn add(&self, docs: std::ops::Range<u64>) {
        let batches: Vec<_> = docs.map(|n| batch(&[doc(n)])).collect();
        run(batches, self.target("r1", 1)).await.unwrap();
    }

    async fn fragments(&self) -> usize {
        self.dataset().await.count_fragments()
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.uri()).join(name)
    }

    /// An orphaned data file of this age.
    fn orphaned_file(&self, name: &str, age: Duration) -> PathBuf {
        let path = self.path("data").join(name);
        fs::write(&path, [0; 100]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    }
}

async fn merge(fixture: &TestTable) -> crate::CompactionReport {
    compact(&fixture.uri(), 0, OnConflict::Retry).await.unwrap()
}

#[tokio::test]
async fn many_small_fragments_become_one_with_the_same_rows() {
    let fixture = TestTable::new();
    fixture.add(0..20).await;
    let (before, schema) = (fixture.rows().await, fixture.dataset().await.schema().clone());
    let planned = plan_compaction(&fixture.uri()).await.unwrap();
    assert_eq!((planned.fragments_before, planned.fragments_after), (20, 1));
    assert_eq!(fixture.fragments().await, 20);

    let done = merge(&fixture).await;
    assert_eq!((done.fragments_before, done.fragments_after, done.fragments_merged), (20, 1, 20));
    assert_eq!(fixture.rows().await, before);
    assert_eq!(fixture.dataset().await.schema().metadata, schema.metadata);
    fixture.dataset().await.validate().await.unwrap();
    let version = fixture.dataset().await.version_id();
    assert_eq!(merge(&fixture).await.version, version, "nothing to merge makes no version");
}

#[tokio::test]
async fn documents_are_replaced_after_their_rows_were_merged() {
    let fixture = TestTable::new();
    fixture.add(0..6).await;
    merge(&fixture).await;
    // One document changes and one is new; old rows are found in the merged fragment.
    run(vec![batch(&[Doc::new(2, "d002", &["new"]), doc(9)])], fixture.target("r2", 0)).await.unwrap();
    merge(&fixture).await;
    let mut keys: Vec<String> = fixture.rows().await.into_iter().map(|(.., text, _)| text).collect();
    keys.sort();
    let mut expected: Vec<String> = [0, 1, 3, 4, 5, 9].iter().flat_map(|&n| doc(n).chunks).collect();
    expected.push("new".to_owned());
    expected.sort();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn compaction_during_a_run_neither_loses_nor_duplicates_rows() {
    let fixture = TestTable::new();
    fixture.add(0..10).await;
    // The run replaces every document, one per commit, with a merge between commits.
    let batches: Vec<_> = (0..10).map(|n| batch(&[Doc::new(n, &format!("d{n:03}"), &["new"])])).collect();
    let mut commits = plan(batches, fixture.target("r2", 1)).execute(0, SessionContext::new().task_ctx()).unwrap();
    let mut versions = Vec::new();
    while let Some(commit) = commits.try_next().await.unwrap() {
        versions.push(commit.column(0).as_primitive::<UInt64Type>().value(0));
        merge(&fixture).await;
    }
    assert_eq!(versions.len(), 10);
    let mut rows = fixture.rows().await;
    rows.sort();
    let expected: Vec<_> = (0..10).map(|n| (format!("d{n:03}"), 0, "new".to_owned(), "r2".to_owned())).collect();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn compaction_keeps_values_nulls_and_contracts_of_head_columns() {
    let fixture = TestTable::new();
    fixture.add(0..5).await;
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    // Three rows have a value: one fragment and a half. Two fragments have no file with the column at all.
    fixture.fill(&column, 3).await;
    let before = fixture.topics().await;
    assert_eq!(before.iter().filter(|(_, topic)| topic.is_some()).count(), 3);

    merge(&fixture).await;
    assert_eq!(fixture.fragments().await, 1);
    assert_eq!(fixture.topics().await, before);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 7);
    let field = arrow::datatypes::Schema::from(fixture.dataset().await.schema());
    assert_eq!(field.field_with_name("topic").unwrap().metadata(), column.metadata());
    fixture.fill(&column, 100).await;
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
    assert!(fixture.topics().await.iter().all(|(text, topic)| topic.as_ref() == Some(text)));
    fixture.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn rows_moved_during_an_annotation_are_reported_and_found_again() {
    let fixture = TestTable::new();
    fixture.add(0..4).await;
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    let read = fixture.missing().await;
    merge(&fixture).await;
    let commits = fixture.write_moved(&column, &read).await;
    assert_eq!(commits.iter().map(|commit| commit.rows).sum::<u64>(), 0);
    assert_eq!(commits.iter().map(|commit| commit.moved).sum::<u64>(), 8);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 8);
    fixture.fill(&column, 100).await;
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
}

#[tokio::test]
async fn concurrent_annotation_and_compaction_both_succeed() {
    let fixture = TestTable::new();
    fixture.add(0..12).await;
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    let (done, ()) = tokio::join!(merge(&fixture), async {
        fixture.fill(&column, 100).await;
    });
    assert_eq!(done.fragments_after, 1);
    // Only the rows that the merge moved during the annotation are still missing.
    fixture.fill(&column, 100).await;
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
    assert_eq!(fixture.topics().await.len(), 24);
    fixture.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn concurrent_maintenance_runs_do_no_harm() {
    let fixture = TestTable::new();
    fixture.add(0..MAX_SMALL_FRAGMENTS as u64 + 4).await;
    let before = fixture.rows().await;
    let uri = fixture.uri();
    let (one, two) = tokio::join!(maintain(&uri, &KEEP_ONE_VERSION), maintain(&uri, &KEEP_ONE_VERSION));
    let mut merged = [one.unwrap().fragments_merged, two.unwrap().fragments_merged];
    merged.sort_unstable();
    assert_eq!(merged, [0, 20], "one merges, the other gives up");
    assert_eq!(fixture.fragments().await, 1);
    assert_eq!(fixture.rows().await, before);
    fixture.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn few_small_fragments_are_not_merged() {
    let fixture = TestTable::new();
    fixture.add(0..MAX_SMALL_FRAGMENTS as u64).await;
    let policy = MaintenancePolicy { compact: true, ..MaintenancePolicy::OFF };
    assert_eq!(maintain(&fixture.uri(), &policy).await.unwrap().fragments_merged, 0);
    fixture.add(100..101).await;
    assert_eq!(maintain(&fixture.uri(), &MaintenancePolicy::OFF).await.unwrap(), crate::MaintenanceReport::default());
    assert_eq!(maintain(&fixture.uri(), &policy).await.unwrap().fragments_merged, MAX_SMALL_FRAGMENTS as u64 + 1);
}

#[tokio::test]
async fn index_covers_all_rows_after_a_compaction() {
    let fixture = TestTable::new();
    let docs = |range: std::ops::Range<u64>| batch(&range.map(doc).collect::<Vec<_>>());
    run(vec![docs(0..200)], fixture.target("r1", 100)).await.unwrap();
    let spec = IndexSpec { kind: IndexKind::IvfFlat, ..IndexSpec::default() };
    update_index(&fixture.uri(), &spec).await.unwrap();
    run(vec![docs(200..300)], fixture.target("r2", 100)).await.unwrap();
    let merged = merge_index(&fixture.uri()).await.unwrap();
    assert_eq!((merged.indexed_rows, merged.unindexed_rows), (600, 0));
    let done = merge(&fixture).await;
    assert_eq!(done.fragments_after, 1);
    let after = merge_index(&fixture.uri()).await.unwrap();
    assert_eq!((after.action, after.indexed_rows, after.unindexed_rows), (crate::IndexAction::Unchanged, 600, 0));
}

#[tokio::test]
async fn old_versions_are_removed_except_the_newest() {
    let fixture = TestTable::new();
    fixture.add(0..6).await;
    merge(&fixture).await;
    let (before, files) = (fixture.rows().await, fixture.data_files().len());
    assert_eq!(files, 7);
    let keep = Retention { keep_versions: 3, ..NOW };
    let dry_run = cleanup(&fixture.uri(), &keep, CleanupMode::DryRun).await.unwrap();
    assert_eq!(fixture.data_files().len(), files, "a dry run removes nothing");
    let cleaned = cleanup(&fixture.uri(), &keep, CleanupMode::Remove).await.unwrap();
    assert_eq!(cleaned, dry_run);
    let versions = fixture.dataset().await.versions().await.unwrap().len() as u64;
    assert_eq!((cleaned.versions_kept, versions), (3, 3));

    let cleaned = cleanup(&fixture.uri(), &NOW, CleanupMode::Remove).await.unwrap();
    assert_eq!(cleaned.versions_kept, 1);
    assert_eq!(fixture.data_files().len(), 1);
    assert_eq!(fixture.rows().await, before);
    // A version must exceed both the age and the count.
    let old = Retention { older_than: Retention::WEEK, ..NOW };
    fixture.add(50..52).await;
    assert_eq!(cleanup(&fixture.uri(), &old, CleanupMode::Remove).await.unwrap().versions_removed, 0);
}

#[tokio::test]
async fn orphaned_file_is_removed_when_it_is_old_enough() {
    let fixture = TestTable::new();
    fixture.add(0..2).await;
    let minutes = |minutes| Duration::from_mins(minutes);
    let (young, old) =
        (fixture.orphaned_file("young.lance", minutes(50)), fixture.orphaned_file("old.lance", minutes(70)));
    // However short the retention, an orphaned file is kept for an hour.
    let cleaned = cleanup(&fixture.uri(), &Retention { keep_versions: 10, ..NOW }, CleanupMode::Remove).await.unwrap();
    assert_eq!((cleaned.files_removed, cleaned.bytes_removed), (1, 100));
    assert!(young.exists() && !old.exists());

    // By default it is kept for a week.
    let (young, old) = (
        fixture.orphaned_file("a.lance", minutes(6 * 24 * 60)),
        fixture.orphaned_file("b.lance", minutes(8 * 24 * 60)),
    );
    let cleaned = cleanup(&fixture.uri(), &Retention::default(), CleanupMode::Remove).await.unwrap();
    assert_eq!(
        cleaned,
        CleanupReport { versions_kept: 2, files_removed: 1, bytes_removed: 100, ..CleanupReport::default() }
    );
    assert!(young.exists() && !old.exists());
    assert_eq!(fixture.rows().await.len(), 4);
}

#[tokio::test]
async fn quarantine_is_maintained_too() {
    let fixture = TestTable::new();
    let batches: Vec<_> = (0..20).map(|n| batch(&[bad(n)])).collect();
    for batch in batches {
        run(vec![batch], fixture.target("r1", 1)).await.unwrap();
    }
    let done = maintain(&fixture.uri(), &KEEP_ONE_VERSION).await.unwrap();
    assert_eq!(done.fragments_merged, 20);
    assert!(done.versions_removed >= 20, "{done:?}");
    let uri = crate::quarantine_uri(&fixture.uri());
    assert_eq!(Dataset::open(&uri).await.unwrap().count_rows(None).await.unwrap(), 20);
    // The record of a row that fails again is found in its new fragment.
    run(vec![batch(&[bad(3)])], fixture.target("r2", 1)).await.unwrap();
    assert_eq!(Dataset::open(&uri).await.unwrap().count_rows(None).await.unwrap(), 20);
}
