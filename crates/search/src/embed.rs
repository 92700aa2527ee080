//! Embedding texts under a table's contract.

use polylance_backend::{BackendHandle, Embeddings, TokenizeSpec};
use polylance_schema::{Chunking, Contract};

use crate::{QueryError, SearchError};

/// The role of a text, which decides its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InputKind {
    /// A query.
    #[default]
    Query,
    /// A text to be found.
    Passage,
}

/// One vector per text, `[texts, dim]`: with the contract's prefix, truncated to the length of a chunk.
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
    Ok(backend.0.encode(inputs.ok_or(QueryError::NoTokens)?).await?)
}
