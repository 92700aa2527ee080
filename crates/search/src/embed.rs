//! Vectors for texts, made as the table's are.

use polylance_backend::{BackendHandle, Embeddings, TokenizeSpec};
use polylance_schema::{Chunking, Contract};

use crate::SearchError;

/// What a text is to the model: it decides the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputKind {
    /// Something looked for.
    #[default]
    Query,
    /// Something to be found.
    Passage,
}

/// One vector a text, `[texts, dim]`: the contract's prefix before it, cut where a document's chunk would end.
///
/// # Errors
/// [`SearchError::Dimensions`] when another model is loaded, [`SearchError::Query`] for a text without tokens,
/// [`SearchError::Backend`].
pub async fn embed(
    texts: Vec<String>,
    kind: InputKind,
    contract: &Contract,
    backend: &BackendHandle,
) -> Result<Embeddings, SearchError> {
    let dim = backend.0.info().dim;
    if dim != contract.dim {
        return Err(SearchError::Dimensions { table: contract.dim, backend: dim, contract: contract.summary() });
    }
    let prefix = match kind {
        InputKind::Query => &contract.prompts.query,
        InputKind::Passage => &contract.prompts.passage,
    };
    let chunking = Chunking::Truncate { max_tokens: contract.chunking.max_tokens() };
    let chunks = backend.0.tokenize(texts, &TokenizeSpec { prefix: prefix.clone(), chunking }).await?;
    let inputs: Option<Vec<Vec<u32>>> =
        chunks.into_iter().map(|chunks| chunks.into_iter().next().map(|chunk| chunk.input_ids)).collect();
    let Some(inputs) = inputs else {
        return Err(SearchError::Query("the query has no tokens".to_owned()));
    };
    Ok(backend.0.encode(inputs).await?)
}
