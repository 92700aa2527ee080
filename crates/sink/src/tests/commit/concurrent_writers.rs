//! Many concurrent writers of the same documents: every version has each document once, in whatever order they commit.

use std::collections::BTreeSet;

use datafusion::common::runtime::SpawnedTask;

use crate::quarantine_uri;
use crate::tests::*;

/// Several concurrent runs of the same documents, two per window; every third document fails.
async fn run_at_once(fixture: &TestTable, round: u64, writers: usize) {
    let docs: Vec<_> = (0..6)
        .map(|i| round * 6 + i)
        .map(|row| {
            let doc = Doc::new(row, &format!("d{row}"), &["a", "b"]);
            if row % 3 == 2 { doc.failing_at(1) } else { doc }
        })
        .collect();
    let runs = (0..writers).map(|writer| {
        let (batch, target) = (batch(&docs), fixture.target(&format!("r{round:03}-{writer}"), 2));
        SpawnedTask::spawn(async move { run(vec![batch], target).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn conflicting_writers_neither_lose_nor_duplicate_a_document() {
    let fixture = TestTable::new();
    for round in 0..6 {
        run_at_once(&fixture, round, 4).await;
        let rows = 0..6 * (round + 1);
        let (bad, good): (Vec<_>, Vec<_>) = rows.partition(|row| row % 3 == 2);
        let expected = good.iter().flat_map(|row| [(format!("d{row}"), 0), (format!("d{row}"), 1)]);
        let mut keys = fixture.keys().await;
        keys.sort();
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        assert_eq!(keys, expected, "after round {round}");
        let quarantine = Dataset::open(&quarantine_uri(&fixture.uri())).await.unwrap();
        let quarantine = quarantine.scan().try_into_batch().await.unwrap();
        let rows = quarantine.column_by_name("row").unwrap().as_primitive::<UInt64Type>().values().to_vec();
        assert_eq!(rows.len(), bad.len(), "after round {round}: {rows:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), bad.into_iter().collect(), "after round {round}");
    }
    let dataset = fixture.dataset().await;
    for version in dataset.versions().await.unwrap() {
        let rows = dataset.checkout_version(version.version).await.unwrap().scan().try_into_batch().await.unwrap();
        let ids = rows.column_by_name("doc_id").unwrap().as_string::<i32>().iter();
        let chunks = rows.column_by_name("chunk").unwrap().as_primitive::<UInt32Type>().iter();
        let keys: BTreeSet<_> = ids.zip(chunks).collect();
        assert_eq!(keys.len(), rows.num_rows(), "version {}", version.version);
    }
}
