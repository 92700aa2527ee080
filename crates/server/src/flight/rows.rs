//! The schema of a statement, and its rows as a stream.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{common::runtime::SpawnedTask, error::DataFusionError};
use futures::{Stream, TryStreamExt, stream};
use polylance_search::SearchError;
use tokio::sync::mpsc::{Sender, channel};

use super::{parameters::PreparedStatement, wire::wire_schema};
use crate::{
    error::ApiError,
    executor::RequestClass,
    redact::TableAddresses,
    state::App,
    statement::{Sensitivity, check_statement},
    tables::Snapshot,
};

/// Batches that wait for the client; the statement pauses when there are more.
const MAX_WAITING_BATCHES: usize = 1;

/// The schema of a statement's rows.
pub(super) async fn schema(app: &App, statement: PreparedStatement) -> Result<SchemaRef, ApiError> {
    let planning = app.execute(RequestClass::Statement, async move |app, snapshot| {
        let redacted = |error: ApiError| error.redacted(&snapshot.addresses);
        let sql = statement.sql(app.limits.max_statement_bytes).map_err(redacted)?;
        check_statement(&sql, app.limits.max_statement_bytes).map_err(redacted)?;
        planned_schema(&snapshot, &sql).await.map_err(redacted)
    });
    planning.await
}

/// The schema of a statement's rows, and that of its parameters. A parameter whose type the statement does not determine
/// is a text. `None` for the rows if their columns depend on the value of a parameter, such as the table of a search.
pub(super) async fn prepared(
    app: &App,
    statement: PreparedStatement,
) -> Result<(Option<SchemaRef>, SchemaRef), ApiError> {
    let planning = app.execute(RequestClass::Statement, async move |app, snapshot| {
        let redacted = |error: ApiError| error.redacted(&snapshot.addresses);
        let (parameters, sql) = statement.numbered(app.limits.max_statement_bytes).map_err(redacted)?;
        check_statement(&sql, app.limits.max_statement_bytes).map_err(redacted)?;
        let (schema, types) = match Box::pin(snapshot.sql.parameters(&sql)).await {
            Ok(types) => (Some(planned_schema(&snapshot, &sql).await.map_err(redacted)?), types),
            Err(SearchError::Parameter(_)) => (None, HashMap::new()),
            Err(error) => return Err(redacted(ApiError::from_search(&error, None))),
        };
        let parameter = |at: usize| {
            let name = format!("${at}");
            let data_type = types.get(&name).cloned().flatten().unwrap_or(DataType::Utf8);
            Field::new(name, data_type, true)
        };
        let fields: Vec<_> = (1..=parameters).map(parameter).collect();
        Ok((schema, Arc::new(Schema::new(fields))))
    });
    planning.await
}

/// The same statement with the values of one row.
pub(super) async fn bind(
    app: &App,
    statement: PreparedStatement,
    values: RecordBatch,
) -> Result<PreparedStatement, ApiError> {
    app.execute(RequestClass::Statement, async move |app, _| statement.bind(&values, app.limits.max_statement_bytes))
        .await
}

/// The schema, and the rows as a stream, whose last item may be an error. Dropping the stream ends the statement.
pub(super) async fn rows(
    app: &App,
    statement: PreparedStatement,
) -> Result<(SchemaRef, impl Stream<Item = Result<RecordBatch, ApiError>> + Send + 'static), ApiError> {
    let (sender, mut batches) = channel(MAX_WAITING_BATCHES);
    let app = app.clone();
    let reading = SpawnedTask::spawn(async move {
        let to_client = sender.clone();
        let read = app.execute(RequestClass::Statement, async move |app, snapshot| {
            let read = Box::pin(read(&app, &snapshot, statement, &to_client)).await;
            read.map_err(|error| error.redacted(&snapshot.addresses))
        });
        if let Err(error) = read.await {
            // The client may be gone.
            let _gone = sender.send(Err(error)).await;
        }
    });
    let ended = || ApiError::unavailable("unavailable", "the statement ended early");
    let schema = batches.recv().await.ok_or_else(ended)??.schema();
    let rows = stream::unfold((batches, reading), async |(mut batches, reading)| {
        let batch = batches.recv().await?;
        Some((batch, (batches, reading)))
    });
    Ok((schema, rows))
}

/// Sends an empty batch with the schema, then the rows.
async fn read(
    app: &App,
    snapshot: &Snapshot,
    statement: PreparedStatement,
    client: &Sender<Result<RecordBatch, ApiError>>,
) -> Result<(), ApiError> {
    let sql = &statement.sql(app.limits.max_statement_bytes)?;
    let sensitivity = check_statement(sql, app.limits.max_statement_bytes)?;
    let schema = planned_schema(snapshot, sql).await?;
    let api_error = |error: SearchError| ApiError::from_search(&error, None);
    let row_error = |error: ArrowError| api_error(SearchError::from(DataFusionError::from(error)));
    let mut batches = Box::pin(snapshot.sql.query(sql)).await.map_err(api_error)?;
    if client.send(Ok(RecordBatch::new_empty(Arc::clone(&schema)))).await.is_err() {
        return Ok(());
    }
    while let Some(batch) = batches.try_next().await.map_err(|error| api_error(SearchError::from(error)))? {
        let mut columns = batch.columns().to_vec();
        if sensitivity == Sensitivity::Addresses {
            for column in &mut columns {
                *column = redact_texts(column, &snapshot.addresses).map_err(row_error)?;
            }
        }
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            if column.data_type() != field.data_type() {
                *column = cast(column, field.data_type()).map_err(row_error)?;
            }
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &rows).map_err(row_error)?;
        if client.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn planned_schema(snapshot: &Snapshot, sql: &str) -> Result<SchemaRef, ApiError> {
    let schema = Box::pin(snapshot.sql.schema(sql)).await.map_err(|error| ApiError::from_search(&error, None))?;
    Ok(Arc::new(wire_schema(&schema)))
}

/// The column with redacted texts.
fn redact_texts(column: &ArrayRef, addresses: &TableAddresses) -> Result<ArrayRef, ArrowError> {
    if !matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Ok(Arc::clone(column));
    }
    let texts = cast(column, &DataType::Utf8)?;
    let redacted = texts.as_string::<i32>().iter().map(|text| text.map(|text| addresses.redact(text)));
    cast(&redacted.collect::<StringArray>(), column.data_type())
}
