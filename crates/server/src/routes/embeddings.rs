//! `POST /v1/embeddings`: vectors of texts, in the form of `OpenAI`'s interface.
//!
//! The vectors are made like those of a table: with its model, its prefix and its dtype. A text that is too long for the
//! model is refused, because the response has no field to mark it as truncated.

use axum::{Json, extract::State, routing::post};
use base64::{Engine, prelude::BASE64_STANDARD};
use polylance_backend::{Backend, BackendError, TokenizeSpec};
use polylance_schema::{Chunking, Contract};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{model_names::contract, route::Route};
use crate::{
    columns::model_name, error::ApiError, executor::RequestClass, extract::InputsBody, openapi::Operation, state::App,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EmbeddingsRequest {
    input: EmbeddingsInput,
    /// A table, or the model of one; optional if all tables have the same model.
    model: Option<String>,
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// Keeps this many leading dimensions, normalized to length 1 if the model's vectors are.
    dimensions: Option<usize>,
    /// An extension of `OpenAI`'s interface: which of its two prefixes the model gets.
    #[serde(default)]
    input_type: InputType,
    /// Ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// Texts, or token ids from the model's own tokenizer, with special tokens and prefix.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "input is a text, texts, a list of token ids, or lists of them")]
enum EmbeddingsInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum EncodingFormat {
    #[default]
    Float,
    /// Little-endian f32.
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum InputType {
    /// A query.
    #[default]
    Query,
    /// A text to be found.
    Passage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct EmbeddingsResponse {
    object: &'static str,
    data: Vec<EmbeddingItem>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct EmbeddingItem {
    object: &'static str,
    index: usize,
    embedding: Embedding,
}

#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
enum Embedding {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(super) fn route() -> Route {
    let operation = Operation::post("/v1/embeddings", "Vectors of texts, made like those of a table")
        .body::<EmbeddingsRequest>()
        .response::<EmbeddingsResponse>();
    Route::openai(operation, post(embeddings))
}

async fn embeddings(
    State(app): State<App>,
    InputsBody(request): InputsBody<EmbeddingsRequest>,
) -> Result<Json<EmbeddingsResponse>, ApiError> {
    let count = match &request.input {
        EmbeddingsInput::Text(_) | EmbeddingsInput::Tokens(_) => 1,
        EmbeddingsInput::Texts(texts) => texts.len(),
        EmbeddingsInput::TokenLists(lists) => lists.len(),
    };
    let max_inputs = app.limits.max_inputs;
    if count == 0 {
        return Err(ApiError::bad("invalid_input", "the input is empty").param("input"));
    }
    if count > max_inputs {
        let message = format!("there are {count} inputs: at most {max_inputs} are allowed");
        return Err(ApiError::too_many_inputs(message, "input"));
    }
    let embedded = app.execute(RequestClass::Search, async move |app, snapshot| {
        let contract = contract(&snapshot, request.model.as_deref())?;
        let dims = dimensions(contract, request.dimensions)?;
        let backend = app.models.embedder(contract).await.map_err(|error| ApiError::from_search(&error, None))?;
        let tokens = tokens(request.input, request.input_type, contract, backend.0.as_ref()).await?;
        let token_count = tokens.iter().map(Vec::len).sum();
        let vectors = backend.0.encode(tokens).await.map_err(|error| ApiError::from_backend(&error))?;
        let item = |(index, vector): (usize, &[f32])| EmbeddingItem {
            object: "embedding",
            index,
            embedding: request.encoding_format.encode(&leading_dimensions(vector, dims, contract.normalize)),
        };
        Ok(EmbeddingsResponse {
            object: "list",
            data: vectors.values.chunks(vectors.dim.max(1)).enumerate().map(item).collect(),
            model: model_name(contract).to_owned(),
            usage: Usage { prompt_tokens: token_count, total_tokens: token_count },
        })
    });
    Ok(Json(embedded.await?))
}

fn dimensions(contract: &Contract, requested: Option<usize>) -> Result<usize, ApiError> {
    match requested {
        None => Ok(contract.dim),
        Some(dims) if (1..=contract.dim).contains(&dims) => Ok(dims),
        Some(dims) => {
            let message = format!("dimensions is {dims}, but the model's vectors have {}", contract.dim);
            Err(ApiError::bad("invalid_dimensions", message).param("dimensions"))
        }
    }
}

/// The tokens that the model reads, of each input.
async fn tokens(
    input: EmbeddingsInput,
    input_type: InputType,
    contract: &Contract,
    backend: &dyn Backend,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let texts = match input {
        EmbeddingsInput::Text(text) => vec![text],
        EmbeddingsInput::Texts(texts) => texts,
        EmbeddingsInput::Tokens(tokens) => return check_tokens(vec![tokens], contract, backend).await,
        EmbeddingsInput::TokenLists(lists) => return check_tokens(lists, contract, backend).await,
    };
    let prefix = match input_type {
        InputType::Query => contract.prompts.query.clone(),
        InputType::Passage => contract.prompts.passage.clone(),
    };
    let max_tokens = contract.chunking.max_tokens();
    let spec = TokenizeSpec { prefix, chunking: Chunking::Truncate { max_tokens } };
    let count = texts.len();
    let chunks = backend.tokenize(texts, &spec).await.map_err(|error| ApiError::from_backend(&error))?;
    let mut tokens = Vec::with_capacity(count);
    for (index, chunks) in chunks.into_iter().enumerate() {
        let Some(chunk) = chunks.into_iter().next() else {
            return Err(ApiError::bad("invalid_input", format!("input {index} has no tokens")).param("input"));
        };
        if chunk.truncated {
            let message = format!("input {index} has more than the {max_tokens} tokens that the model reads");
            let error = ApiError::bad("context_length_exceeded", message).param("input");
            return Err(error.hint("split it and embed the parts"));
        }
        tokens.push(chunk.input_ids);
    }
    Ok(tokens)
}

/// Refuses lists that are not from the model's own tokenizer, which puts special tokens around each text. Clients that
/// were written for one service send token ids of its tokenizer, which mean other words here.
async fn check_tokens(
    lists: Vec<Vec<u32>>,
    contract: &Contract,
    backend: &dyn Backend,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let (before, after) = special_tokens(contract, backend).await?;
    let is_own = |tokens: &Vec<u32>| {
        let room = tokens.len().saturating_sub(before.len());
        tokens.starts_with(&before) && after.len() <= room && tokens.ends_with(&after) && !tokens.is_empty()
    };
    match lists.iter().position(|tokens| !is_own(tokens)) {
        None => Ok(lists),
        Some(index) => {
            let message = format!(
                "the token ids of input {index} are not from the model's tokenizer: they do not begin with {before:?} \
                 and end with {after:?}"
            );
            let error = ApiError::bad("foreign_tokens", message).param("input");
            Err(error.hint("send texts; LangChain's OpenAIEmbeddings does so with check_embedding_ctx_length=False"))
        }
    }
}

/// The special tokens that the model's tokenizer puts before and after every text.
async fn special_tokens(contract: &Contract, backend: &dyn Backend) -> Result<(Vec<u32>, Vec<u32>), ApiError> {
    let chunking = Chunking::Truncate { max_tokens: contract.chunking.max_tokens() };
    let spec = TokenizeSpec { prefix: String::new(), chunking };
    let texts = vec![String::new(), "a".to_owned()];
    let chunks = match backend.tokenize(texts, &spec).await {
        // Without special tokens an empty text has no tokens at all.
        Err(BackendError::Input(_)) => return Ok((Vec::new(), Vec::new())),
        chunks => chunks.map_err(|error| ApiError::from_backend(&error))?,
    };
    let mut lists = chunks.into_iter().map(|chunks| chunks.into_iter().next().map(|chunk| chunk.input_ids));
    let (empty, word) = (lists.next().flatten().unwrap_or_default(), lists.next().flatten().unwrap_or_default());
    let before = empty.iter().zip(&word).take_while(|(one, other)| one == other).count();
    let (before, after) = empty.split_at(before);
    Ok((before.to_vec(), after.to_vec()))
}

fn leading_dimensions(vector: &[f32], dims: usize, normalize: bool) -> Vec<f32> {
    let mut kept = vector[..dims.min(vector.len())].to_vec();
    if dims < vector.len() && normalize {
        let length = kept.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        for value in &mut kept {
            *value /= length;
        }
    }
    kept
}

impl EncodingFormat {
    fn encode(self, vector: &[f32]) -> Embedding {
        match self {
            Self::Float => Embedding::Floats(vector.to_vec()),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
                Embedding::Base64(BASE64_STANDARD.encode(bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_dimensions_are_normalized() {
        assert_eq!(leading_dimensions(&[3.0, 4.0, 9.0], 2, true), [0.6, 0.8]);
        assert_eq!(leading_dimensions(&[3.0, 4.0, 9.0], 2, false), [3.0, 4.0]);
        assert_eq!(leading_dimensions(&[3.0, 4.0], 2, true), [3.0, 4.0]);
    }

    #[test]
    fn base64_is_little_endian() {
        let Embedding::Base64(text) = EncodingFormat::Base64.encode(&[1.0, -2.0]) else { panic!("floats") };
        assert_eq!(BASE64_STANDARD.decode(text).unwrap(), [0, 0, 128, 63, 0, 0, 0, 192]);
    }
}
