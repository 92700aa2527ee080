use lance::dataset::{CommitBuilder, InsertBuilder, WriteMode, WriteParams, transaction::Operation};

use crate::tests::*;
use crate::{
    Table,
    commit::{
        known_rows::RowAddresses,
        retry::is_conflict,
        transaction::{ConcurrentWrites, commit_first_version, commit_update},
    },
    properties,
};

#[tokio::test]
async fn shrinking_documents_leave_no_stale_chunk() {
    let fixture = TestTable::new();
    let first: Vec<_> =
        (0..40).map(|i| Doc::new(i, &format!("d{i}"), if i < 20 { &["a", "b", "c", "d"] } else { &["a"] })).collect();
    run(vec![batch(&first)], fixture.target("r1", 7)).await.unwrap();
    assert_eq!(fixture.dataset().await.count_rows(None).await.unwrap(), 100);

    let second: Vec<_> = (0..20).map(|i| Doc::new(i, &format!("d{i}"), &["new"])).collect();
    let commits = run(vec![batch(&second)], fixture.target("r2", 6)).await.unwrap();
    assert_eq!(commits.iter().map(|commit| commit.chunks).sum::<u64>(), 20);
    let rows = fixture.rows().await;
    assert_eq!(rows.len(), 40);
    for i in 0..40 {
        let id = format!("d{i}");
        let found: Vec<_> =
            rows.iter().filter(|row| row.0 == id).map(|row| (row.1, row.2.as_str(), row.3.as_str())).collect();
        assert_eq!(found, [if i < 20 { (0, "new", "r2") } else { (0, "a", "r1") }], "{id}");
    }
    let transaction = fixture.dataset().await.read_transaction().await.unwrap().unwrap();
    let replaced = transaction.transaction_properties.unwrap().get(properties::REPLACED).cloned();
    assert_eq!(replaced.as_deref(), Some("8"));
}

#[tokio::test]
async fn no_version_has_a_half_replaced_document() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1", "2", "3"])])], fixture.target("r1", 1)).await.unwrap();
    run(vec![batch(&[Doc::new(0, "a", &["x", "y"])])], fixture.target("r2", 1)).await.unwrap();
    let dataset = fixture.dataset().await;
    let mut counts = Vec::new();
    for version in dataset.versions().await.unwrap() {
        counts.push(dataset.checkout_version(version.version).await.unwrap().count_rows(None).await.unwrap());
    }
    assert_eq!(counts, [3, 2]);
}

#[tokio::test]
async fn rows_added_by_another_writer_between_windows_are_replaced() {
    let fixture = TestTable::new();
    let docs: Vec<_> = (0..4).map(|i| Doc::new(i, &format!("d{i}"), &["ours"])).collect();
    let plan = plan(docs.iter().map(|doc| batch(std::slice::from_ref(doc))).collect(), fixture.target("r1", 1));
    let mut commits = plan.execute(0, SessionContext::new().task_ctx()).unwrap();
    commits.try_next().await.unwrap().unwrap();

    // Another run of the same corpus writes d3 and a document of its own.
    let other = [Doc::new(3, "d3", &["theirs", "theirs"]), Doc::new(9, "d9", &["theirs"])];
    run(vec![batch(&other)], fixture.target("other", 100)).await.unwrap();
    let rest: Vec<_> = commits.try_collect().await.unwrap();

    assert_eq!(rest.len(), 3);
    let mut rows: Vec<_> = fixture.rows().await.into_iter().map(|(id, _, text, _)| (id, text)).collect();
    rows.sort();
    let expected = [("d0", "ours"), ("d1", "ours"), ("d2", "ours"), ("d3", "ours"), ("d9", "theirs")];
    assert_eq!(rows, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

#[tokio::test]
async fn commits_that_add_rows_conflict_with_each_other() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1", "2"])])], fixture.target("r1", 1)).await.unwrap();
    let before = fixture.dataset().await;
    run(vec![batch(&[Doc::new(1, "b", &["1"])])], fixture.target("r2", 1)).await.unwrap();

    let rows = fixture.dataset().await.scan().try_into_batch().await.unwrap();
    let append = async |dataset: &Dataset| {
        let params = WriteParams { mode: WriteMode::Append, ..WriteParams::default() };
        let insert = InsertBuilder::new(Arc::new(dataset.clone())).with_params(&params);
        insert.execute_uncommitted(vec![rows.slice(2, 1)]).await.unwrap()
    };
    let commit = async |dataset: &Dataset| {
        let Operation::Append { fragments } = append(dataset).await.operation else { panic!("an append") };
        commit_update(dataset, fragments, &RowAddresses::new(), ConcurrentWrites::Reject, HashMap::new()).await
    };
    let refused = commit(&before).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused:?}");
    // A commit that only deletes does not conflict.
    let removed = RowAddresses::from([(0, vec![0])]);
    let after =
        commit_update(&before, Vec::new(), &removed, ConcurrentWrites::AllowDisjoint, HashMap::new()).await.unwrap();
    assert_eq!((after.version_id(), after.count_rows(None).await.unwrap()), (3, 2));
    // What another program appends may be any document.
    CommitBuilder::new(Arc::new(after.clone())).execute(append(&after).await).await.unwrap();
    let refused = commit(&after).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused:?}");
}

#[tokio::test]
async fn later_run_replaces_rows_of_an_earlier_run() {
    let fixture = TestTable::new();
    for (run_id, text) in [("r1", "one"), ("r2", "two"), ("r3", "three")] {
        run(vec![batch(&[Doc::new(0, "a", &[text]), Doc::new(1, "b", &[text])])], fixture.target(run_id, 1))
            .await
            .unwrap();
    }
    let rows = fixture.rows().await;
    assert_eq!(
        rows.iter().map(|row| (row.0.as_str(), row.2.as_str())).collect::<Vec<_>>(),
        [("a", "three"), ("b", "three")]
    );
    assert_eq!(Table::open(&fixture.uri()).await.unwrap().unwrap().version(), 6);
}

#[tokio::test]
async fn first_commit_never_replaces_an_existing_table() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let schema = fixture.target("r2", 1).schema();
    let error = commit_first_version(&fixture.uri(), &schema, vec![], HashMap::new()).await.unwrap_err();
    assert!(is_conflict(&error), "{error:?}");
    assert_eq!(fixture.rows().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_runs_leave_each_document_once() {
    let fixture = TestTable::new();
    let docs: Vec<_> = (0..8).map(|i| Doc::new(i, &format!("d{i}"), &["1", "2"])).collect();
    let batches = || docs.iter().map(|doc| batch(std::slice::from_ref(doc))).collect::<Vec<_>>();
    let (first, second) =
        tokio::join!(run(batches(), fixture.target("r1", 2)), run(batches(), fixture.target("r2", 2)));
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (8, 8));
    let mut keys = fixture.keys().await;
    keys.sort();
    let expected: Vec<_> = (0..8).flat_map(|i| (0..2).map(move |chunk| (format!("d{i}"), chunk))).collect();
    assert_eq!(keys, expected);
}
