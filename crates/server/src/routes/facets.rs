//! `GET /v1/tables/{name}/facets`: the values of a column and how many rows have them.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::route::Route;
use crate::{
    columns::{facet_named, quote},
    error::ApiError,
    executor::RequestClass,
    extract::{PathParams, QueryParams},
    json::read_rows,
    openapi::Operation,
    state::App,
    statement::check_condition,
};

const MAX_VALUES: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FacetsParams {
    /// A column of texts, booleans or labels.
    column: String,
    /// A SQL condition: only rows that match it are counted.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// The maximum number of values.
    #[serde(default = "default_limit")]
    limit: usize,
}

fn default_limit() -> usize {
    50
}

#[derive(Debug, Serialize, JsonSchema)]
struct FacetsResponse {
    column: String,
    /// Most frequent first.
    #[schemars(with = "Vec<ValueCount>")]
    values: Vec<Box<RawValue>>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct ValueCount {
    /// A text, a boolean or null.
    value: Value,
    count: u64,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/facets";
    let operation = Operation::get(path, "The values of a column and how many rows have them")
        .query_params::<FacetsParams>()
        .response::<FacetsResponse>();
    Route::new(operation, get(facets))
}

async fn facets(
    State(app): State<App>,
    PathParams(table): PathParams<String>,
    QueryParams(params): QueryParams<FacetsParams>,
) -> Result<Json<FacetsResponse>, ApiError> {
    if params.limit > MAX_VALUES {
        return Err(ApiError::too_much("too_many_values", format!("limit is at most {MAX_VALUES}")).param("limit"));
    }
    let counted = app.execute_on_table(RequestClass::Statement, Some(&table), async move |app, snapshot, name, table| {
        let FacetsParams { column, condition, limit } = params;
        let value = facet_named(&table.schema(), &column)?;
        let condition = condition.filter(|condition| !condition.trim().is_empty());
        let condition = match condition {
            Some(condition) => {
                let checked = check_condition(&condition, app.limits.max_statement_bytes)?;
                let api_error = |error| ApiError::from_search(&error, Some(&name));
                table.plan_condition(&condition).map_err(api_error)?;
                format!("WHERE ({})", checked.sql())
            }
            None => String::new(),
        };
        let sql = format!(
            "SELECT {value} AS value, count(*) AS count FROM {} {condition} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}",
            quote(&name)
        );
        let read = read_rows(&snapshot, &sql, &app.limits).await;
        let read = read.map_err(|error| as_condition_error(error, !condition.is_empty()))?;
        Ok(FacetsResponse { column, values: read.rows })
    });
    Ok(Json(counted.await?))
}

/// Of the statement, the client wrote only the condition: an error is about that.
fn as_condition_error(error: ApiError, has_condition: bool) -> ApiError {
    if error.code == "invalid_sql" && has_condition {
        return ApiError { code: "invalid_filter", param: Some("where"), ..error };
    }
    error
}
