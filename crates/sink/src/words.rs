//! The index of words: BM25 over the text in every language.

use lance::{Dataset, index::DatasetIndexExt};
use lance_index::{IndexType, optimize::OptimizeOptions, scalar::InvertedIndexParams};
use polylance_schema::columns::TEXT;
use serde::Serialize;

use crate::{
    IndexAction, SinkError,
    attempts::{Attempts, is_conflict},
    storage,
};

/// The name under which Lance knows the index.
const INDEX_NAME: &str = "text_idx";

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
    /// Built when there is none, else extended.
    Build,
    /// Extended when there is one.
    Extend,
}

/// Brings the index of the words of the table at `uri` up to date; with [`Words::Extend`] and no index, or on a table
/// without its text, nothing is done and `None` is yielded.
///
/// Words are found by ICU's dictionaries and rules (UAX 29), so that Thai, Japanese and Chinese have words as well; they
/// are compared without case and accents. Nothing is stemmed and no word is left out: both would take one language for
/// granted, and BM25 gives frequent words next to no weight.
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
    let mut dataset = storage::open(uri).await?.ok_or_else(|| SinkError::NoTable { uri: uri.to_owned() })?;
    let known = covered(uri, &dataset).await?;
    let action = match (known, words) {
        (None, Words::Extend) => return Ok(None),
        (None, Words::Build) => build(uri, &mut dataset).await?,
        (Some((_, 0)), _) => IndexAction::Unchanged,
        (Some(_), _) => {
            let options = OptimizeOptions::append().index_names(vec![INDEX_NAME.to_owned()]);
            let extended = Box::pin(dataset.optimize_indices(&options)).await;
            extended.map_err(SinkError::storage(uri, "extending the index of words"))?;
            IndexAction::Extended
        }
    };
    let (indexed_rows, unindexed_rows) = covered(uri, &dataset).await?.unwrap_or_default();
    Ok(Some(WordsOutcome { action, indexed_rows, unindexed_rows, version: dataset.version_id() }))
}

async fn build(uri: &str, dataset: &mut Dataset) -> Result<IndexAction, SinkError> {
    if dataset.schema().field(TEXT).is_none() {
        return Err(SinkError::MissingColumn { uri: uri.to_owned(), column: TEXT.to_owned() });
    }
    let parameters = InvertedIndexParams::default()
        .base_tokenizer("icu".to_owned())
        .stem(false)
        .remove_stop_words(false)
        .lower_case(true)
        .ascii_folding(true);
    let name = Some(INDEX_NAME.to_owned());
    let built = Box::pin(dataset.create_index(&[TEXT], IndexType::Inverted, name, &parameters, true)).await;
    built.map_err(SinkError::storage(uri, "building the index of words"))?;
    Ok(IndexAction::Built)
}

/// Rows that the index covers and those that it does not; `None` without an index.
async fn covered(uri: &str, dataset: &Dataset) -> Result<Option<(u64, u64)>, SinkError> {
    let reading = |error| SinkError::storage(uri, "reading the index of words")(error);
    if dataset.load_indices_by_name(INDEX_NAME).await.map_err(reading)?.is_empty() {
        return Ok(None);
    }
    let json = Box::pin(dataset.index_statistics(INDEX_NAME)).await.map_err(reading)?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let number = |key: &str| statistics[key].as_u64().unwrap_or_default();
    Ok(Some((number("num_indexed_rows"), number("num_unindexed_rows"))))
}
