//! The map of a table: its vectors in two dimensions, as two columns.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, RecordBatch},
    datatypes::{DataType, Field, Float32Type, Schema, UInt64Type},
};
use futures::{TryStreamExt, stream};
use lance::{
    Dataset,
    dataset::{
        CommitBuilder, NewColumnTransform,
        fragment::FileFragment,
        transaction::{DataReplacementGroup, Operation, TransactionBuilder},
    },
};
use lance_core::ROW_ADDR;
use polylance_schema::{
    columns::EMBEDDING,
    search::{MAP_METADATA_KEY, MAP_X, MAP_Y},
};
use serde::Serialize;

use super::principal_axes::Axes;
use crate::{
    commit::{
        properties,
        retry::{Attempts, is_conflict},
    },
    error::SinkError,
    index::vector::dimensions,
    table::open,
};

/// How maps are drawn: written into the columns' metadata.
const METHOD: &str = "pca";

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
/// A map that is there is replaced in one commit: readers see the old one or the new one. Runs may add rows meanwhile.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::MissingColumn`], [`SinkError::NotAnAnnotation`] when a column of that name is
/// something else, [`SinkError::Conflict`] when other writers kept changing the table, [`SinkError::Storage`].
pub async fn draw_map(uri: &str, sample: usize) -> Result<MapOutcome, SinkError> {
    let mut dataset = open::existing(uri).await?;
    if dataset.schema().field(EMBEDDING).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: EMBEDDING.to_owned() });
    }
    let mut attempts = Attempts::default();
    while !is_declared(uri, &dataset)? {
        match Box::pin(dataset.add_columns(NewColumnTransform::AllNulls(map_schema()), None, None)).await {
            Ok(()) => {}
            Err(source) if is_conflict(&source) => conflict(uri, &mut dataset, &mut attempts, source).await?,
            Err(source) => return Err(SinkError::storage(uri, "adding the map's columns")(source)),
        }
    }
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))?;
    let vectors = read_sample(uri, &dataset, rows, sample).await?;
    let sampled = (vectors.len() / dimensions(&dataset)) as u64;
    let axes = Axes::of(&vectors, dimensions(&dataset));
    drop(vectors);
    loop {
        let (mut replacements, mut rows) = (Vec::new(), 0);
        for fragment in dataset.get_fragments() {
            let (replacement, placed) = places_of(uri, &dataset, &fragment, &axes).await?;
            replacements.push(replacement);
            rows += placed;
        }
        let explained = axes.explained;
        if replacements.is_empty() {
            return Ok(MapOutcome { sampled, rows, explained, version: dataset.version_id() });
        }
        let operation = Operation::DataReplacement { replacements };
        let properties = HashMap::from([(properties::COLUMN.to_owned(), MAP_X.to_owned())]);
        let transaction = TransactionBuilder::new(dataset.version_id(), operation)
            .transaction_properties(Some(Arc::new(properties)))
            .build();
        match Box::pin(CommitBuilder::new(Arc::new(dataset.clone())).execute(transaction)).await {
            Ok(drawn) => return Ok(MapOutcome { sampled, rows, explained, version: drawn.version_id() }),
            // Rows were moved to other fragments meanwhile.
            Err(source) if is_conflict(&source) => conflict(uri, &mut dataset, &mut attempts, source).await?,
            Err(source) => return Err(SinkError::storage(uri, "committing the map")(source)),
        }
    }
}

/// Waits, and looks at what another writer has done.
async fn conflict(
    uri: &str,
    dataset: &mut Dataset,
    attempts: &mut Attempts,
    source: lance::Error,
) -> Result<(), SinkError> {
    attempts.conflict(uri, source).await?;
    let latest = Box::pin(dataset.checkout_latest()).await;
    latest.map_err(SinkError::storage(uri, "looking for a newer version"))
}

/// Whether the table has the map's columns.
fn is_declared(uri: &str, dataset: &Dataset) -> Result<bool, SinkError> {
    let mut found = 0;
    for name in [MAP_X, MAP_Y] {
        match dataset.schema().field(name) {
            Some(field) if field.metadata.contains_key(MAP_METADATA_KEY) => found += 1,
            Some(_) => return Err(SinkError::NotAnAnnotation { uri: uri.to_owned(), column: name.to_owned() }),
            None => {}
        }
    }
    match found {
        0 => Ok(false),
        2 => Ok(true),
        _ => Err(SinkError::MissingColumn { uri: uri.to_owned(), column: format!("{MAP_X}` or `{MAP_Y}") }),
    }
}

/// Writes the two columns of a fragment, null where a row was deleted; and how many rows have a place.
async fn places_of(
    uri: &str,
    dataset: &Dataset,
    fragment: &FileFragment,
    axes: &Axes,
) -> Result<(DataReplacementGroup, u64), SinkError> {
    let reading = || SinkError::storage(uri, "reading vectors");
    let count = Box::pin(fragment.physical_rows()).await.map_err(reading())?;
    let mut columns = [vec![None; count], vec![None; count]];
    let mut placed = 0;
    let mut scanner = dataset.scan();
    scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
    scanner.project(&[EMBEDDING]).map_err(reading())?;
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let Some(addresses) = batch.column_by_name(ROW_ADDR) else {
            return Err(SinkError::rows(uri, "a scan without row addresses"));
        };
        let offsets = addresses.as_primitive::<UInt64Type>().values().iter().map(|&address| address as u32 as usize);
        for (offset, place) in offsets.zip(axes.places(&flat(&batch))) {
            for (column, value) in columns.iter_mut().zip(place) {
                match column.get_mut(offset) {
                    Some(at) => *at = Some(value),
                    None => return Err(SinkError::rows(uri, format!("row {offset} of a fragment with {count} rows"))),
                }
            }
            placed += 1;
        }
    }
    let writing = || SinkError::storage(uri, "writing the map");
    let schema = dataset.schema().project(&[MAP_X, MAP_Y]).map_err(writing())?;
    let columns = columns.map(|column| Arc::new(Float32Array::from(column)) as ArrayRef);
    let batch = RecordBatch::try_new(map_schema(), columns.to_vec());
    let batch = batch.map_err(|error| SinkError::rows(uri, error.to_string()))?;
    let group = Box::pin(fragment.write_columns(stream::iter([Ok(batch)]), &schema)).await.map_err(writing())?;
    Ok((group, placed))
}

fn map_schema() -> Arc<Schema> {
    let metadata = [(MAP_METADATA_KEY.to_owned(), METHOD.to_owned())];
    let field = |name| Field::new(name, DataType::Float32, true).with_metadata(metadata.clone().into());
    Arc::new(Schema::new(vec![field(MAP_X), field(MAP_Y)]))
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
