//! The full-text index: BM25 over the text in every language.

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
    commit::retry::{CommitRetry, is_conflict},
    error::SinkError,
    table::open,
};

/// The state of the full-text index after an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FullTextIndexOutcome {
    /// What was done.
    pub action: IndexAction,
    /// Rows that the index covers.
    pub indexed_rows: u64,
    /// Rows that the index does not cover: searches read their text.
    pub unindexed_rows: u64,
    /// The table's version.
    pub version: u64,
}

/// How the full-text index is updated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FullTextUpdate {
    /// Create it when there is none or one of an older rule, else extend it.
    Create,
    /// Extend it when there is one, by the rule that it was built with.
    Extend,
}

/// Updates the full-text index of the table at `uri`. With [`FullTextUpdate::Extend`] and no index, does nothing and
/// returns `None`.
///
/// The text is folded (see [`polylance_schema::full_text::fold`]) and then cut into words by ICU's dictionaries and rules
/// (UAX 29), so that Thai, Japanese and Chinese have words as well. Words are not stemmed, and none is left out,
/// however long: stems and stop words assume one language, and BM25 gives frequent words almost no weight.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::MissingColumn`] when the index is created and there is no text,
/// [`SinkError::Storage`], [`SinkError::Conflict`] when other runs kept changing the index.
pub async fn update_full_text_index(
    uri: &str,
    update: FullTextUpdate,
) -> Result<Option<FullTextIndexOutcome>, SinkError> {
    let mut retry = CommitRetry::default();
    loop {
        match Box::pin(update_once(uri, update)).await {
            Err(SinkError::Storage { source, .. }) if is_conflict(&source) => {
                retry.wait_after_conflict(uri, source).await?;
            }
            ended => return ended,
        }
    }
}

async fn update_once(uri: &str, update: FullTextUpdate) -> Result<Option<FullTextIndexOutcome>, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let reading = |error| SinkError::storage(uri, "reading the full-text index")(error);
    let indices = dataset.load_indices().await.map_err(reading)?;
    let named = |name: &str| indices.iter().filter(|index| index.name == name).cloned().collect::<Vec<_>>();
    let (pieces, older) = (named(TEXT_INDEX), named(UNFOLDED_TEXT_INDEX));
    let mut name = TEXT_INDEX;
    let action = if update == FullTextUpdate::Create && (pieces.is_empty() || !older.is_empty()) {
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
    Ok(Some(FullTextIndexOutcome { action, indexed_rows, unindexed_rows, version: dataset.version_id() }))
}

/// Builds the index over all rows, in place of the existing ones.
async fn build(uri: &str, dataset: &mut Dataset, replaced: Vec<IndexMetadata>) -> Result<IndexAction, SinkError> {
    if dataset.schema().field(TEXT).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: TEXT.to_owned() });
    }
    let building = |error| SinkError::storage(uri, "building the full-text index")(error);
    let fragments = dataset.fragments().as_ref().clone();
    let piece = Box::pin(train::train(dataset, TEXT_INDEX, fragments)).await.map_err(building)?;
    commit(dataset, piece, replaced).await.map_err(building)?;
    Ok(IndexAction::Built)
}

/// Adds a piece that covers the rows that the others do not.
async fn extend(uri: &str, dataset: &mut Dataset, pieces: &[IndexMetadata]) -> Result<IndexAction, SinkError> {
    let extending = |error| SinkError::storage(uri, "extending the full-text index")(error);
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

/// An index of the older rule has the words of the unfolded text, which Lance reads itself.
async fn extend_older(uri: &str, dataset: &mut Dataset) -> Result<IndexAction, SinkError> {
    if covered(uri, dataset, UNFOLDED_TEXT_INDEX).await?.1 == 0 {
        return Ok(IndexAction::Unchanged);
    }
    let options = OptimizeOptions::append().index_names(vec![UNFOLDED_TEXT_INDEX.to_owned()]);
    let extended = Box::pin(dataset.optimize_indices(&options)).await;
    extended.map_err(SinkError::storage(uri, "extending the full-text index"))?;
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

/// The number of rows that the index covers, and of those that it does not.
async fn covered(uri: &str, dataset: &Dataset, name: &str) -> Result<(u64, u64), SinkError> {
    let reading = |error| SinkError::storage(uri, "reading the full-text index")(error);
    let json = Box::pin(dataset.index_statistics(name)).await.map_err(reading)?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let number = |key: &str| statistics[key].as_u64().unwrap_or_default();
    Ok((number("num_indexed_rows"), number("num_unindexed_rows")))
}
