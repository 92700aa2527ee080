//! Computes the map of a table and stores it as two columns.

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

use super::principal_axes::PrincipalAxes;
use crate::{
    commit::{
        properties,
        retry::{CommitRetry, is_conflict},
    },
    error::SinkError,
    index::vector::dimensions,
    table::open,
};

/// The method of the projection, stored in the columns' metadata.
const PROJECTION_METHOD: &str = "pca";

/// A computed map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MapOutcome {
    /// Rows from which the axes were computed.
    pub sampled: u64,
    /// Rows with a position on the map.
    pub rows: u64,
    /// The share of the sample's variance that the two axes explain.
    pub explained: f32,
    /// The table's version.
    pub version: u64,
}

/// Computes the map of the table at `uri`: the two principal axes of at most `sample` rows that are spread over the
/// table, and the position of each row on them. Rows that are written later have no position until the map is computed
/// again.
///
/// An existing map is replaced in one commit: readers see the old one or the new one. Runs may add rows at the same
/// time.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::MissingColumn`], [`SinkError::NotAnAnnotation`] when a column of that name is
/// something else, [`SinkError::Conflict`] when other writers kept changing the table, [`SinkError::Storage`].
pub async fn compute_map(uri: &str, sample: usize) -> Result<MapOutcome, SinkError> {
    let mut dataset = open::existing(uri).await?;
    if dataset.schema().field(EMBEDDING).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: EMBEDDING.to_owned() });
    }
    let mut retry = CommitRetry::default();
    while !is_declared(uri, &dataset)? {
        match Box::pin(dataset.add_columns(NewColumnTransform::AllNulls(map_schema()), None, None)).await {
            Ok(()) => {}
            Err(source) if is_conflict(&source) => retry.refresh_after_conflict(uri, &mut dataset, source).await?,
            Err(source) => return Err(SinkError::storage(uri, "adding the map's columns")(source)),
        }
    }
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))?;
    let vectors = read_sample(uri, &dataset, rows, sample).await?;
    let sampled = (vectors.len() / dimensions(&dataset)) as u64;
    let axes = PrincipalAxes::compute(&vectors, dimensions(&dataset));
    drop(vectors);
    loop {
        let (mut replacements, mut rows) = (Vec::new(), 0);
        for fragment in dataset.get_fragments() {
            let (replacement, projected) = project_fragment(uri, &dataset, &fragment, &axes).await?;
            replacements.push(replacement);
            rows += projected;
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
            Ok(committed) => return Ok(MapOutcome { sampled, rows, explained, version: committed.version_id() }),
            // A compaction has moved rows to other fragments.
            Err(source) if is_conflict(&source) => retry.refresh_after_conflict(uri, &mut dataset, source).await?,
            Err(source) => return Err(SinkError::storage(uri, "committing the map")(source)),
        }
    }
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

/// Writes the two columns of a fragment, null where a row was deleted. Returns the number of rows with a position too.
async fn project_fragment(
    uri: &str,
    dataset: &Dataset,
    fragment: &FileFragment,
    axes: &PrincipalAxes,
) -> Result<(DataReplacementGroup, u64), SinkError> {
    let reading = || SinkError::storage(uri, "reading vectors");
    let count = Box::pin(fragment.physical_rows()).await.map_err(reading())?;
    let mut columns = [vec![None; count], vec![None; count]];
    let mut projected = 0;
    let mut scanner = dataset.scan();
    scanner.with_fragments(vec![fragment.metadata().clone()]).with_row_address();
    scanner.project(&[EMBEDDING]).map_err(reading())?;
    let mut batches = Box::pin(scanner.try_into_stream()).await.map_err(reading())?;
    while let Some(batch) = batches.try_next().await.map_err(reading())? {
        let Some(addresses) = batch.column_by_name(ROW_ADDR) else {
            return Err(SinkError::rows(uri, "a scan without row addresses"));
        };
        let offsets = addresses.as_primitive::<UInt64Type>().values().iter().map(|&address| address as u32 as usize);
        for (offset, position) in offsets.zip(axes.project(&flat(&batch))) {
            for (column, value) in columns.iter_mut().zip(position) {
                match column.get_mut(offset) {
                    Some(cell) => *cell = Some(value),
                    None => return Err(SinkError::rows(uri, format!("row {offset} of a fragment with {count} rows"))),
                }
            }
            projected += 1;
        }
    }
    let writing = || SinkError::storage(uri, "writing the map");
    let schema = dataset.schema().project(&[MAP_X, MAP_Y]).map_err(writing())?;
    let columns = columns.map(|column| Arc::new(Float32Array::from(column)) as ArrayRef);
    let batch = RecordBatch::try_new(map_schema(), columns.to_vec());
    let batch = batch.map_err(|error| SinkError::rows(uri, error.to_string()))?;
    let group = Box::pin(fragment.write_columns(stream::iter([Ok(batch)]), &schema)).await.map_err(writing())?;
    Ok((group, projected))
}

fn map_schema() -> Arc<Schema> {
    let metadata = [(MAP_METADATA_KEY.to_owned(), PROJECTION_METHOD.to_owned())];
    let field = |name| Field::new(name, DataType::Float32, true).with_metadata(metadata.clone().into());
    Arc::new(Schema::new(vec![field(MAP_X), field(MAP_Y)]))
}

/// The vectors of every n-th row, one after the other.
async fn read_sample(uri: &str, dataset: &Dataset, rows: usize, max_rows: usize) -> Result<Vec<f32>, SinkError> {
    let reading = |error| SinkError::storage(uri, "reading vectors")(error);
    let sampled = max_rows.clamp(1, rows.max(1));
    let indices: Vec<u64> = (0..sampled.min(rows)).map(|at| (at * rows / sampled) as u64).collect();
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
