use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::*;
use crate::{
    Cleaned, Contention, IndexSpec, Mode, Retention, SMALL_FRAGMENTS, clean, compact, declare_columns, merge_index,
    missing_rows, plan_compaction, tests::columns::topic, update_index, upkeep,
};
use polylance_schema::{IndexKind, MaintenancePolicy};

const POLICY_NOW: MaintenancePolicy =
    MaintenancePolicy { compact: true, cleanup: true, keep_versions: 1, keep_days: 0 };

const NOW: Retention = Retention { older_than: Duration::ZERO, keep_versions: 1, unnamed: Duration::ZERO };

/// Document `n`.
fn doc(n: u64) -> Doc {
    Doc::new(n, &format!("d{n:03}"), &[&format!("d{n:03}0"), &format!("d{n:03}1")])
}

fn bad(n: u64) -> Doc {
    doc(n).failing_at(0)
}

impl Place {
    /// Adds documents of two chunks each, every one by a commit of its own.
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

    /// A data file that no version names, written so long ago.
    fn stray(&self, name: &str, age: Duration) -> PathBuf {
        let path = self.path("data").join(name);
        fs::write(&path, [0; 100]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::now() - age).unwrap();
        path
    }
}

async fn merge(place: &Place) -> crate::Compacted {
    compact(&place.uri(), 0, Contention::Retry).await.unwrap()
}

#[tokio::test]
async fn many_small_fragments_become_one_with_the_same_rows() {
    let place = Place::new();
    place.add(0..20).await;
    let (before, schema) = (place.rows().await, place.dataset().await.schema().clone());
    let planned = plan_compaction(&place.uri()).await.unwrap();
    assert_eq!((planned.fragments_before, planned.fragments_after), (20, 1));
    assert_eq!(place.fragments().await, 20);

    let done = merge(&place).await;
    assert_eq!((done.fragments_before, done.fragments_after, done.fragments_merged), (20, 1, 20));
    assert_eq!(place.rows().await, before);
    assert_eq!(place.dataset().await.schema().metadata, schema.metadata);
    place.dataset().await.validate().await.unwrap();
    let version = place.dataset().await.version_id();
    assert_eq!(merge(&place).await.version, version, "nothing to merge makes no version");
}

#[tokio::test]
async fn a_run_goes_on_after_its_rows_were_merged() {
    let place = Place::new();
    place.add(0..6).await;
    merge(&place).await;
    // One document changes, one comes, and their old rows are found where they are now.
    run(vec![batch(&[Doc::new(2, "d002", &["new"]), doc(9)])], place.target("r2", 0)).await.unwrap();
    merge(&place).await;
    let mut keys: Vec<String> = place.rows().await.into_iter().map(|(.., text, _)| text).collect();
    keys.sort();
    let mut expected: Vec<String> = [0, 1, 3, 4, 5, 9].iter().flat_map(|&n| doc(n).chunks).collect();
    expected.push("new".to_owned());
    expected.sort();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_run_whose_fragments_are_merged_under_it_loses_and_doubles_nothing() {
    let place = Place::new();
    place.add(0..10).await;
    // The run replaces every document, one a commit; a merge comes between each two commits.
    let batches: Vec<_> = (0..10).map(|n| batch(&[Doc::new(n, &format!("d{n:03}"), &["new"])])).collect();
    let mut commits = plan(batches, place.target("r2", 1)).execute(0, SessionContext::new().task_ctx()).unwrap();
    let mut versions = Vec::new();
    while let Some(commit) = commits.try_next().await.unwrap() {
        versions.push(commit.column(0).as_primitive::<UInt64Type>().value(0));
        merge(&place).await;
    }
    assert_eq!(versions.len(), 10);
    let mut rows = place.rows().await;
    rows.sort();
    let expected: Vec<_> = (0..10).map(|n| (format!("d{n:03}"), 0, "new".to_owned(), "r2".to_owned())).collect();
    assert_eq!(rows, expected);
}

#[tokio::test]
async fn columns_of_heads_keep_their_values_nulls_and_contracts() {
    let place = Place::new();
    place.add(0..5).await;
    let column = topic("1");
    declare_columns(&place.uri(), std::slice::from_ref(&column)).await.unwrap();
    // Three rows have a value: one fragment and a half. Two fragments have no file with the column at all.
    place.fill(&column, 3).await;
    let before = place.topics().await;
    assert_eq!(before.iter().filter(|(_, topic)| topic.is_some()).count(), 3);

    merge(&place).await;
    assert_eq!(place.fragments().await, 1);
    assert_eq!(place.topics().await, before);
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 7);
    let field = arrow::datatypes::Schema::from(place.dataset().await.schema());
    assert_eq!(field.field_with_name("topic").unwrap().metadata(), column.metadata());
    place.fill(&column, 100).await;
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 0);
    assert!(place.topics().await.iter().all(|(text, topic)| topic.as_ref() == Some(text)));
    place.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn rows_that_a_merge_moves_under_an_annotation_are_reported_and_found_again() {
    let place = Place::new();
    place.add(0..4).await;
    let column = topic("1");
    declare_columns(&place.uri(), std::slice::from_ref(&column)).await.unwrap();
    let read = place.missing().await;
    merge(&place).await;
    let commits = place.write_moved(&column, &read).await;
    assert_eq!(commits.iter().map(|commit| commit[1]).sum::<u64>(), 0);
    assert_eq!(commits.iter().map(|commit| commit[3]).sum::<u64>(), 8);
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 8);
    place.fill(&column, 100).await;
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 0);
}

#[tokio::test]
async fn an_annotation_and_a_merge_at_once_both_succeed() {
    let place = Place::new();
    place.add(0..12).await;
    let column = topic("1");
    declare_columns(&place.uri(), std::slice::from_ref(&column)).await.unwrap();
    let (done, ()) = tokio::join!(merge(&place), async {
        place.fill(&column, 100).await;
    });
    assert_eq!(done.fragments_after, 1);
    // What the merge moved away under the annotation is still missing, and nothing else is.
    place.fill(&column, 100).await;
    assert_eq!(missing_rows(&place.uri(), "topic").await.unwrap(), 0);
    assert_eq!(place.topics().await.len(), 24);
    place.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn two_upkeeps_at_once_do_no_harm() {
    let place = Place::new();
    place.add(0..SMALL_FRAGMENTS as u64 + 4).await;
    let before = place.rows().await;
    let uri = place.uri();
    let (one, two) = tokio::join!(upkeep(&uri, &POLICY_NOW), upkeep(&uri, &POLICY_NOW));
    let mut merged = [one.unwrap().fragments_merged, two.unwrap().fragments_merged];
    merged.sort_unstable();
    assert_eq!(merged, [0, 20], "one merges, the other leaves it");
    assert_eq!(place.fragments().await, 1);
    assert_eq!(place.rows().await, before);
    place.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn a_few_small_fragments_are_left_alone() {
    let place = Place::new();
    place.add(0..SMALL_FRAGMENTS as u64).await;
    let policy = MaintenancePolicy { compact: true, ..MaintenancePolicy::OFF };
    assert_eq!(upkeep(&place.uri(), &policy).await.unwrap().fragments_merged, 0);
    place.add(100..101).await;
    assert_eq!(upkeep(&place.uri(), &MaintenancePolicy::OFF).await.unwrap(), crate::Upkept::default());
    assert_eq!(upkeep(&place.uri(), &policy).await.unwrap().fragments_merged, SMALL_FRAGMENTS as u64 + 1);
}

#[tokio::test]
async fn the_index_covers_all_rows_after_a_merge() {
    let place = Place::new();
    let docs = |range: std::ops::Range<u64>| batch(&range.map(doc).collect::<Vec<_>>());
    run(vec![docs(0..200)], place.target("r1", 100)).await.unwrap();
    let spec = IndexSpec { kind: IndexKind::IvfFlat, ..IndexSpec::default() };
    update_index(&place.uri(), &spec).await.unwrap();
    run(vec![docs(200..300)], place.target("r2", 100)).await.unwrap();
    let merged = merge_index(&place.uri()).await.unwrap();
    assert_eq!((merged.indexed_rows, merged.unindexed_rows), (600, 0));
    let done = merge(&place).await;
    assert_eq!(done.fragments_after, 1);
    let after = merge_index(&place.uri()).await.unwrap();
    assert_eq!((after.action, after.indexed_rows, after.unindexed_rows), (crate::IndexAction::Unchanged, 600, 0));
}

#[tokio::test]
async fn old_versions_go_but_for_the_newest() {
    let place = Place::new();
    place.add(0..6).await;
    merge(&place).await;
    let (before, files) = (place.rows().await, place.data_files().len());
    assert_eq!(files, 7);
    let keep = Retention { keep_versions: 3, ..NOW };
    let explained = clean(&place.uri(), &keep, Mode::Explain).await.unwrap();
    assert_eq!(place.data_files().len(), files, "explaining removes nothing");
    let cleaned = clean(&place.uri(), &keep, Mode::Remove).await.unwrap();
    assert_eq!(cleaned, explained);
    let versions = place.dataset().await.versions().await.unwrap().len() as u64;
    assert_eq!((cleaned.versions_kept, versions), (3, 3));

    let cleaned = clean(&place.uri(), &NOW, Mode::Remove).await.unwrap();
    assert_eq!(cleaned.versions_kept, 1);
    assert_eq!(place.data_files().len(), 1);
    assert_eq!(place.rows().await, before);
    // Age and count must both be passed.
    let old = Retention { older_than: Retention::WEEK, ..NOW };
    place.add(50..52).await;
    assert_eq!(clean(&place.uri(), &old, Mode::Remove).await.unwrap().versions_removed, 0);
}

#[tokio::test]
async fn a_file_that_no_version_names_goes_when_it_is_old_enough() {
    let place = Place::new();
    place.add(0..2).await;
    let minutes = |minutes| Duration::from_mins(minutes);
    let (young, old) = (place.stray("young.lance", minutes(50)), place.stray("old.lance", minutes(70)));
    // However short the retention, an hour is the least.
    let cleaned = clean(&place.uri(), &Retention { keep_versions: 10, ..NOW }, Mode::Remove).await.unwrap();
    assert_eq!((cleaned.files_removed, cleaned.bytes_removed), (1, 100));
    assert!(young.exists() && !old.exists());

    // By default a week.
    let (young, old) = (place.stray("a.lance", minutes(6 * 24 * 60)), place.stray("b.lance", minutes(8 * 24 * 60)));
    let cleaned = clean(&place.uri(), &Retention::default(), Mode::Remove).await.unwrap();
    assert_eq!(cleaned, Cleaned { versions_kept: 2, files_removed: 1, bytes_removed: 100, ..Cleaned::default() });
    assert!(young.exists() && !old.exists());
    assert_eq!(place.rows().await.len(), 4);
}

#[tokio::test]
async fn the_quarantine_is_kept_too() {
    let place = Place::new();
    let batches: Vec<_> = (0..20).map(|n| batch(&[bad(n)])).collect();
    for batch in batches {
        run(vec![batch], place.target("r1", 1)).await.unwrap();
    }
    let done = upkeep(&place.uri(), &POLICY_NOW).await.unwrap();
    assert_eq!(done.fragments_merged, 20);
    assert!(done.versions_removed >= 20, "{done:?}");
    let uri = crate::quarantine_uri(&place.uri());
    assert_eq!(Dataset::open(&uri).await.unwrap().count_rows(None).await.unwrap(), 20);
    // A row that fails again is found where it is now.
    run(vec![batch(&[bad(3)])], place.target("r2", 1)).await.unwrap();
    assert_eq!(Dataset::open(&uri).await.unwrap().count_rows(None).await.unwrap(), 20);
}
