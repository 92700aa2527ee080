//! The scale of BM25 scores.

use lance::{
    dataset::Dataset,
    index::{DatasetIndexExt, DatasetIndexInternalExt},
};
use lance_index::{
    is_system_index,
    metrics::NoOpMetricsCollector,
    scalar::inverted::{InvertedIndex, query::try_collect_query_tokens},
};
use polylance_schema::columns::TEXT;

use super::full_text;
use crate::{SearchError, SearchTable};

/// The score that the query's own words would reach in a document of average length that contains each of them as often as
/// the query does: the sum of their inverse document frequencies. BM25 divided by it is the share of the query that a
/// document contains, independent of the query's length and of how rare its words are.
pub(super) async fn self_score(table: &SearchTable, query: &str) -> Result<f32, SearchError> {
    let Some(words) = full_text::query_words(table, query) else { return Ok(0.0) };
    let reading = SearchError::storage(table.uri(), "reading the text index");
    read_self_score(table.dataset(), &words).await.map_err(reading)
}

async fn read_self_score(dataset: &Dataset, words: &str) -> lance::Result<f32> {
    let Some(field) = dataset.schema().field(TEXT) else { return Ok(0.0) };
    let mut tokens: Vec<String> = Vec::new();
    let (mut documents, mut with_token) = (0, Vec::new());
    let indices = dataset.load_indices().await?;
    for index in indices.iter().filter(|index| !is_system_index(index) && index.fields.contains(&field.id)) {
        let opened = Box::pin(dataset.open_generic_index(TEXT, &index.uuid, &NoOpMetricsCollector)).await?;
        let Some(inverted) = opened.as_any().downcast_ref::<InvertedIndex>() else { continue };
        if tokens.is_empty() {
            let found = try_collect_query_tokens(words, &mut inverted.tokenizer())?;
            tokens = (0..found.len()).map(|at| found.get_token(at).to_owned()).collect();
            with_token = vec![0; tokens.len()];
        }
        let (_, rows, frequencies) = Box::pin(inverted.bm25_stats_for_terms(&tokens, None)).await?;
        documents += rows;
        with_token.iter_mut().zip(frequencies).for_each(|(sum, rows)| *sum += rows);
    }
    Ok(with_token.into_iter().map(|rows| inverse_document_frequency(rows, documents)).sum())
}

/// Lance's formula.
fn inverse_document_frequency(with_token: usize, documents: usize) -> f32 {
    let (with_token, documents) = (with_token as f32, documents as f32);
    ((documents - with_token + 0.5) / (with_token + 0.5)).ln_1p()
}
