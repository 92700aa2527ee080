use lance::dataset::{CommitBuilder, InsertBuilder, WriteMode, WriteParams, transaction::Operation};

use crate::tests::*;
use crate::{
    Table,
    commit::{
        known_rows::RowAddresses,
        retry::is_conflict,
        transaction::{Others, change, create},
    },
    properties,
};

#[tokio::test]
async fn longer_documents_that_shrink_leave_no_stale_chunk() {
    let place = Place::new();
    let first: Vec<_> =
        (0..40).map(|i| Doc::new(i, &format!("d{i}"), if i < 20 { &["a", "b", "c", "d"] } else { &["a"] })).collect();
    run(vec![batch(&first)], place.target("r1", 7)).await.unwrap();
    assert_eq!(place.dataset().await.count_rows(None).await.unwrap(), 100);

    let second: Vec<_> = (0..20).map(|i| Doc::new(i, &format!("d{i}"), &["new"])).collect();
    let commits = run(vec![batch(&second)], place.target("r2", 6)).await.unwrap();
    assert_eq!(commits.iter().map(|c| c[2]).sum::<u64>(), 20);
    let rows = place.rows().await;
    assert_eq!(rows.len(), 40);
    for i in 0..40 {
        let id = format!("d{i}");
        let found: Vec<_> =
            rows.iter().filter(|row| row.0 == id).map(|row| (row.1, row.2.as_str(), row.3.as_str())).collect();
        assert_eq!(found, [if i < 20 { (0, "new", "r2") } else { (0, "a", "r1") }], "{id}");
    }
    let transaction = place.dataset().await.read_transaction().await.unwrap().unwrap();
    let replaced = transaction.transaction_properties.unwrap().get(properties::REPLACED).cloned();
    assert_eq!(replaced.as_deref(), Some("8"));
}

#[tokio::test]
async fn a_reader_never_sees_a_document_half_replaced() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["1", "2", "3"])])], place.target("r1", 1)).await.unwrap();
    run(vec![batch(&[Doc::new(0, "a", &["x", "y"])])], place.target("r2", 1)).await.unwrap();
    let dataset = place.dataset().await;
    let mut counts = Vec::new();
    for version in dataset.versions().await.unwrap() {
        counts.push(dataset.checkout_version(version.version).await.unwrap().count_rows(None).await.unwrap());
    }
    assert_eq!(counts, [3, 2]);
}

#[tokio::test]
async fn rows_that_another_writer_adds_between_windows_are_replaced_too() {
    let place = Place::new();
    let docs: Vec<_> = (0..4).map(|i| Doc::new(i, &format!("d{i}"), &["ours"])).collect();
    let plan = plan(docs.iter().map(|doc| batch(std::slice::from_ref(doc))).collect(), place.target("r1", 1));
    let mut commits = plan.execute(0, SessionContext::new().task_ctx()).unwrap();
    commits.try_next().await.unwrap().unwrap();

    // Another run of the same corpus writes d3 and a document of its own.
    let other = [Doc::new(3, "d3", &["theirs", "theirs"]), Doc::new(9, "d9", &["theirs"])];
    run(vec![batch(&other)], place.target("other", 100)).await.unwrap();
    let rest: Vec<_> = commits.try_collect().await.unwrap();

    assert_eq!(rest.len(), 3);
    let mut rows: Vec<_> = place.rows().await.into_iter().map(|(id, _, text, _)| (id, text)).collect();
    rows.sort();
    let expected = [("d0", "ours"), ("d1", "ours"), ("d2", "ours"), ("d3", "ours"), ("d9", "theirs")];
    assert_eq!(rows, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

#[tokio::test]
async fn a_commit_that_brings_rows_passes_over_none_that_does() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["1", "2"])])], place.target("r1", 1)).await.unwrap();
    let before = place.dataset().await;
    run(vec![batch(&[Doc::new(1, "b", &["1"])])], place.target("r2", 1)).await.unwrap();

    let rows = place.dataset().await.scan().try_into_batch().await.unwrap();
    let append = async |dataset: &Dataset| {
        let params = WriteParams { mode: WriteMode::Append, ..WriteParams::default() };
        let insert = InsertBuilder::new(Arc::new(dataset.clone())).with_params(&params);
        insert.execute_uncommitted(vec![rows.slice(2, 1)]).await.unwrap()
    };
    let commit = async |dataset: &Dataset| {
        let Operation::Append { fragments } = append(dataset).await.operation else { panic!("an append") };
        change(dataset, fragments, &RowAddresses::new(), Others::Heed, HashMap::new()).await
    };
    let refused = commit(&before).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused:?}");
    // One that only takes away does.
    let removed = RowAddresses::from([(0, vec![0])]);
    let after = change(&before, Vec::new(), &removed, Others::Pass, HashMap::new()).await.unwrap();
    assert_eq!((after.version_id(), after.count_rows(None).await.unwrap()), (3, 2));
    // What another program appends may be any document.
    CommitBuilder::new(Arc::new(after.clone())).execute(append(&after).await).await.unwrap();
    let refused = commit(&after).await.unwrap_err();
    assert!(is_conflict(&refused), "{refused:?}");
}

#[tokio::test]
async fn a_table_reopened_replaces_what_an_earlier_process_wrote() {
    let place = Place::new();
    for (run_id, text) in [("r1", "one"), ("r2", "two"), ("r3", "three")] {
        run(vec![batch(&[Doc::new(0, "a", &[text]), Doc::new(1, "b", &[text])])], place.target(run_id, 1))
            .await
            .unwrap();
    }
    let rows = place.rows().await;
    assert_eq!(
        rows.iter().map(|row| (row.0.as_str(), row.2.as_str())).collect::<Vec<_>>(),
        [("a", "three"), ("b", "three")]
    );
    assert_eq!(Table::open(&place.uri()).await.unwrap().unwrap().version(), 6);
}

#[tokio::test]
async fn a_first_commit_never_replaces_a_table_that_came_in_between() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], place.target("r1", 1)).await.unwrap();
    let schema = place.target("r2", 1).schema();
    let error = create(&place.uri(), &schema, vec![], HashMap::new()).await.unwrap_err();
    assert!(is_conflict(&error), "{error:?}");
    assert_eq!(place.rows().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_runs_at_once_leave_each_document_once() {
    let place = Place::new();
    let docs: Vec<_> = (0..8).map(|i| Doc::new(i, &format!("d{i}"), &["1", "2"])).collect();
    let batches = || docs.iter().map(|doc| batch(std::slice::from_ref(doc))).collect::<Vec<_>>();
    let (first, second) = tokio::join!(run(batches(), place.target("r1", 2)), run(batches(), place.target("r2", 2)));
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (8, 8));
    let mut keys = place.keys().await;
    keys.sort();
    let expected: Vec<_> = (0..8).flat_map(|i| (0..2).map(move |chunk| (format!("d{i}"), chunk))).collect();
    assert_eq!(keys, expected);
}
