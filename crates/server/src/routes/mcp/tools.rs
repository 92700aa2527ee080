//! The tools: each is the function of an HTTP route with a description for models.

use futures::future::BoxFuture;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{message::to_result, text::CompactText};
use crate::{
    error::{ApiError, RpcError},
    extract,
    routes::{
        documents::{DocumentParams, document},
        search::{SearchParams, search},
        sql::{SqlRequest, sql},
        tables::tables,
    },
    state::App,
};

/// How the tools work together.
pub(super) const INSTRUCTIONS: &str = "Search and read-only SQL over tables of texts with embeddings. Call `tables` \
    for the columns of each table, `search` to find passages by meaning or by words, `document` to read a whole \
    document, and `sql` to count, group and join.";

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Search,
    Sql,
    Document,
    Tables,
}

/// The arguments of a tool that needs none.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

/// The result of a call, also of one that failed: a model reads the error and corrects its arguments.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolResult<R> {
    content: [TextContent; 1],
    structured_content: R,
    is_error: bool,
}

#[derive(Debug, Serialize)]
struct TextContent {
    #[serde(rename = "type")]
    kind: &'static str,
    text: String,
}

impl Tool {
    pub(super) const ALL: [Self; 4] = [Self::Search, Self::Sql, Self::Document, Self::Tables];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Search => "search",
            Self::Sql => "sql",
            Self::Document => "document",
            Self::Tables => "tables",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }

    fn title(self) -> &'static str {
        match self {
            Self::Search => "Search a table",
            Self::Sql => "Query the tables with SQL",
            Self::Document => "Read a document",
            Self::Tables => "List the tables",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Self::Search => {
                "Finds the rows of a table that best match a query, best first. Give exactly one of `query`, `like` \
                 and `vector`; `query` is a question or a phrase in any language, also another one than that of the \
                 texts. By default the search combines meaning and exact words if the table has a full-text index. \
                 Narrow it with `where`, a SQL condition on the columns that `tables` lists, for example `lang = 'en' \
                 AND year >= 2020`. A row is a passage of a document: read the rest with `document` and its `doc_id`. \
                 Set `by_document` for one passage per document, and `columns` for shorter results."
            }
            Self::Sql => {
                "Runs one read-only SQL query (DataFusion's dialect, similar to PostgreSQL) over the tables and \
                 returns its rows. Use it to count, group, filter and join; to find texts, use `search`. `tables` \
                 lists tables and columns; put names that are not lower case in double quotes. Select only the \
                 columns that you need and set a LIMIT: a long result is cut and marked as truncated. Searches are \
                 table functions: vector_search('table', 'query', k, 'condition'), and likewise text_search and \
                 hybrid_search."
            }
            Self::Document => {
                "Returns all passages (chunks) of one document in order, with their texts. Use it after `search` to \
                 read around a hit; `doc_id` is in the row of the hit."
            }
            Self::Tables => {
                "Lists the tables: names, numbers of rows, columns with their types, columns with few values \
                 (facets), and whether a table has a full-text index. Call it before you write conditions or SQL. \
                 Hints of errors call it `GET /v1/tables`."
            }
        }
    }

    fn input_schema(self) -> Value {
        match self {
            Self::Search => schema::<SearchParams>(),
            Self::Sql => schema::<SqlRequest>(),
            Self::Document => schema::<DocumentParams>(),
            Self::Tables => schema::<NoArguments>(),
        }
    }

    /// The tool as `tools/list` describes it.
    pub(super) fn describe(self) -> Value {
        json!({
            "name": self.name(),
            "title": self.title(),
            "description": self.description(),
            "inputSchema": self.input_schema(),
            "annotations": {
                "title": self.title(),
                "readOnlyHint": true,
                "destructiveHint": false,
                "idempotentHint": true,
                "openWorldHint": false,
            },
        })
    }

    /// The result of the tool, which runs within the limits of its route.
    pub(super) async fn call(self, app: &App, arguments: Option<&RawValue>) -> Result<Box<RawValue>, RpcError> {
        let outcome = self.run(app, arguments).await;
        let code = outcome.as_ref().map_or_else(|error| error.code, |_| "ok");
        app.metrics.tool_call(self.name(), code);
        tracing::info!(tool = self.name(), code, "called a tool");
        outcome.or_else(|error| to_result(&failure(&error)))
    }

    /// Without the types of the searches in it, whose nesting would exceed the compiler's limit in the layers above.
    fn run<'c>(self, app: &'c App, given: Option<&'c RawValue>) -> BoxFuture<'c, Result<Box<RawValue>, ApiError>> {
        Box::pin(async move {
            match self {
                Self::Search => success(&Box::pin(search(app, arguments(given)?)).await?),
                Self::Sql => success(&Box::pin(sql(app, arguments(given)?)).await?),
                Self::Document => success(&Box::pin(document(app, arguments(given)?)).await?),
                Self::Tables => {
                    let NoArguments {} = arguments(given)?;
                    success(&Box::pin(tables(app)).await?)
                }
            }
        })
    }
}

/// A result with the response of the route, which is written once because it can be large.
fn success<R: Serialize + CompactText>(response: &R) -> Result<Box<RawValue>, ApiError> {
    let content = [TextContent::new(response.text())];
    to_raw_value(&ToolResult { content, structured_content: response, is_error: false })
        .map_err(|_| ApiError::bad("not_json", "the result cannot be written as JSON"))
}

fn failure(error: &ApiError) -> ToolResult<Value> {
    let text = match &error.hint {
        Some(hint) => format!("{}\nhint: {hint}", error.message),
        None => error.message.clone(),
    };
    let structured_content = json!({ "error": error.fields() });
    ToolResult { content: [TextContent::new(text)], structured_content, is_error: true }
}

impl TextContent {
    fn new(text: String) -> Self {
        Self { kind: "text", text }
    }
}

/// The arguments of a call as the parameters of a route.
fn arguments<T: DeserializeOwned>(given: Option<&RawValue>) -> Result<T, ApiError> {
    let given = given.map_or("{}", RawValue::get);
    extract::parse(given.as_bytes())
        .map_err(|error| ApiError::bad("invalid_request", format!("the arguments do not fit: {error}")))
}

/// The schema of the parameters without references, which some clients do not resolve.
fn schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.remove("title");
    schema.to_value()
}
