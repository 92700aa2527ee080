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

use super::{catalog::CatalogCommand, parameters::PreparedStatement, rows};
use crate::{state::App, token::is_allowed};

type ResponseStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type RowsResponse = Response<ResponseStream<FlightData>>;

/// The service of Flight SQL.
#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub(super) app: App,
}

impl Flight {
    /// The schema and the ticket of a statement's rows.
    async fn statement_info(
        &self,
        statement: PreparedStatement,
        ticket: impl ProstMessageExt,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let schema = rows::schema(&self.app, statement).await?;
        info(&schema, ticket, request)
    }

    async fn statement_rows(&self, statement: PreparedStatement) -> Result<RowsResponse, Status> {
        let (schema, rows) = Box::pin(rows::rows(&self.app, statement)).await?;
        let rows = rows.map_err(|error| FlightError::from(Status::from(error)));
        let data = FlightDataEncoderBuilder::new().with_schema(schema).build(rows);
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }

    fn catalog(&self, command: impl CatalogCommand) -> Result<RecordBatch, Status> {
        Ok(command.rows(&self.app.tables.current())?)
    }

    /// The schema and the ticket of a command's rows, which are few and computed twice.
    fn catalog_info(
        &self,
        command: impl CatalogCommand + Clone,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        info(&self.catalog(command.clone())?.schema(), command, request)
    }

    fn catalog_rows(&self, command: impl CatalogCommand) -> Result<RowsResponse, Status> {
        let rows = self.catalog(command)?;
        let data = FlightDataEncoderBuilder::new().with_schema(rows.schema()).build(stream::iter([Ok(rows)]));
        Ok(Response::new(data.map_err(Status::from).boxed()))
    }
}

fn info(
    schema: &Schema,
    ticket: impl ProstMessageExt,
    request: Request<FlightDescriptor>,
) -> Result<Response<FlightInfo>, Status> {
    // Without a location the client requests the rows from this server.
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.as_any().encode_to_vec()));
    let info = FlightInfo::new().try_with_schema(schema).map_err(FlightError::from)?;
    Ok(Response::new(info.with_endpoint(endpoint).with_descriptor(request.into_inner())))
}

fn encoded(schema: &Schema) -> Result<Bytes, Status> {
    let message: IpcMessage =
        SchemaAsIpc::new(schema, &IpcWriteOptions::default()).try_into().map_err(FlightError::from)?;
    Ok(message.0)
}

/// Some drivers pad the last group, others do not.
const BASIC_AUTH_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The password that a driver sends with its user: it is the token, and the user is ignored.
fn password(metadata: &MetadataMap) -> Option<String> {
    let authorization = metadata.get(header::AUTHORIZATION.as_str())?.to_str().ok()?;
    let (scheme, pair) = authorization.split_once(' ')?;
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASIC_AUTH_BASE64.decode(pair.trim()).ok())??;
    let pair = String::from_utf8(pair).ok()?;
    Some(pair.split_once(':')?.1.to_owned())
}

#[async_trait]
impl FlightSqlService for Flight {
    type FlightService = Self;

    async fn do_handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<ResponseStream<HandshakeResponse>>, Status> {
        let token = password(request.metadata());
        if !is_allowed(&self.app.tokens, token.as_deref().map(str::as_bytes)) {
            return Err(Status::unauthenticated("the password is not a valid token"));
        }
        let token = token.unwrap_or_default();
        let handshake = HandshakeResponse { protocol_version: 0, payload: token.clone().into() };
        let mut response: Response<ResponseStream<_>> = Response::new(stream::once(ready(Ok(handshake))).boxed());
        let bearer = format!("Bearer {token}").parse();
        let bearer = bearer.map_err(|_| Status::unauthenticated("the password is not a valid token"))?;
        response.metadata_mut().insert(header::AUTHORIZATION.as_str(), bearer);
        Ok(response)
    }

    async fn get_flight_info_statement(
        &self,
        query: CommandStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        let ticket = TicketStatementQuery { statement_handle: query.query.clone().into() };
        self.statement_info(PreparedStatement::new(query.query), ticket, request).await
    }

    async fn get_flight_info_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.statement_info(PreparedStatement::from_handle(query.prepared_statement_handle.clone())?, query, request)
            .await
    }

    async fn do_get_statement(&self, ticket: TicketStatementQuery, _: Request<Ticket>) -> Result<RowsResponse, Status> {
        self.statement_rows(PreparedStatement::from_handle(ticket.statement_handle)?).await
    }

    async fn do_get_prepared_statement(
        &self,
        query: CommandPreparedStatementQuery,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.statement_rows(PreparedStatement::from_handle(query.prepared_statement_handle)?).await
    }

    async fn do_action_create_prepared_statement(
        &self,
        query: ActionCreatePreparedStatementRequest,
        _: Request<Action>,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let statement = PreparedStatement::new(query.query);
        let prepared_statement_handle = statement.handle();
        let (columns, parameters) = rows::prepared(&self.app, statement).await?;
        let dataset_schema = columns.map_or(Ok(Bytes::new()), |columns| encoded(&columns))?;
        let parameter_schema = encoded(&parameters)?;
        Ok(ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema })
    }

    async fn do_put_prepared_statement_query(
        &self,
        query: CommandPreparedStatementQuery,
        request: Request<PeekableFlightDataStream>,
    ) -> Result<DoPutPreparedStatementResult, Status> {
        let statement = PreparedStatement::from_handle(query.prepared_statement_handle)?;
        let values = request.into_inner().map_err(FlightError::from);
        let mut values = FlightRecordBatchStream::new_from_flight_data(values);
        // Expects one row in one batch, and keeps nothing more.
        let mut row = RecordBatch::new_empty(Arc::new(Schema::empty()));
        while let Some(batch) = values.try_next().await? {
            if batch.num_rows() > 0 && row.num_rows() > 0 {
                return Err(Status::invalid_argument("the parameters have more than one row of values"));
            }
            if batch.num_rows() > 0 {
                row = batch;
            }
        }
        let bound = rows::bind(&self.app, statement, row).await?;
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
        command: CommandGetCatalogs,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_catalogs(&self, command: CommandGetCatalogs, _: Request<Ticket>) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_schemas(
        &self,
        command: CommandGetDbSchemas,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_schemas(&self, command: CommandGetDbSchemas, _: Request<Ticket>) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_tables(
        &self,
        command: CommandGetTables,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_tables(&self, command: CommandGetTables, _: Request<Ticket>) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_table_types(
        &self,
        command: CommandGetTableTypes,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_table_types(
        &self,
        command: CommandGetTableTypes,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_sql_info(
        &self,
        command: CommandGetSqlInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_sql_info(&self, command: CommandGetSqlInfo, _: Request<Ticket>) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_primary_keys(
        &self,
        command: CommandGetPrimaryKeys,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_exported_keys(
        &self,
        command: CommandGetExportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_exported_keys(
        &self,
        command: CommandGetExportedKeys,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_imported_keys(
        &self,
        command: CommandGetImportedKeys,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_imported_keys(
        &self,
        command: CommandGetImportedKeys,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_cross_reference(
        &self,
        command: CommandGetCrossReference,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_cross_reference(
        &self,
        command: CommandGetCrossReference,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn get_flight_info_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        request: Request<FlightDescriptor>,
    ) -> Result<Response<FlightInfo>, Status> {
        self.catalog_info(command, request)
    }

    async fn do_get_xdbc_type_info(
        &self,
        command: CommandGetXdbcTypeInfo,
        _: Request<Ticket>,
    ) -> Result<RowsResponse, Status> {
        self.catalog_rows(command)
    }

    async fn register_sql_info(&self, _: i32, _: &SqlInfo) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_and_unpadded_passwords_are_read() {
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
