//! `POST /v1/rerank`: passages in the order in which they answer a query.

use axum::{Json, extract::State, routing::post};
use polylance_backend::{AnnotateInput, Annotation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Route;
use crate::{error::ApiError, extract::JsonBody, openapi::Operation, state::App, work::Kind};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    documents: Vec<String>,
    /// Results at most.
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    /// There is one reranker: the name is not looked at.
    #[serde(rename = "model")]
    _model: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ranking {
    /// Best first.
    results: Vec<Ranked>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Ranked {
    /// Its place among the documents of the request, from 0.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Document>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Document {
    text: String,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::post("/v1/rerank", "Passages in the order in which they answer a query")
            .body::<Asked>()
            .answer::<Ranking>(),
        handler: post(rerank),
    }
}

async fn rerank(State(app): State<App>, JsonBody(asked): JsonBody<Asked>) -> Result<Json<Ranking>, ApiError> {
    let most = app.limits.inputs;
    if asked.documents.len() > most {
        let message = format!("there are {} documents, and may be {most}", asked.documents.len());
        return Err(ApiError::too_much("too_many_inputs", message).param("documents"));
    }
    if asked.query.trim().is_empty() {
        return Err(ApiError::bad("invalid_query", "the query is empty").param("query"));
    }
    let Some(reranker) = app.models.reranker().cloned() else {
        let error = ApiError::not_found("no_reranker", "the server has no reranker");
        return Err(error.hint("start it with --reranker MODEL"));
    };
    let results = app.work(Kind::Search, async move |_, _| {
        let input = |text: &String| AnnotateInput {
            text: text.clone(),
            question: Some(asked.query.clone()),
            choices: Vec::new(),
        };
        let answers = reranker.0.annotate(asked.documents.iter().map(input).collect()).await;
        let mut results = Vec::with_capacity(asked.documents.len());
        for (index, answer) in answers.map_err(|error| ApiError::of_backend(&error))?.into_iter().enumerate() {
            let refused = |message| ApiError::bad("invalid_input", format!("document {index}: {message}"));
            let Annotation::Relevance(relevance_score) =
                answer.map_err(|message| refused(message).param("documents"))?
            else {
                return Err(ApiError::unavailable("model_unavailable", "the reranker's head does not score relevance"));
            };
            let document = asked.return_documents.then(|| Document { text: asked.documents[index].clone() });
            results.push(Ranked { index, relevance_score, document });
        }
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(asked.top_n.unwrap_or(usize::MAX));
        Ok(results)
    });
    Ok(Json(Ranking { results: results.await? }))
}
