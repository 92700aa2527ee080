//! The calls of the protocol.

use std::{pin::Pin, sync::Arc};

use arrow::{array::RecordBatch, datatypes::Schema, ipc::writer::IpcWriteOptions};
use arrow_flight::{
    Action, FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage,
    SchemaAsIpc, Ticket,
    decode::FlightRecordBatchStream,
    encode::FlightDataEncoderBuilder,
    error::FlightError,
    sql::{
        ActionClosePreparedStatementRequest, ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult,
        CommandGetCatalogs, CommandGetCrossReference, CommandGetDbSchemas, CommandGetExportedKeys,
        CommandGetImportedKeys, CommandGetPrimaryKeys, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        CommandGetXdbcTypeInfo, CommandPreparedStatementQuery, CommandStatementQuery, DoPutPreparedStatementResult,
        ProstMessageExt, SqlInfo, TicketStatementQuery,
        server::{FlightSqlService, PeekableFlightDataStream},
    },
};
use axum::http::header;
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use futures::{Stream, StreamExt, TryStreamExt, future::ready, stream};
use prost::{Message, bytes::Bytes};
use tonic::{Request, Response, Status, Streaming, async_trait, metadata::MetadataMap};

use super::{catalog::Listed, parameters::Prepared, read};
use crate::{auth, state::App};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Rows = Response<Answers<FlightData>>;

/// See the module above.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) app: App,
}

impl Flight {
    /// Where the rows of a statement are to be had, and which columns they have.
    async fn statement_info(
        &self,
        statement: Prepared,
        ticket: impl ProstMessageExt,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = read::schema(&self.app, statement).await?;
        info(&schema, ticket, request)
    }

    async fn statement_rows(&self, statement: Prepared) -> Result<Rows, Status> {
        let (schema, rows) = Box::pin(read::rows(&self.app, statement)).await?;
        let rows = rows.map_err(|error| FlightError::from(Status::from(error)));
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }

    fn list(&self, asked: impl Listed) -> Result<RecordBatch, Status> {
        Ok(asked.list(&self.app.tables.current())?)
    }

    /// The schema of a list is that of its rows: they are few, and made anew when they are asked for.
    fn list_info(
        &self,
        asked: impl Listed + Clone,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&self.list(asked.clone())?.schema(), asked, request)
    }

    fn list_rows(&self, asked: impl Listed) -> Result<Rows, Status> {
        let list = self.list(asked)?;
        let data = FlightDataEncoderBuilder::new().with_schema(list.schema()).build(stream::iter([Ok(list)]));
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }
}

fn info(
    schema: &Schema,
    ticket: impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    // Without a location: the rows are where the question was asked.
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(FlightError::from)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(request.into_inner())))
}

fn encoded(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage =
        SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(FlightError::from)?;
    Ok(message.0)
}

/// Some drivers fill the last group, others do not.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// User and password, as drivers send them: the password is the token, and the user may be anybody.
fn password(metadata: &MetadataMap) -> Option<String> {
    let given = metadata.get(header::AUTHORIZATION.as_str())?.to_str().ok()?;
    let (scheme, pair) = given.split_once(' ')?;
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASIC.decode(pair.trim()).ok())??;
    let pair = String::from_utf8(pair).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Answers<HandshakeResponse>>, Status> {
        let token = password(request.metadata());
        if !auth::is_known(&self.app.tokens, token.as_deref().map(str::as_bytes)) {
            return Err(Status::unauthenticated("the password is no token that is known here"));
        }
        let token = token.unwrap_or_default();
        let answer = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut answer: Response<Answers<_>> = Response::new(stream::once(ready(Ok(answer))).boxed());
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| Status::unauthenticated("the password is no token"))?;
        answer.metadata_mut().insert(header::AUTHORIZATION.as_str(), bearer);
        Ok(answer)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = TicketStatementQuery { statement_handle: query.query.clone().into() };
        self.statement_info(Prepared::new(query.query), ticket, request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.statement_info(Prepared::from_handle(query.prepared_statement_handle.clone())?, query, request).await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _: Request<Ticket>) -> Result<Rows, Status> {
        self.statement_rows(Prepared::from_handle(ticket.statement_handle)?).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _: Request<Ticket>,
    ) -> Result<Rows, Status> {
        self.statement_rows(Prepared::from_handle(query.prepared_statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let statement = Prepared::new(query.query);
        let prepared_statement_handle = statement.handle();
        let (columns, parameters) = read::prepared(&self.app, statement).await?;
        let dataset_schema = columns.map_or(Ok(Bytes::new()), |columns| encoded(&columns))?;
        let parameter_schema = encoded(&parameters)?;
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = Prepared::from_handle(query.prepared_statement_handle)?;
        let values = request.into_inner().map_err(FlightError::from);
        let mut values = FlightRecordBatchStream::new_from_flight_data(values);
        // One row is expected, in one batch. Of more than that nothing is kept.
        let mut row = RecordBatch::new_empty(Arc::new(Schema::empty()));
        while let Some(batch) = values.try_next().await? {
            if batch.num_rows() > 0 && row.num_rows() > 0 {
                return Err(Status::invalid_argument("the parameters have more than one row of values"));
            }
            if batch.num_rows() > 0 {
                row = batch;
            }
        }
        let bound = read::bind(&self.app, statement, row).await?;
        Ok(DoPutPreparedStatementResult { prepared_statement_handle: Some(bound.handle()) })
    }

    async fn do_action_close_prepared_statement(
        &self,
        _: ActionClosePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<(), Status> {
        Ok(())
    }

    async fn get_flight_info_catalogs(
        &self,
        asked: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_catalogs(&self, asked: CommandGetCatalogs, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_schemas(
        &self,
        asked: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_schemas(&self, asked: CommandGetDbSchemas, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_tables(
        &self,
        asked: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_tables(&self, asked: CommandGetTables, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_table_types(
        &self,
        asked: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_table_types(&self, asked: CommandGetTableTypes, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_sql_info(
        &self,
        asked: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_sql_info(&self, asked: CommandGetSqlInfo, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_primary_keys(
        &self,
        asked: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_primary_keys(&self, asked: CommandGetPrimaryKeys, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_exported_keys(
        &self,
        asked: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_exported_keys(&self, asked: CommandGetExportedKeys, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_imported_keys(
        &self,
        asked: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_imported_keys(&self, asked: CommandGetImportedKeys, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_cross_reference(
        &self,
        asked: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_cross_reference(
        &self,
        asked: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        asked: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.list_info(asked, request)
    }

    async fn do_get_xdbc_type_info(&self, asked: CommandGetXdbcTypeInfo, _: Request<Ticket>) -> Result<Rows, Status> {
        self.list_rows(asked)
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_filled_or_not() {
        let of = |value: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("authorization", value.parse().unwrap());
            password(&metadata)
        };
        assert_eq!(of("Basic YTpiOmM="), Some("b:c".to_owned()));
        assert_eq!(of("basic YTpiOmM"), Some("b:c".to_owned()));
        for wrong in ["Bearer YTpiOmM=", "Basic YWJj", "Basic ***", "Basic", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(password(&MetadataMap::new()), None);
    }
}
