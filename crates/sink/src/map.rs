//! The map of a table: its vectors in two dimensions, as two columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, RecordBatch},
    datatypes::{DataType, Field, Float32Type, Schema},
};
use lance::{
    Dataset,
    dataset::{BatchUDF, NewColumnTransform},
};
use polylance_schema::{
    columns::EMBEDDING,
    search::{MAP_METADATA_KEY, MAP_X, MAP_Y},
};
use serde::Serialize;

use crate::{SinkError, index::dimensions, storage};

/// How maps are drawn: written into the columns' metadata.
const METHOD: &str = "pca";

/// Rounds of the power iteration: the axes of real vectors are found to four digits after about twenty.
const ROUNDS: usize = 40;

/// A map that was drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MapOutcome {
    /// Rows that the axes were computed from.
    pub sampled: u64,
    /// Rows that have a place.
    pub rows: u64,
    /// The share of the sample's variance that the two axes show.
    pub explained: f32,
    /// The table's version.
    pub version: u64,
}

/// Draws the map of the table at `uri` anew: the two principal axes of at most `sample` rows that are spread over the
/// table, and each row's place on them. Rows that are written later have no place until the map is drawn again.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::MissingColumn`], [`SinkError::NotAnAnnotation`] when a column of that name is
/// something else, [`SinkError::Storage`].
pub async fn draw_map(uri: &str, sample: usize) -> Result<MapOutcome, SinkError> {
    let mut dataset = storage::open(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })?;
    if dataset.schema().field(EMBEDDING).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: EMBEDDING.to_owned() });
    }
    let old = old_columns(uri, &dataset)?;
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))?;
    let vectors = read_sample(uri, &dataset, rows, sample).await?;
    let sampled = (vectors.len() / dimensions(&dataset)) as u64;
    let axes = Arc::new(Axes::of(&vectors, dimensions(&dataset)));
    let explained = axes.explained;
    if !old.is_empty() {
        let old: Vec<&str> = old.iter().map(String::as_str).collect();
        Box::pin(dataset.drop_columns(&old)).await.map_err(SinkError::storage(uri, "removing the old map"))?;
    }
    let schema = map_schema();
    let output = Arc::clone(&schema);
    let places = BatchUDF {
        mapper: Box::new(move |batch| axes.places(batch, &output)),
        output_schema: schema,
        result_checkpoint: None,
    };
    let read = Some(vec![EMBEDDING.to_owned()]);
    Box::pin(dataset.add_columns(NewColumnTransform::BatchUDF(places), read, None))
        .await
        .map_err(SinkError::storage(uri, "writing the map"))?;
    Ok(MapOutcome { sampled, rows: rows as u64, explained, version: dataset.version_id() })
}

fn map_schema() -> Arc<Schema> {
    let metadata = [(MAP_METADATA_KEY.to_owned(), METHOD.to_owned())];
    let field = |name| Field::new(name, DataType::Float32, true).with_metadata(metadata.clone().into());
    Arc::new(Schema::new(vec![field(MAP_X), field(MAP_Y)]))
}

/// The columns of a map that is there.
fn old_columns(uri: &str, dataset: &Dataset) -> Result<Vec<String>, SinkError> {
    let mut old = Vec::new();
    for name in [MAP_X, MAP_Y] {
        match dataset.schema().field(name) {
            Some(field) if field.metadata.contains_key(MAP_METADATA_KEY) => old.push(name.to_owned()),
            Some(_) => return Err(SinkError::NotAnAnnotation { uri: uri.to_owned(), column: name.to_owned() }),
            None => {}
        }
    }
    Ok(old)
}

/// The vectors of every n-th row, flat.
async fn read_sample(uri: &str, dataset: &Dataset, rows: usize, most: usize) -> Result<Vec<f32>, SinkError> {
    let reading = |error| SinkError::storage(uri, "reading vectors")(error);
    let most = most.clamp(1, rows.max(1));
    let indices: Vec<u64> = (0..most.min(rows)).map(|at| (at * rows / most) as u64).collect();
    let columns = lance::dataset::ProjectionRequest::from_columns([EMBEDDING], dataset.schema());
    let batch = Box::pin(dataset.take(&indices, columns)).await.map_err(reading)?;
    Ok(flat(&batch))
}

fn flat(batch: &RecordBatch) -> Vec<f32> {
    let lists = batch.column(0).as_fixed_size_list();
    let dim = lists.value_length() as usize;
    let (first, rows) = (lists.value_offset(0) as usize, batch.num_rows());
    lists.values().as_primitive::<Float32Type>().values()[first..first + rows * dim].to_vec()
}

/// Two directions, and where they cross.
struct Axes {
    mean: Vec<f32>,
    directions: [Vec<f32>; 2],
    explained: f32,
}

impl Axes {
    /// The principal axes of `[rows, dim]` vectors, by power iteration on both at once.
    fn of(vectors: &[f32], dim: usize) -> Self {
        let rows = (vectors.len() / dim).max(1) as f32;
        let mut mean = vec![0.0; dim];
        for vector in vectors.chunks_exact(dim) {
            add(&mut mean, vector, 1.0 / rows);
        }
        let centred: Vec<f32> = vectors
            .chunks_exact(dim)
            .flat_map(|vector| vector.iter().zip(&mean).map(|(value, mean)| value - mean))
            .collect();
        // Any two directions that are not both at right angles to what is looked for.
        let mut axes =
            [0, 1].map(|axis| (0..dim).map(|at| ((at * (axis + 2) + axis) as f32).sin()).collect::<Vec<f32>>());
        orthonormalize(&mut axes);
        for _ in 0..ROUNDS {
            let mut next = [vec![0.0; dim], vec![0.0; dim]];
            for vector in centred.chunks_exact(dim) {
                for (axis, next) in axes.iter().zip(&mut next) {
                    add(next, vector, dot(axis, vector));
                }
            }
            axes = next;
            orthonormalize(&mut axes);
        }
        let all: f32 = dot(&centred, &centred);
        let shown: f32 = centred
            .chunks_exact(dim)
            .map(|vector| axes.iter().map(|axis| dot(axis, vector).powi(2)).sum::<f32>())
            .sum();
        let explained = if all > 0.0 { (shown / all).min(1.0) } else { 0.0 };
        Self { mean, directions: axes, explained }
    }

    fn places(&self, batch: &RecordBatch, schema: &Arc<Schema>) -> lance::Result<RecordBatch> {
        let dim = self.mean.len();
        let vectors = if batch.num_rows() == 0 { Vec::new() } else { flat(batch) };
        let along = |axis: &Vec<f32>| -> ArrayRef {
            let cross = dot(axis, &self.mean);
            Arc::new(vectors.chunks_exact(dim).map(|vector| Some(dot(axis, vector) - cross)).collect::<Float32Array>())
        };
        Ok(RecordBatch::try_new(Arc::clone(schema), self.directions.iter().map(along).collect())?)
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f32], vector: &[f32], times: f32) {
    for (to, value) in to.iter_mut().zip(vector) {
        *to += times * value;
    }
}

/// Makes the axes of length 1 and at right angles; an axis of nothing stays nothing.
fn orthonormalize([first, second]: &mut [Vec<f32>; 2]) {
    let unit = |axis: &mut Vec<f32>| {
        let norm = dot(axis, axis).sqrt();
        if norm > f32::MIN_POSITIVE {
            for value in axis.iter_mut() {
                *value /= norm;
            }
        }
    };
    unit(first);
    let along = dot(first, second);
    add(second, first, -along);
    unit(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axes_are_the_directions_of_the_greatest_spread() {
        // Most along the third dimension, less along the first, next to nothing along the second.
        let vectors: Vec<f32> = (0..200)
            .flat_map(|at| {
                let angle = at as f32 * 0.7;
                [5.0 + 2.0 * angle.cos(), 1.0 + 0.01 * (angle * 3.0).sin(), 9.0 * angle.sin()]
            })
            .collect();
        let axes = Axes::of(&vectors, 3);
        assert!(axes.directions[0][2].abs() > 0.999 && axes.directions[1][0].abs() > 0.999, "{:?}", axes.directions);
        assert!((axes.mean[0] - 5.0).abs() < 0.1 && axes.explained > 0.999);
    }

    #[test]
    fn equal_vectors_are_one_place() {
        let axes = Axes::of(&[0.5; 12], 4);
        assert_eq!(axes.explained, 0.0);
        assert!(axes.directions.iter().flatten().all(|value| value.is_finite()));
    }
}
