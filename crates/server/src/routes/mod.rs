//! The routes: one file each, with what it reads, what it answers, and what it is for.

mod documents;
mod embeddings;
mod facets;
mod health;
mod history;
mod map;
mod metrics;
mod models;
mod openapi;
mod page;
mod predict;
mod rerank;
mod search;
mod sql;
mod tables;

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware::from_fn_with_state,
    routing::MethodRouter,
};

use crate::{auth, error::ApiError, host, observe, openapi::Operation, state::App};

const EMBEDDINGS: &str = "/v1/embeddings";
const RERANK: &str = "/v1/rerank";
const PREDICT: &str = "/v1/predict";
const MODELS: &str = "/v1/models";
const MODEL: &str = "/v1/models/{model}";

/// Whether requests to this address have many inputs.
pub(crate) fn takes_inputs(path: &str) -> bool {
    [EMBEDDINGS, RERANK, PREDICT].contains(&path)
}

/// Whether errors of this address have `OpenAI`'s shape.
pub(crate) fn is_openai(path: &str) -> bool {
    path == EMBEDDINGS || path == MODELS || path.starts_with("/v1/models/")
}

/// A route and its description: what is served is what is documented.
struct Route {
    operation: Operation,
    handler: MethodRouter<App>,
}

/// Everything that a token is asked for.
fn api() -> Vec<Route> {
    vec![
        tables::route(),
        search::route(),
        documents::route(),
        facets::route(),
        history::route(),
        map::route(),
        sql::route(),
        embeddings::route(),
        models::list(),
        models::one(),
        rerank::route(),
        predict::route(),
        openapi::route(),
        metrics::route(),
    ]
}

fn open() -> Vec<Route> {
    vec![health::alive(), health::ready()]
}

fn routed(routes: Vec<Route>) -> Router<App> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(route.operation.path, route.handler))
}

/// All routes with what surrounds them.
pub(crate) fn router(app: App) -> Router {
    let api = routed(api()).layer(from_fn_with_state(app.clone(), auth::authorize));
    routed(open())
        .merge(api)
        .merge(page::router())
        .fallback(nothing)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(app.clone(), host::check))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}

async fn nothing(uri: Uri) -> ApiError {
    let error = ApiError::not_found("not_found", "there is nothing here");
    match uri.path() {
        "/embeddings" | "/models" | "/rerank" => error.hint("the base URL of clients ends with /v1"),
        _ => error.hint("`GET /v1/openapi.json` lists what there is"),
    }
}

async fn other_method(method: Method) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{method} is not for this address"))
}
