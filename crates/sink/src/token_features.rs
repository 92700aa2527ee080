//! A table of token features: states that take a pass of a model, stored under a key so that they are computed once.
//!
//! `key, start, end, states`: one row per text, with the position and the state of each of its tokens.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeBinaryArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch,
        RecordBatchIterator, UInt32Array,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, FieldRef, Float32Type, Schema, SchemaRef, UInt32Type},
    error::ArrowError,
};
use futures::TryStreamExt;
use lance::{
    Dataset,
    dataset::{InsertBuilder, WriteMode, WriteParams},
};

use crate::{
    error::SinkError,
    table::{open, synced_store},
};

const KEY: &str = "key";
const START: &str = "start";
const END: &str = "end";
const STATES: &str = "states";
/// Schema metadata key of everything that determines the states.
const CONTRACT_KEY: &str = "polylance.features";

/// The key of a text.
pub type FeatureKey = [u8; 16];

/// The positions and states of a text's tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TokenFeatures {
    /// The position of each token, in the units of the program that computed the features.
    pub positions: Vec<Range<u32>>,
    /// `[tokens, dim]`, row major.
    pub states: Vec<f32>,
}

/// A table of token features.
#[derive(Debug)]
pub struct FeatureTable {
    uri: String,
    schema: SchemaRef,
    dim: usize,
    dataset: Option<Dataset>,
}

impl FeatureTable {
    /// Opens the table at `uri`, which need not exist yet, for states of `dim` numbers per token. `contract` names
    /// everything that determines them.
    ///
    /// # Errors
    /// [`SinkError::OtherFeatures`] when the table was made under another contract, [`SinkError::NotATable`] or
    /// [`SinkError::Storage`].
    pub async fn open(uri: &str, dim: usize, contract: &str) -> Result<Self, SinkError> {
        let dataset = open::latest(uri).await?;
        if let Some(dataset) = &dataset
            && dataset.schema().metadata.get(CONTRACT_KEY).is_none_or(|found| found != contract)
        {
            return Err(SinkError::OtherFeatures { uri: uri.to_owned() });
        }
        let metadata = HashMap::from([(CONTRACT_KEY.to_owned(), contract.to_owned())]);
        let schema = Arc::new(Schema::new_with_metadata(fields(dim), metadata));
        Ok(Self { uri: uri.to_owned(), schema, dim, dataset })
    }

    /// The features of the wanted texts that the table has.
    ///
    /// # Errors
    /// [`SinkError::Storage`] when the table cannot be read.
    pub async fn read(&self, wanted: &HashSet<FeatureKey>) -> Result<HashMap<FeatureKey, TokenFeatures>, SinkError> {
        let reading = || SinkError::storage(&self.uri, "reading features");
        let mut found = HashMap::new();
        let Some(dataset) = &self.dataset else { return Ok(found) };
        let mut batches = Box::pin(dataset.scan().try_into_stream()).await.map_err(reading())?;
        while let Some(batch) = batches.try_next().await.map_err(reading())? {
            let column = |name: &str| {
                let missing = || SinkError::MissingColumn { uri: self.uri.clone(), column: name.to_owned() };
                batch.column_by_name(name).ok_or_else(missing)
            };
            let keys = column(KEY)?.as_fixed_size_binary();
            let (starts, ends) = (column(START)?.as_list::<i32>(), column(END)?.as_list::<i32>());
            let states = column(STATES)?.as_list::<i32>();
            for row in 0..batch.num_rows() {
                let Some(key) = keys.value(row).try_into().ok().filter(|key| wanted.contains(key)) else { continue };
                let numbers = |list: &ListArray| list.value(row).as_primitive::<UInt32Type>().values().to_vec();
                let positions = numbers(starts).into_iter().zip(numbers(ends)).map(|(start, end)| start..end).collect();
                let vectors = states.value(row);
                let vectors = vectors.as_fixed_size_list();
                // A slice of the items keeps the numbers of all.
                let from = vectors.value_offset(0) as usize;
                let values = vectors.values().as_primitive::<Float32Type>().values();
                let states = values[from..from + vectors.len() * self.dim].to_vec();
                found.insert(key, TokenFeatures { positions, states });
            }
        }
        Ok(found)
    }

    /// Adds rows in one commit.
    ///
    /// # Errors
    /// [`SinkError::Storage`] when they cannot be written, [`SinkError::Rows`] when states and positions do not match.
    pub async fn append(&mut self, rows: &[(FeatureKey, &TokenFeatures)]) -> Result<(), SinkError> {
        let batch = self.batch(rows).map_err(|error| SinkError::rows(&self.uri, error.to_string()))?;
        let mode = if self.dataset.is_some() { WriteMode::Append } else { WriteMode::Create };
        let params = WriteParams { mode, session: Some(synced_store::session()), ..WriteParams::default() };
        let insert = InsertBuilder::new(self.uri.as_str()).with_params(&params);
        let batches = RecordBatchIterator::new([Ok(batch)], Arc::clone(&self.schema));
        let written = Box::pin(insert.execute_stream(batches)).await;
        self.dataset = Some(written.map_err(SinkError::storage(&self.uri, "writing features"))?);
        Ok(())
    }

    fn batch(&self, rows: &[(FeatureKey, &TokenFeatures)]) -> Result<RecordBatch, ArrowError> {
        let offsets = OffsetBuffer::from_lengths(rows.iter().map(|(_, row)| row.positions.len()));
        let list = |name: &str, items: ArrayRef| -> Result<ArrayRef, ArrowError> {
            let DataType::List(item) = self.schema.field_with_name(name)?.data_type() else {
                return Err(ArrowError::SchemaError(format!("{name} is a list")));
            };
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets.clone(), items, None)?))
        };
        let positions = || rows.iter().flat_map(|(_, row)| &row.positions);
        let starts = UInt32Array::from_iter_values(positions().map(|position| position.start));
        let ends = UInt32Array::from_iter_values(positions().map(|position| position.end));
        let values = Float32Array::from_iter_values(rows.iter().flat_map(|(_, row)| &row.states).copied());
        let vectors = FixedSizeListArray::try_new(number(DataType::Float32), self.dim as i32, Arc::new(values), None)?;
        let keys = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|(key, _)| key))?;
        let columns = vec![
            Arc::new(keys) as ArrayRef,
            list(START, Arc::new(starts))?,
            list(END, Arc::new(ends))?,
            list(STATES, Arc::new(vectors))?,
        ];
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

fn number(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

fn fields(dim: usize) -> Vec<Field> {
    let list = |name, item| Field::new(name, DataType::List(number(item)), false);
    vec![
        Field::new(KEY, DataType::FixedSizeBinary(16), false),
        list(START, DataType::UInt32),
        list(END, DataType::UInt32),
        list(STATES, DataType::FixedSizeList(number(DataType::Float32), dim as i32)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn features_are_read_back_by_key_and_contract() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("features.lance").display().to_string();
        let one = TokenFeatures { positions: vec![0..3, 4..9], states: vec![1.0, 2.0, 3.0, 4.0] };
        let none = TokenFeatures::default();
        let two = TokenFeatures { positions: (7..9).map(|at| at..at + 1).collect(), states: vec![5.0, 6.0, 7.0, 8.0] };
        let mut table = FeatureTable::open(&uri, 2, "a model").await.unwrap();
        assert!(table.read(&HashSet::from([[1; 16]])).await.unwrap().is_empty());
        table.append(&[([1; 16], &one), ([0; 16], &none)]).await.unwrap();
        table.append(&[([2; 16], &two)]).await.unwrap();

        let table = FeatureTable::open(&uri, 2, "a model").await.unwrap();
        let found = table.read(&HashSet::from([[0; 16], [1; 16], [2; 16], [3; 16]])).await.unwrap();
        assert_eq!(found, HashMap::from([([0; 16], none), ([1; 16], one), ([2; 16], two)]));
        assert_eq!(table.read(&HashSet::from([[2; 16]])).await.unwrap().len(), 1);

        let other = FeatureTable::open(&uri, 2, "another model").await.unwrap_err();
        assert!(other.to_string().contains("features of another model"), "{other}");
    }

    #[tokio::test]
    async fn states_that_do_not_match_their_positions_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("features.lance").display().to_string();
        let mut table = FeatureTable::open(&uri, 2, "a model").await.unwrap();
        let row = TokenFeatures { positions: vec![0..3, 4..5, 6..7], states: vec![1.0, 2.0, 3.0, 4.0] };
        let error = table.append(&[([1; 16], &row)]).await.unwrap_err();
        assert!(matches!(error, SinkError::Rows { .. }), "{error}");
    }
}
