//! The index of words: BM25 over the text in every language.

mod train;

use std::sync::Arc;

use lance::{
    Dataset,
    dataset::{
        CommitBuilder,
        transaction::{Operation, TransactionBuilder},
    },
    index::DatasetIndexExt,
};
use lance_index::optimize::OptimizeOptions;
use lance_table::format::IndexMetadata;
use polylance_schema::{
    columns::TEXT,
    full_text::{TEXT_INDEX, UNFOLDED_TEXT_INDEX},
};
use serde::Serialize;

use super::vector::IndexAction;
use crate::{
    commit::retry::{Attempts, is_conflict},
    error::SinkError,
    table::open,
};

/// The index of words as it stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WordsOutcome {
    /// What was done.
    pub action: IndexAction,
    /// Rows it covers.
    pub indexed_rows: u64,
    /// Rows it does not cover: searches read their text.
    pub unindexed_rows: u64,
    /// The table's version.
    pub version: u64,
}

/// How the index of words is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Words {
    /// Built when there is none or one of an older rule, else extended.
    Build,
    /// Extended when there is one, by the rule it was built by.
    Extend,
}

/// Brings the index of the words of the table at `uri` up to date; with [`Words::Extend`] and no index, or on a table
/// without its text, nothing is done and `None` is yielded.
///
/// The text is folded (see [`polylance_schema::full_text::fold`]) and then cut into words by ICU's dictionaries and rules
/// (UAX 29), so that Thai, Japanese and Chinese have words as well. Nothing is stemmed and no word is left out, however
/// long: stems and stop words would take one language for granted, and BM25 gives frequent words next to no weight.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::MissingColumn`] when it is to be built and there is no text,
/// [`SinkError::Storage`], [`SinkError::Conflict`] when other runs kept changing the index.
pub async fn index_words(uri: &str, words: Words) -> Result<Option<WordsOutcome>, SinkError> {
    let mut attempts = Attempts::default();
    loop {
        match Box::pin(once(uri, words)).await {
            Err(SinkError::Storage { source, .. }) if is_conflict(&source) => attempts.conflict(uri, source).await?,
            ended => return ended,
        }
    }
}

async fn once(uri: &str, words: Words) -> Result<Option<WordsOutcome>, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let reading = |error| SinkError::storage(uri, "reading the index of words")(error);
    let indices = dataset.load_indices().await.map_err(reading)?;
    let named = |name: &str| indices.iter().filter(|index| index.name == name).cloned().collect::<Vec<_>>();
    let (pieces, older) = (named(TEXT_INDEX), named(UNFOLDED_TEXT_INDEX));
    let mut name = TEXT_INDEX;
    let action = if words == Words::Build && (pieces.is_empty() || !older.is_empty()) {
        build(uri, &mut dataset, [pieces, older].concat()).await?
    } else if !pieces.is_empty() {
        extend(uri, &mut dataset, &pieces).await?
    } else if !older.is_empty() {
        name = UNFOLDED_TEXT_INDEX;
        extend_older(uri, &mut dataset).await?
    } else {
        return Ok(None);
    };
    let (indexed_rows, unindexed_rows) = covered(uri, &dataset, name).await?;
    Ok(Some(WordsOutcome { action, indexed_rows, unindexed_rows, version: dataset.version_id() }))
}

/// Builds the index over all rows in place of those that are there.
async fn build(uri: &str, dataset: &mut Dataset, replaced: Vec<IndexMetadata>) -> Result<IndexAction, SinkError> {
    if dataset.schema().field(TEXT).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: TEXT.to_owned() });
    }
    let building = |error| SinkError::storage(uri, "building the index of words")(error);
    let fragments = dataset.fragments().as_ref().clone();
    let piece = Box::pin(train::train(dataset, TEXT_INDEX, fragments)).await.map_err(building)?;
    commit(dataset, piece, replaced).await.map_err(building)?;
    Ok(IndexAction::Built)
}

/// Adds a piece that covers what the others do not.
async fn extend(uri: &str, dataset: &mut Dataset, pieces: &[IndexMetadata]) -> Result<IndexAction, SinkError> {
    let extending = |error| SinkError::storage(uri, "extending the index of words")(error);
    let mut missing = dataset.fragment_bitmap().as_ref().clone();
    for covered in pieces.iter().filter_map(|piece| piece.fragment_bitmap.as_ref()) {
        missing -= covered;
    }
    if missing.is_empty() {
        return Ok(IndexAction::Unchanged);
    }
    let is_missing = |id: u64| u32::try_from(id).is_ok_and(|id| missing.contains(id));
    let fragments = dataset.fragments().iter().filter(|fragment| is_missing(fragment.id)).cloned().collect();
    let piece = Box::pin(train::train(dataset, TEXT_INDEX, fragments)).await.map_err(extending)?;
    commit(dataset, piece, Vec::new()).await.map_err(extending)?;
    Ok(IndexAction::Extended)
}

/// An index of the older rule holds words of the text as it is, which Lance reads by itself.
async fn extend_older(uri: &str, dataset: &mut Dataset) -> Result<IndexAction, SinkError> {
    if covered(uri, dataset, UNFOLDED_TEXT_INDEX).await?.1 == 0 {
        return Ok(IndexAction::Unchanged);
    }
    let options = OptimizeOptions::append().index_names(vec![UNFOLDED_TEXT_INDEX.to_owned()]);
    let extended = Box::pin(dataset.optimize_indices(&options)).await;
    extended.map_err(SinkError::storage(uri, "extending the index of words"))?;
    Ok(IndexAction::Extended)
}

async fn commit(dataset: &mut Dataset, piece: IndexMetadata, removed_indices: Vec<IndexMetadata>) -> lance::Result<()> {
    let version = piece.dataset_version;
    let operation = Operation::CreateIndex { new_indices: vec![piece], removed_indices };
    let transaction = TransactionBuilder::new(version, operation).build();
    let built_on = Arc::new(dataset.clone());
    *dataset = Box::pin(CommitBuilder::new(built_on).execute(transaction)).await?;
    Ok(())
}

/// Rows that the index covers and those that it does not.
async fn covered(uri: &str, dataset: &Dataset, name: &str) -> Result<(u64, u64), SinkError> {
    let reading = |error| SinkError::storage(uri, "reading the index of words")(error);
    let json = Box::pin(dataset.index_statistics(name)).await.map_err(reading)?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let number = |key: &str| statistics[key].as_u64().unwrap_or_default();
    Ok((number("num_indexed_rows"), number("num_unindexed_rows")))
}
