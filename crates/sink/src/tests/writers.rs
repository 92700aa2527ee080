//! Many writers of the same documents at once: whoever wins, each document is there once.

use std::collections::BTreeSet;

use datafusion::common::runtime::SpawnedTask;

use super::*;
use crate::{copies::Copies, quarantine_uri};

/// Several runs at once; all have the same documents, every third of which is bad, two a window.
async fn run_at_once(place: &Place, round: u64, writers: usize) {
    let docs: Vec<_> = (0..6)
        .map(|i| round * 6 + i)
        .map(|row| {
            let doc = Doc::new(row, &format!("d{row}"), &["a", "b"]);
            if row % 3 == 2 { doc.failing_at(1) } else { doc }
        })
        .collect();
    let runs = (0..writers).map(|writer| {
        let (batch, target) = (batch(&docs), place.target(&format!("r{round:03}-{writer}"), 2));
        SpawnedTask::spawn(async move { run(vec![batch], target).await })
    });
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_pass_over_each_other_neither_lose_nor_double_a_document() {
    let place = Place::new();
    for round in 0..6 {
        run_at_once(&place, round, 4).await;
        let rows = 0..6 * (round + 1);
        let (bad, good): (Vec<_>, Vec<_>) = rows.partition(|row| row % 3 == 2);
        let expected = good.iter().flat_map(|row| [(format!("d{row}"), 0), (format!("d{row}"), 1)]);
        let mut keys = place.keys().await;
        keys.sort();
        let mut expected: Vec<_> = expected.collect();
        expected.sort();
        assert_eq!(keys, expected, "after round {round}");
        let quarantine = Dataset::open(&quarantine_uri(&place.uri())).await.unwrap();
        let quarantine = quarantine.scan().try_into_batch().await.unwrap();
        let rows = quarantine.column_by_name("row").unwrap().as_primitive::<UInt64Type>().values().to_vec();
        assert_eq!(rows.len(), bad.len(), "after round {round}: {rows:?}");
        assert_eq!(rows.into_iter().collect::<BTreeSet<_>>(), bad.into_iter().collect(), "after round {round}");
    }
}

/// Each writer settles from the version that it has: one may know of copies that another does not.
#[test]
fn whichever_copies_writers_see_they_spare_the_same_one() {
    let copy = |run: usize| (format!("r{run}"), (run as u64) << 32 | 7);
    let mut gone = BTreeSet::new();
    for seen in [[1, 2], [1, 3], [3, 2], [1, 1]] {
        let mut copies = Copies::new();
        for (run, address) in seen.map(copy) {
            copies.add("d0", &run, address);
        }
        copies.add("another", "r1", 9 << 32);
        for (fragment, rows) in copies.superseded() {
            assert_eq!(rows, [7]);
            gone.insert(fragment);
        }
    }
    assert_eq!(gone, BTreeSet::from([1, 2]));
}
