//! `GET /v1/tables/{name}/facets`: the values of a column and how many rows have them.

use axum::{Json, extract::State, routing::get};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    Route,
    sql::read,
    tables::{facet_named, quote},
};
use crate::{
    error::ApiError,
    extract::{Names, Params},
    openapi::Operation,
    state::App,
    statement,
    work::Kind,
};

/// Values at most.
const MOST: usize = 1000;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// A column of texts, of truth values or of labels.
    column: String,
    /// A SQL condition on the rows that are counted.
    #[serde(rename = "where")]
    condition: Option<String>,
    /// Values at most.
    #[serde(default = "fifty")]
    limit: usize,
}

fn fifty() -> usize {
    50
}

#[derive(Debug, Serialize, JsonSchema)]
struct Facet {
    column: String,
    /// Most frequent first.
    #[schemars(with = "Vec<Counted>")]
    values: Vec<Box<RawValue>>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema is what is used")]
struct Counted {
    /// A text, a truth value or null.
    value: Value,
    count: u64,
}

pub(super) fn route() -> Route {
    let path = "/v1/tables/{name}/facets";
    Route {
        operation: Operation::get(path, "The values of a column and how many rows have them")
            .params::<Asked>()
            .answer::<Facet>(),
        handler: get(facets),
    }
}

async fn facets(
    State(app): State<App>,
    Names(table): Names<String>,
    Params(asked): Params<Asked>,
) -> Result<Json<Facet>, ApiError> {
    if asked.limit > MOST {
        return Err(ApiError::too_much("too_many_values", format!("limit may be {MOST} at most")).param("limit"));
    }
    let counted = app.work_on(Kind::Statement, Some(&table), async move |app, snapshot, name, table| {
        let Asked { column, condition, limit } = asked;
        let value = facet_named(&table.schema(), &column)?;
        let condition = condition.filter(|condition| !condition.trim().is_empty());
        let condition = match condition {
            Some(condition) => {
                let checked = statement::check_condition(&condition, app.limits.statement)?;
                let refused = |error| ApiError::of_search(&error, Some(&name));
                table.plan_condition(&condition).map_err(refused)?;
                format!("WHERE ({})", checked.sql())
            }
            None => String::new(),
        };
        let sql = format!(
            "SELECT {value} AS value, count(*) AS count FROM {} {condition} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {limit}",
            quote(&name)
        );
        let read = read(&snapshot, &sql, &app.limits).await.map_err(|error| as_condition(error, !condition.is_empty()))?;
        Ok(Facet { column, values: read.rows })
    });
    Ok(Json(counted.await?))
}

/// The condition is all that the client wrote of the statement.
fn as_condition(error: ApiError, has_condition: bool) -> ApiError {
    if error.code == "invalid_sql" && has_condition {
        return ApiError { code: "invalid_filter", param: Some("where"), ..error };
    }
    error
}
