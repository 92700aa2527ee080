//! `POST /v1/rerank`: passages in the order in which they answer a query.

use axum::{Json, extract::State, routing::post};
use polylance_backend::{AnnotateInput, Annotation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{RERANK, Route};
use crate::{error::ApiError, extract::JsonBody, openapi::Operation, state::App, work::Kind};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    query: String,
    /// Texts, or objects with a `text`.
    documents: Vec<Passage>,
    /// Results at most.
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: bool,
    /// There is one reranker: the name is not looked at.
    #[serde(rename = "model")]
    _model: Option<String>,
    /// Read by no one here.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a document is a text, or an object with `text`")]
enum Passage {
    Text(String),
    Object(Document),
}

impl Passage {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) | Self::Object(Document { text }) => text,
        }
    }
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

/// Further fields of a document are not looked at.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Document {
    text: String,
}

pub(super) fn route() -> Route {
    Route {
        operation: Operation::post(RERANK, "Passages in the order in which they answer a query")
            .body::<Asked>()
            .answer::<Ranking>(),
        handler: post(rerank),
    }
}

async fn rerank(State(app): State<App>, JsonBody(asked): JsonBody<Asked>) -> Result<Json<Ranking>, ApiError> {
    let most = app.limits.inputs;
    if asked.documents.len() > most {
        let message = format!("there are {} documents, and may be {most}", asked.documents.len());
        return Err(ApiError::too_many(message, "documents"));
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
        let documents: Vec<String> = asked.documents.into_iter().map(Passage::into_text).collect();
        let answers = reranker.0.annotate(documents.iter().map(input).collect()).await;
        let mut results = Vec::with_capacity(documents.len());
        for (index, answer) in answers.map_err(|error| ApiError::of_backend(&error))?.into_iter().enumerate() {
            let refused = |message| ApiError::bad("invalid_input", format!("document {index}: {message}"));
            let Annotation::Relevance(relevance_score) =
                answer.map_err(|message| refused(message).param("documents"))?
            else {
                return Err(ApiError::unavailable("model_unavailable", "the reranker's head does not score relevance"));
            };
            let document = asked.return_documents.then(|| Document { text: documents[index].clone() });
            results.push(Ranked { index, relevance_score, document });
        }
        results.sort_by(|a, b| b.relevance_score.total_cmp(&a.relevance_score));
        results.truncate(asked.top_n.unwrap_or(usize::MAX));
        Ok(results)
    });
    Ok(Json(Ranking { results: results.await? }))
}
