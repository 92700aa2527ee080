//! The JSON of an error, which differs between our own routes and those that other services and protocols define.

use std::sync::Arc;

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorShape {
    /// `{"error": {"code", "message", "hint"}}`.
    Own,
    /// The same with `type` and `param`, as clients of `OpenAI`'s interface read it.
    OpenAi,
    /// A JSON-RPC error response without an id, as clients of the Model Context Protocol read it.
    JsonRpc,
}

/// The error shape of every route. Errors from before a route, such as a missing token, have it as well.
#[derive(Debug, Clone)]
pub(crate) struct ErrorShapes(Arc<[(&'static str, ErrorShape)]>);

impl ErrorShapes {
    /// `(pattern, shape)` of each route.
    pub(crate) fn new(routes: impl IntoIterator<Item = (&'static str, ErrorShape)>) -> Self {
        Self(routes.into_iter().filter(|(_, shape)| *shape != ErrorShape::Own).collect())
    }

    /// The shape of the route at this path. A path that only begins like a pattern with a name in it has its shape, too.
    pub(crate) fn of_path(&self, path: &str) -> ErrorShape {
        let is_answered_by = |pattern: &str| match pattern.split_once('{') {
            Some((beginning, _)) => path.starts_with(beginning),
            None => path == pattern,
        };
        self.0.iter().find(|(pattern, _)| is_answered_by(pattern)).map_or(ErrorShape::Own, |(_, shape)| *shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_shape_of_its_route() {
        let shapes = ErrorShapes::new([
            ("/v1/search", ErrorShape::Own),
            ("/v1/tables/{name}/map", ErrorShape::Own),
            ("/v1/models", ErrorShape::OpenAi),
            ("/v1/models/{model}", ErrorShape::OpenAi),
            ("/mcp", ErrorShape::JsonRpc),
        ]);
        assert_eq!(shapes.of_path("/mcp"), ErrorShape::JsonRpc);
        for path in ["/v1/models", "/v1/models/a", "/v1/models/org/a"] {
            assert_eq!(shapes.of_path(path), ErrorShape::OpenAi, "{path}");
        }
        for path in ["/v1/search", "/v1/tables/a/map", "/v1/modelsx", "/", "/nothing", "/mcp2"] {
            assert_eq!(shapes.of_path(path), ErrorShape::Own, "{path}");
        }
    }
}
