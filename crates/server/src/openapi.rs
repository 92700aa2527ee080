//! The `OpenAPI` document, generated from the request and response types of the routes.

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// The description of a route.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    query_params: Option<MakeSchema>,
    body: Option<MakeSchema>,
    response: Option<MakeSchema>,
}

/// Generates the schema of a type.
type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

fn make_schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Operation {
    pub(crate) fn get(path: &'static str, summary: &'static str) -> Self {
        Self { method: Method::GET, path, summary, query_params: None, body: None, response: None }
    }

    pub(crate) fn post(path: &'static str, summary: &'static str) -> Self {
        Self { method: Method::POST, ..Self::get(path, summary) }
    }

    /// The parameters after the `?`.
    pub(crate) fn query_params<T: JsonSchema>(self) -> Self {
        Self { query_params: Some(SchemaGenerator::root_schema_for::<T>), ..self }
    }

    pub(crate) fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(make_schema::<T>), ..self }
    }

    pub(crate) fn response<T: JsonSchema>(self) -> Self {
        Self { response: Some(make_schema::<T>), ..self }
    }

    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        let mut parameters: Vec<Value> = path_params(self.path)
            .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
            .collect();
        if let Some(schema) = self.query_params {
            parameters.extend(query_parameters(&schema(generator)));
        }
        let error = json!({ "$ref": "#/components/responses/Error" });
        let response = match self.response {
            Some(schema) => json!({ "description": "The response", "content": content(&schema(generator)) }),
            None => json!({ "description": "The response" }),
        };
        let mut operation = json!({
            "summary": self.summary,
            "parameters": parameters,
            "responses": { "200": response, "default": error },
        });
        if let Some(body) = self.body {
            operation["requestBody"] = json!({ "required": true, "content": content(&body(generator)) });
        }
        operation
    }
}

fn content(schema: &Schema) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// The names in braces.
fn path_params(path: &str) -> impl Iterator<Item = &str> {
    path.split(['{', '}']).skip(1).step_by(2)
}

fn query_parameters(schema: &Schema) -> Vec<Value> {
    let empty = Map::new();
    let object = |key: &str| schema.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
        parameter["required"] = json!(required.iter().any(|required| required == name));
        parameter
    };
    object("properties").iter().map(parameter).collect()
}

/// The document of these routes.
pub(crate) fn document<'o>(operations: impl IntoIterator<Item = &'o Operation>) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = operation.describe(&mut generator);
    }
    let text = json!({ "type": "string" });
    let hint = json!({ "type": ["string", "null"] });
    let error = json!({
        "description": "What is wrong, and what to do about it",
        "content": { "application/json": { "schema": {
            "type": "object",
            "required": ["error"],
            "properties": { "error": {
                "type": "object",
                "required": ["code", "message", "hint"],
                "properties": { "code": text, "message": text, "hint": hint },
            } },
        } } },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "polylance",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Vector, full-text and hybrid search, SQL, and models, over Lance tables.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "responses": { "Error": error },
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }, {}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct LookParams {
        /// The column.
        column: String,
        limit: Option<usize>,
    }

    #[test]
    fn path_and_query_parameters_are_described() {
        let operation =
            Operation::get("/v1/tables/{name}/x/{id}", "Look").query_params::<LookParams>().response::<LookParams>();
        let document = document([&operation]);
        let look = &document["paths"]["/v1/tables/{name}/x/{id}"]["get"];
        let named = |at: usize| (look["parameters"][at]["name"].as_str().unwrap(), &look["parameters"][at]["required"]);
        assert_eq!([named(0), named(1)], [("name", &json!(true)), ("id", &json!(true))]);
        assert_eq!([named(2), named(3)], [("column", &json!(true)), ("limit", &json!(false))]);
        let response = &look["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(response, "#/components/schemas/LookParams");
        assert!(document["components"]["schemas"]["LookParams"]["properties"]["column"].is_object());
    }
}
