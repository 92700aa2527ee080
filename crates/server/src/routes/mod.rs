//! The routes: one file each, with its request, its response and its description.

mod documents;
mod elapsed;
mod embeddings;
mod facets;
mod health;
mod history;
mod map;
mod mcp;
mod metrics;
mod model_names;
mod models;
mod openapi;
mod page;
mod predict;
mod rerank;
mod route;
mod search;
mod sql;
mod tables;

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware::from_fn_with_state,
};

use self::route::Route;
use crate::{
    error::{ApiError, ErrorShapes},
    middleware::{authorize::authorize, dns_rebinding::refuse_foreign_pages, observe::observe},
    state::App,
};

/// The routes that require a token, if there are tokens.
fn protected() -> Vec<Route> {
    let mut routes = vec![
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
        mcp::route(),
        metrics::route(),
    ];
    let open = open();
    let description = openapi::route(routes.iter().chain(&open).map(|route| &route.operation).collect());
    routes.push(description);
    routes
}

/// The routes that require no token.
fn open() -> Vec<Route> {
    vec![health::alive(), health::ready()]
}

fn to_router(routes: Vec<Route>) -> Router<App> {
    routes.into_iter().fold(Router::new(), |router, route| router.route(route.operation.path, route.handler))
}

/// All routes with the layers around them.
pub(crate) fn router(app: App) -> Router {
    let protected = protected();
    let error_shapes = ErrorShapes::new(protected.iter().map(|route| (route.operation.path, route.error_shape)));
    to_router(open())
        .merge(to_router(protected).layer(from_fn_with_state(app.clone(), authorize)))
        .merge(page::router())
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(from_fn_with_state(app.clone(), refuse_foreign_pages))
        .layer(from_fn_with_state((app.clone(), error_shapes), observe))
        .with_state(app)
}

async fn not_found(uri: Uri) -> ApiError {
    let error = ApiError::not_found("not_found", "there is no such route");
    match uri.path() {
        "/embeddings" | "/models" | "/rerank" => error.hint("the base URL of clients must end with /v1"),
        "/mcp/" | "/sse" => error.hint("the address for clients of the Model Context Protocol ends with /mcp"),
        _ => error.hint("`GET /v1/openapi.json` lists the routes"),
    }
}

async fn method_not_allowed(method: Method) -> ApiError {
    let message = format!("{method} is not allowed on this route");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// The paths of all routes that are described.
#[cfg(test)]
pub(crate) fn paths() -> Vec<&'static str> {
    protected().iter().chain(&open()).map(|route| route.operation.path).collect()
}
