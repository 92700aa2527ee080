use arrow::datatypes::Float32Type;
use polylance_schema::search::{MAP_X, MAP_Y};

use super::*;
use crate::{SinkError, draw_map};

fn doc(n: u64) -> Doc {
    Doc::new(n, &format!("d{n:03}"), &[&format!("d{n:03}0")])
}

/// The places of all rows: `None` where a row has none.
async fn places(place: &Place) -> Vec<Option<(f32, f32)>> {
    let rows = place.dataset().await.scan().project(&[MAP_X, MAP_Y]).unwrap().try_into_batch().await.unwrap();
    let axis = |at: usize| rows.column(at).as_primitive::<Float32Type>().iter().collect::<Vec<_>>();
    axis(0).into_iter().zip(axis(1)).map(|(x, y)| x.zip(y)).collect()
}

#[tokio::test]
async fn every_row_has_a_place_and_later_rows_when_it_is_drawn_again() {
    let place = Place::new();
    run(vec![batch(&(0..40).map(doc).collect::<Vec<_>>())], place.target("r1", 100)).await.unwrap();
    let map = draw_map(&place.uri(), 1000).await.unwrap();
    assert_eq!((map.sampled, map.rows), (40, 40));
    assert!(map.explained > 0.2 && map.explained <= 1.0, "{map:?}");
    let first = places(&place).await;
    assert!(first.iter().all(Option::is_some));
    let drawn = draw_map(&place.uri(), 1000).await.unwrap();
    assert_eq!(drawn.version, map.version + 1, "the old map is replaced in one commit");
    assert_eq!(places(&place).await, first);

    // The columns do not stand in the way of the next run.
    run(vec![batch(&[doc(100)])], place.target("r2", 100)).await.unwrap();
    let then = places(&place).await;
    assert_eq!((then.len(), then.iter().filter(|place| place.is_none()).count()), (41, 1));
    let again = draw_map(&place.uri(), 20).await.unwrap();
    assert_eq!((again.sampled, again.rows), (20, 41));
    assert!(places(&place).await.iter().all(Option::is_some));
}

#[tokio::test]
async fn there_is_no_map_of_nothing() {
    let place = Place::new();
    let error = draw_map(&place.uri(), 10).await.unwrap_err();
    assert!(matches!(error, SinkError::NoTable { .. }), "{error}");
}
