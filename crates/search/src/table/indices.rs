//! The indices of a table, as far as searches need to know them.

use lance::{Dataset, index::DatasetIndexExt};
use lance_index::is_system_index;
use lance_linalg::distance::DistanceType;
use polylance_schema::{
    columns::{EMBEDDING, TEXT},
    full_text::TEXT_INDEX,
};

/// The index on the vectors.
#[derive(Debug, Clone, Copy)]
pub(super) struct VectorIndex {
    pub(super) metric: DistanceType,
    /// The walk of a graph may end before it has seen every row.
    pub(super) is_graph: bool,
}

pub(super) async fn vector_index(dataset: &Dataset) -> lance::Result<Option<VectorIndex>> {
    let Some(field) = dataset.schema().field(EMBEDDING) else { return Ok(None) };
    let indices = dataset.load_indices().await?;
    let Some(index) = indices.iter().find(|index| index.fields.contains(&field.id)) else { return Ok(None) };
    let json = Box::pin(dataset.index_statistics(&index.name)).await?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let metric = statistics["indices"][0]["metric_type"].as_str();
    let is_graph = statistics["index_type"].as_str().is_some_and(|kind| kind.contains("HNSW"));
    Ok(metric.and_then(|metric| DistanceType::try_from(metric).ok()).map(|metric| VectorIndex { metric, is_graph }))
}

/// Whether there is an index on the text.
pub(super) async fn has_text_index(dataset: &Dataset) -> lance::Result<bool> {
    let Some(field) = dataset.schema().field(TEXT) else { return Ok(false) };
    let indices = dataset.load_indices().await?;
    Ok(indices.iter().any(|index| !is_system_index(index) && index.fields.contains(&field.id)))
}

/// Whether every full-text index of `dataset` holds the words of folded text.
pub(super) async fn is_text_index_folded(dataset: &Dataset) -> lance::Result<bool> {
    let Some(text) = dataset.schema().field(TEXT) else { return Ok(false) };
    let indices = dataset.load_indices().await?;
    let is_full_text = |details: &str| details.ends_with("InvertedIndexDetails");
    let mut names = indices
        .iter()
        .filter(|index| index.fields.contains(&text.id))
        .filter(|index| index.index_details.as_ref().is_none_or(|details| is_full_text(&details.type_url)))
        .map(|index| index.name.as_str())
        .peekable();
    Ok(names.peek().is_some() && names.all(|name| name == TEXT_INDEX))
}
