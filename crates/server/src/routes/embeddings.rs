//! `POST /v1/embeddings`: vectors of texts, as clients of `OpenAI`'s interface ask for them.
//!
//! The vectors are those of a table: its model, its prefix, its arithmetic. A text that the model cannot read as a
//! whole is refused, since nothing in the answer could say that it was cut.

use axum::{Json, extract::State, routing::post};
use base64::{Engine, prelude::BASE64_STANDARD};
use polylance_backend::{Backend, BackendError, TokenizeSpec};
use polylance_schema::{Chunking, Contract};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{EMBEDDINGS, Route, tables::model_name};
use crate::{error::ApiError, extract::JsonBody, openapi::Operation, state::App, tables::Snapshot, work::Kind};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    input: Input,
    /// A table, or the model of one; may be left out when all tables have one model.
    model: Option<String>,
    #[serde(default)]
    encoding_format: Format,
    /// Keeps this many leading dimensions, of length 1 again where the whole vector is.
    dimensions: Option<usize>,
    /// Not `OpenAI`'s: what the texts are to the model.
    #[serde(default)]
    input_type: InputType,
    /// Read by no one here.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// Texts, or ids of tokens as the model's own tokenizer makes them, special ones and prefix included.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "input is a text, texts, a list of token ids, or lists of them")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    ManyIds(Vec<Vec<u32>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Float,
    /// Little-endian f32.
    Base64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum InputType {
    /// Something looked for.
    #[default]
    Query,
    /// Something to be found.
    Passage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Embedded {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: Usage,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Item {
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
    Route {
        operation: Operation::post(EMBEDDINGS, "Vectors of texts, made as a table's are")
            .body::<Asked>()
            .answer::<Embedded>(),
        handler: post(embeddings),
    }
}

async fn embeddings(State(app): State<App>, JsonBody(asked): JsonBody<Asked>) -> Result<Json<Embedded>, ApiError> {
    let count = match &asked.input {
        Input::Text(_) | Input::Ids(_) => 1,
        Input::Texts(texts) => texts.len(),
        Input::ManyIds(lists) => lists.len(),
    };
    let most = app.limits.inputs;
    if count == 0 {
        return Err(ApiError::bad("invalid_input", "the input is empty").param("input"));
    }
    if count > most {
        let message = format!("there are {count} inputs, and may be {most}");
        return Err(ApiError::too_many(message, "input"));
    }
    let embedded = app.work(Kind::Search, async move |app, snapshot| {
        let contract = contract(&snapshot, asked.model.as_deref())?;
        let dims = dimensions(contract, asked.dimensions)?;
        let backend = app.models.embedder(contract).await.map_err(|error| ApiError::of_search(&error, None))?;
        let ids = ids(asked.input, asked.input_type, contract, backend.0.as_ref()).await?;
        let tokens = ids.iter().map(Vec::len).sum();
        let vectors = backend.0.encode(ids).await.map_err(|error| ApiError::of_backend(&error))?;
        let item = |(index, vector): (usize, &[f32])| Item {
            object: "embedding",
            index,
            embedding: asked.encoding_format.of(&leading(vector, dims, contract.normalize)),
        };
        Ok(Embedded {
            object: "list",
            data: vectors.values.chunks(vectors.dim.max(1)).enumerate().map(item).collect(),
            model: model_name(contract).to_owned(),
            usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
        })
    });
    Ok(Json(embedded.await?))
}

/// The names under which a model may be asked for, each once: of models whose vectors are made in one way, and of tables.
pub(super) fn names(snapshot: &Snapshot) -> Vec<String> {
    let tables = || snapshot.iter().filter_map(|(name, table)| Some((name, table.contract()?)));
    let models =
        tables().map(|(_, contract)| model_name(contract)).filter(|name| contract(snapshot, Some(name)).is_ok());
    let mut names: Vec<String> = Vec::new();
    for name in models.chain(tables().map(|(name, _)| name)) {
        if !name.is_empty() && !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The contract of the table of this name, or the one that has a model of this name, or the only one.
pub(super) fn contract<'s>(snapshot: &'s Snapshot, model: Option<&str>) -> Result<&'s Contract, ApiError> {
    let wanted = model.unwrap_or_default();
    let of_table = snapshot.iter().find(|(name, _)| *name == wanted).map(|(_, table)| table.contract());
    if let Some(Some(contract)) = of_table {
        return Ok(contract);
    }
    let named = |contract: &&Contract| wanted.is_empty() || wanted == contract.model || wanted == model_name(contract);
    let mut all: Vec<&Contract> = snapshot.iter().filter_map(|(_, table)| table.contract()).collect();
    all.dedup();
    let mut found = all.iter().copied().filter(named);
    match (found.next(), found.next()) {
        (Some(contract), None) => Ok(contract),
        (Some(first), Some(other)) if first == other && found.all(|another| another == first) => Ok(first),
        (Some(_), Some(_)) => {
            let error = ApiError::bad("ambiguous_model", "tables use this model in different ways");
            Err(error.hint("name the table whose vectors you want as the model").param("model"))
        }
        (None, _) => {
            let names: Vec<&str> = all.iter().map(|contract| model_name(contract)).collect();
            let error = ApiError::not_found("model_not_found", "there is no table with a model of this name");
            Err(error.hint(format!("the models are {}", names.join(", "))).param("model"))
        }
    }
}

fn dimensions(contract: &Contract, asked: Option<usize>) -> Result<usize, ApiError> {
    match asked {
        None => Ok(contract.dim),
        Some(dims) if (1..=contract.dim).contains(&dims) => Ok(dims),
        Some(dims) => {
            let message = format!("dimensions is {dims}, and the model's vectors have {}", contract.dim);
            Err(ApiError::bad("invalid_dimensions", message).param("dimensions"))
        }
    }
}

/// The rows of ids that the model reads.
async fn ids(
    input: Input,
    kind: InputType,
    contract: &Contract,
    backend: &dyn Backend,
) -> Result<Vec<Vec<u32>>, ApiError> {
    let texts = match input {
        Input::Text(text) => vec![text],
        Input::Texts(texts) => texts,
        Input::Ids(ids) => return own_ids(vec![ids], contract, backend).await,
        Input::ManyIds(lists) => return own_ids(lists, contract, backend).await,
    };
    let prefix = match kind {
        InputType::Query => contract.prompts.query.clone(),
        InputType::Passage => contract.prompts.passage.clone(),
    };
    let max_tokens = contract.chunking.max_tokens();
    let spec = TokenizeSpec { prefix, chunking: Chunking::Truncate { max_tokens } };
    let count = texts.len();
    let cut = backend.tokenize(texts, &spec).await.map_err(|error| ApiError::of_backend(&error))?;
    let mut ids = Vec::with_capacity(count);
    for (index, chunks) in cut.into_iter().enumerate() {
        let Some(chunk) = chunks.into_iter().next() else {
            return Err(ApiError::bad("invalid_input", format!("input {index} has no tokens")).param("input"));
        };
        if chunk.truncated {
            let message = format!("input {index} is longer than the {max_tokens} tokens that the model reads");
            let error = ApiError::bad("context_length_exceeded", message).param("input");
            return Err(error.hint("cut it into parts and embed each"));
        }
        ids.push(chunk.input_ids);
    }
    Ok(ids)
}

/// The lists, when they are of the model's own tokenizer as far as can be told: it puts special tokens around each text.
/// Clients that were written for one service alone send ids of that service's tokenizer, which are other words here.
async fn own_ids(lists: Vec<Vec<u32>>, contract: &Contract, backend: &dyn Backend) -> Result<Vec<Vec<u32>>, ApiError> {
    let (before, behind) = special_tokens(contract, backend).await?;
    let is_own = |ids: &Vec<u32>| {
        let room = ids.len().saturating_sub(before.len());
        ids.starts_with(&before) && behind.len() <= room && ids.ends_with(&behind) && !ids.is_empty()
    };
    match lists.iter().position(|ids| !is_own(ids)) {
        None => Ok(lists),
        Some(index) => {
            let message = format!(
                "the token ids of input {index} are not of the model's tokenizer: they do not begin with {before:?} and \
                 end with {behind:?}"
            );
            let error = ApiError::bad("foreign_tokens", message).param("input");
            Err(error.hint("send texts; LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False"))
        }
    }
}

/// What the model's tokenizer puts before and behind every text.
async fn special_tokens(contract: &Contract, backend: &dyn Backend) -> Result<(Vec<u32>, Vec<u32>), ApiError> {
    let chunking = Chunking::Truncate { max_tokens: contract.chunking.max_tokens() };
    let spec = TokenizeSpec { prefix: String::new(), chunking };
    let texts = vec![String::new(), "a".to_owned()];
    let cut = match backend.tokenize(texts, &spec).await {
        // Without special tokens an empty text has none at all.
        Err(BackendError::Input(_)) => return Ok((Vec::new(), Vec::new())),
        cut => cut.map_err(|error| ApiError::of_backend(&error))?,
    };
    let mut ids = cut.into_iter().map(|chunks| chunks.into_iter().next().map(|chunk| chunk.input_ids));
    let (empty, word) = (ids.next().flatten().unwrap_or_default(), ids.next().flatten().unwrap_or_default());
    let before = empty.iter().zip(&word).take_while(|(one, other)| one == other).count();
    let (before, behind) = empty.split_at(before);
    Ok((before.to_vec(), behind.to_vec()))
}

fn leading(vector: &[f32], dims: usize, normalize: bool) -> Vec<f32> {
    let mut kept = vector[..dims.min(vector.len())].to_vec();
    if dims < vector.len() && normalize {
        let length = kept.iter().map(|value| value * value).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
        for value in &mut kept {
            *value /= length;
        }
    }
    kept
}

impl Format {
    fn of(self, vector: &[f32]) -> Embedding {
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
    fn leading_dimensions_have_length_one_again() {
        assert_eq!(leading(&[3.0, 4.0, 9.0], 2, true), [0.6, 0.8]);
        assert_eq!(leading(&[3.0, 4.0, 9.0], 2, false), [3.0, 4.0]);
        assert_eq!(leading(&[3.0, 4.0], 2, true), [3.0, 4.0]);
    }

    #[test]
    fn base64_is_little_endian() {
        let Embedding::Base64(text) = Format::Base64.of(&[1.0, -2.0]) else { panic!("floats") };
        assert_eq!(BASE64_STANDARD.decode(text).unwrap(), [0, 0, 128, 63, 0, 0, 0, 192]);
    }
}
