use arrow::datatypes::Float32Type;
use polylance_schema::search::{MAP_X, MAP_Y};

use super::*;
use crate::{SinkError, compute_map};

fn doc(n: u64) -> Doc {
    Doc::new(n, &format!("d{n:03}"), &[&format!("d{n:03}0")])
}

/// The position of each row; `None` where a row has none.
async fn positions(fixture: &TestTable) -> Vec<Option<(f32, f32)>> {
    let rows = fixture.dataset().await.scan().project(&[MAP_X, MAP_Y]).unwrap().try_into_batch().await.unwrap();
    let axis = |at: usize| rows.column(at).as_primitive::<Float32Type>().iter().collect::<Vec<_>>();
    axis(0).into_iter().zip(axis(1)).map(|(x, y)| x.zip(y)).collect()
}

#[tokio::test]
async fn every_row_is_projected_and_later_rows_when_the_map_is_recomputed() {
    let fixture = TestTable::new();
    run(vec![batch(&(0..40).map(doc).collect::<Vec<_>>())], fixture.target("r1", 100)).await.unwrap();
    let map = compute_map(&fixture.uri(), 1000).await.unwrap();
    assert_eq!((map.sampled, map.rows), (40, 40));
    assert!(map.explained > 0.2 && map.explained <= 1.0, "{map:?}");
    let first = positions(&fixture).await;
    assert!(first.iter().all(Option::is_some));
    let recomputed = compute_map(&fixture.uri(), 1000).await.unwrap();
    assert_eq!(recomputed.version, map.version + 1, "the old map is replaced in one commit");
    assert_eq!(positions(&fixture).await, first);

    // The next run ignores the columns.
    run(vec![batch(&[doc(100)])], fixture.target("r2", 100)).await.unwrap();
    let then = positions(&fixture).await;
    assert_eq!((then.len(), then.iter().filter(|position| position.is_none()).count()), (41, 1));
    let again = compute_map(&fixture.uri(), 20).await.unwrap();
    assert_eq!((again.sampled, again.rows), (20, 41));
    assert!(positions(&fixture).await.iter().all(Option::is_some));
}

#[tokio::test]
async fn map_of_a_missing_table_is_refused() {
    let fixture = TestTable::new();
    let error = compute_map(&fixture.uri(), 10).await.unwrap_err();
    assert!(matches!(error, SinkError::NoTable { .. }), "{error}");
}
