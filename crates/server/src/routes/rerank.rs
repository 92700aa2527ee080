//! `POST /v1/rerank`: passages in the order of their relevance to a query.

use axum::{Json, extract::State, routing::post};
use polylance_backend::{AnnotateInput, Annotation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::route::Route;
use crate::{error::ApiError, executor::RequestClass, extract::InputsBody, openapi::Operation, state::App};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RerankRequest {
    query: String,
    /// Texts, or objects with a `text`.
    documents: Vec<Passage>,
    /// The maximum number of results.
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    /// Ignored: there is one reranker.
    #[serde(rename = "model")]
    _model: Option<String>,
    /// Ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a document is a text, or an object with `text`")]
enum Passage {
    Text(String),
    Object(RerankDocument),
}

impl Passage {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object(RerankDocument { text }) => text,
        }
    }
}

#[derive(Debug, Serialize, JsonSchema)]
struct RerankResponse {
    /// Best first.
    results: Vec<RerankResult>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct RerankResult {
    /// The position among the documents of the request, from 0.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<RerankDocument>,
}

/// Other fields of a document are ignored.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct RerankDocument {
    text: String,
}

pub(super) fn route() -> Route {
    let operation = Operation::post("/v1/rerank", "Passages in the order of their relevance to a query")
        .body::<RerankRequest>()
        .response::<RerankResponse>();
    Route::new(operation, post(rerank))
}

async fn rerank(
    State(app): State<App>,
    InputsBody(request): InputsBody<RerankRequest>,
) -> Result<Json<RerankResponse>, ApiError> {
    let max_inputs = app.limits.max_inputs;
    if request.documents.len() > max_inputs {
        let message = format!("there are {} documents: at most {max_inputs} are allowed", request.documents.len());
        return Err(ApiError::too_many_inputs(message, "documents"));
    }
    if request.query.trim().is_empty() {
        return Err(ApiError::bad("invalid_query", "the query is empty").param("query"));
    }
    let Some(reranker) = app.models.reranker().cloned() else {
        let error = ApiError::not_found("no_reranker", "the server has no reranker");
        return Err(error.hint("start it with --reranker MODEL"));
    };
    let results = app.execute(RequestClass::Search, async move |_, _| {
        let input = |text: &String| AnnotateInput {
            text: text.clone(),
            question: Some(request.query.clone()),
            choices: Vec::new(),
        };
        let documents: Vec<String> = request.documents.into_iter().map(Passage::into_text).collect();
        let answers = reranker.0.annotate(documents.iter().map(input).collect()).await;
        let mut results = Vec::with_capacity(documents.len());
        for (index, answer) in answers.map_err(|error| ApiError::from_backend(&error))?.into_iter().enumerate() {
            let invalid = |message| ApiError::bad("invalid_input", format!("document {index}: {message}"));
            let Annotation::Relevance(relevance_score) =
                answer.map_err(|message| invalid(message).param("documents"))?
            else {
                return Err(ApiError::unavailable("model_unavailable", "the reranker's head does not score relevance"));
            };
            let document = request.return_documents.then(|| RerankDocument { text: documents[index].clone() });
            results.push(RerankResult { index, relevance_score, document });
        }
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(request.top_n.unwrap_or(usize::MAX));
        Ok(results)
    });
    Ok(Json(RerankResponse { results: results.await? }))
}
