//! The tables and the server, as the catalogue of a client shows them.

use arrow::array::RecordBatch;
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        ProstMessageExt, SqlInfo, SqlSupportedTransaction,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
    },
};

use super::wire::wire_schema;
use crate::tables::Snapshot;

/// The default catalogue and schema of DataFusion.
pub(super) const CATALOG: &str = "datafusion";
pub(super) const SCHEMA: &str = "public";
/// The only type of table.
const TABLE_TYPE: &str = "TABLE";

/// A command that reads the catalogue.
pub(super) trait CatalogCommand: ProstMessageExt + Send + 'static {
    /// The rows of the response.
    fn rows(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError>;
}

impl CatalogCommand for CommandGetCatalogs {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut catalogs = self.into_builder();
        catalogs.append(CATALOG);
        catalogs.build()
    }
}

impl CatalogCommand for CommandGetDbSchemas {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut schemas = self.into_builder();
        schemas.append(CATALOG, SCHEMA);
        schemas.build()
    }
}

impl CatalogCommand for CommandGetTables {
    fn rows(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut tables = self.into_builder();
        for (name, table) in snapshot.iter() {
            tables.append(CATALOG, SCHEMA, name, TABLE_TYPE, &wire_schema(&table.schema()))?;
        }
        tables.build()
    }
}

impl CatalogCommand for CommandGetTableTypes {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut types = self.into_builder();
        types.append(TABLE_TYPE);
        types.build()
    }
}

impl CatalogCommand for CommandGetSqlInfo {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        self.into_builder(&server_info()?).build()
    }
}

fn server_info() -> Result<SqlInfoData, FlightError> {
    let mut info = SqlInfoDataBuilder::new();
    info.append(SqlInfo::FlightSqlServerName, "polylance");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, false);
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    info.build()
}
