//! The rows of a statement while they are made.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef},
    error::ArrowError,
};
use datafusion::{common::runtime::SpawnedTask, error::DataFusionError};
use futures::{Stream, TryStreamExt, stream};
use polylance_search::SearchError;
use tokio::sync::mpsc::{Sender, channel};

use super::parameters::Prepared;
use crate::{
    addresses::Addresses,
    error::ApiError,
    state::App,
    statement::{self, Tells},
    tables::Snapshot,
    work::Kind,
};

/// Batches that wait for their client: the statement waits with them.
const AHEAD: usize = 1;

/// The columns of a statement's rows.
pub(super) async fn schema(app: &App, statement: Prepared) -> Result<SchemaRef, ApiError> {
    let planned = app.work(Kind::Statement, async move |app, snapshot| {
        let hidden = |error| snapshot.addresses.hide_in(error);
        let sql = statement.sql(app.limits.statement).map_err(hidden)?;
        statement::check(&sql, app.limits.statement).map_err(hidden)?;
        planned(&snapshot, &sql).await.map_err(hidden)
    });
    planned.await
}

/// The columns of a statement's rows, and its parameters as columns. A parameter whose type the statement leaves open is
/// a text. Where a constant must be known to tell the columns, such as the table of a search, they are not known.
pub(super) async fn prepared(app: &App, statement: Prepared) -> Result<(Option<SchemaRef>, SchemaRef), ApiError> {
    let planned = app.work(Kind::Statement, async move |app, snapshot| {
        let hidden = |error| snapshot.addresses.hide_in(error);
        let (parameters, sql) = statement.numbered(app.limits.statement).map_err(hidden)?;
        statement::check(&sql, app.limits.statement).map_err(hidden)?;
        let (schema, types) = match Box::pin(snapshot.sql.parameters(&sql)).await {
            Ok(types) => (Some(planned(&snapshot, &sql).await.map_err(hidden)?), types),
            Err(SearchError::Parameter(_)) => (None, HashMap::new()),
            Err(error) => return Err(hidden(ApiError::of_search(&error, None))),
        };
        let parameter = |at: usize| {
            let name = format!("${at}");
            let data_type = types.get(&name).cloned().flatten().unwrap_or(DataType::Utf8);
            Field::new(name, data_type, true)
        };
        let fields: Vec<_> = (1..=parameters).map(parameter).collect();
        Ok((schema, Arc::new(Schema::new(fields))))
    });
    planned.await
}

/// The same statement with the values of one row.
pub(super) async fn bind(app: &App, statement: Prepared, values: RecordBatch) -> Result<Prepared, ApiError> {
    app.work(Kind::Statement, async move |app, _| statement.bind(&values, app.limits.statement)).await
}

/// The columns, and the rows as they come; the last item may be an error. Dropping the stream ends the statement.
pub(super) async fn rows(
    app: &App,
    statement: Prepared,
) -> Result<(SchemaRef, impl Stream<Item = Result<RecordBatch, ApiError>> + Send + 'static), ApiError> {
    let (sender, mut batches) = channel(AHEAD);
    let app = app.clone();
    let reading = SpawnedTask::spawn(async move {
        let to_client = sender.clone();
        let read = app.work(Kind::Statement, async move |app, snapshot| {
            let read = Box::pin(read(&app, &snapshot, statement, &to_client)).await;
            read.map_err(|error| snapshot.addresses.hide_in(error))
        });
        if let Err(error) = read.await {
            // A client that is gone is told nothing.
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

/// Sends the rows, and before them a batch without any, which tells the columns.
async fn read(
    app: &App,
    snapshot: &Snapshot,
    statement: Prepared,
    client: &Sender<Result<RecordBatch, ApiError>>,
) -> Result<(), ApiError> {
    let sql = &statement.sql(app.limits.statement)?;
    let tells = statement::check(sql, app.limits.statement)?;
    let schema = planned(snapshot, sql).await?;
    let refused = |error: SearchError| ApiError::of_search(&error, None);
    let in_rows = |error: ArrowError| refused(SearchError::from(DataFusionError::from(error)));
    let mut batches = Box::pin(snapshot.sql.query(sql)).await.map_err(refused)?;
    if client.send(Ok(RecordBatch::new_empty(Arc::clone(&schema)))).await.is_err() {
        return Ok(());
    }
    while let Some(batch) = batches.try_next().await.map_err(|error| refused(SearchError::from(error)))? {
        let mut columns = batch.columns().to_vec();
        if tells == Tells::Plans {
            for column in &mut columns {
                *column = hidden(column, &snapshot.addresses).map_err(in_rows)?;
            }
        }
        for (column, field) in columns.iter_mut().zip(schema.fields()) {
            if column.data_type() != field.data_type() {
                *column = cast(column, field.data_type()).map_err(in_rows)?;
            }
        }
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &rows).map_err(in_rows)?;
        if client.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn planned(snapshot: &Snapshot, sql: &str) -> Result<SchemaRef, ApiError> {
    let schema = Box::pin(snapshot.sql.schema(sql)).await.map_err(|error| ApiError::of_search(&error, None))?;
    Ok(Arc::new(plain(&schema)))
}

/// The columns as they are sent: without their metadata, which says where models were found, and with the types that
/// the protocol's encoder leaves as they are, so that what is announced is what arrives. It unpacks dictionaries, and
/// knows lists of one size of offset only.
pub(super) fn plain(schema: &Schema) -> Schema {
    Schema::new(schema.fields().iter().map(sent).collect::<Fields>())
}

fn sent(field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(field.name(), sent_type(field.data_type()), field.is_nullable()))
}

fn sent_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => sent_type(values),
        DataType::List(item) | DataType::LargeList(item) => DataType::List(sent(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(sent(item), *length),
        DataType::ListView(item) => DataType::ListView(sent(item)),
        DataType::LargeListView(item) => DataType::LargeListView(sent(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(sent).collect()),
        DataType::Map(entries, sorted) => DataType::Map(sent(entries), *sorted),
        DataType::RunEndEncoded(_, values) => sent_type(values.data_type()),
        other => other.clone(),
    }
}

/// The column with no address in its texts.
fn hidden(column: &ArrayRef, addresses: &Addresses) -> Result<ArrayRef, ArrowError> {
    if !matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Ok(Arc::clone(column));
    }
    let texts = cast(column, &DataType::Utf8)?;
    let hidden = texts.as_string::<i32>().iter().map(|text| text.map(|text| addresses.hide(text)));
    cast(&hidden.collect::<StringArray>(), column.data_type())
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{DictionaryArray, LargeListArray, LargeStringArray, ListArray, StringViewArray, StructArray},
        buffer::OffsetBuffer,
        datatypes::{Int8Type, Int32Type, Int64Type},
    };
    use arrow_flight::{decode::FlightRecordBatchStream, encode::FlightDataEncoderBuilder};

    use super::*;

    #[tokio::test]
    async fn columns_of_any_type_arrive_as_they_were_announced() {
        let words: ArrayRef = Arc::new([Some("one"), None].into_iter().collect::<DictionaryArray<Int32Type>>());
        let tiny: ArrayRef = Arc::new([Some("one"), None].into_iter().collect::<DictionaryArray<Int8Type>>());
        let item = Arc::new(Field::new_list_field(tiny.data_type().clone(), true));
        let list = ListArray::new(item, OffsetBuffer::from_lengths([1, 1]), Arc::clone(&tiny), None);
        let fields = Fields::from(vec![Field::new("word", words.data_type().clone(), true)]);
        let large = LargeListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), None]);
        let columns: [(&str, ArrayRef); 7] = [
            ("words", Arc::clone(&words)),
            ("tiny", tiny),
            ("list", Arc::new(list)),
            ("struct", Arc::new(StructArray::new(fields, vec![words], None))),
            ("large", Arc::new(large)),
            ("view", Arc::new(StringViewArray::from(vec!["x", "a text that is longer than a view"]))),
            ("wide", Arc::new(LargeStringArray::from(vec!["x", "y"]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)));
        let batch = batch.unwrap();
        let announced = Arc::new(plain(batch.schema_ref()));
        let columns = batch.columns().iter().zip(announced.fields());
        let columns = columns.map(|(column, field)| cast(column, field.data_type()).unwrap()).collect();
        let sent = RecordBatch::try_new(Arc::clone(&announced), columns).unwrap();
        let encoded = FlightDataEncoderBuilder::new().build(stream::iter([Ok(sent.clone())]));
        let arrived: Vec<RecordBatch> =
            FlightRecordBatchStream::new_from_flight_data(encoded).try_collect().await.unwrap();
        assert_eq!(arrived, [sent]);
    }
}
