//! What there is to ask for, as a client's catalogue shows it.

use arrow::array::RecordBatch;
use arrow_flight::{
    error::FlightError,
    sql::{
        CommandGetCatalogs, CommandGetDbSchemas, CommandGetSqlInfo, CommandGetTableTypes, CommandGetTables,
        ProstMessageExt, SqlInfo, SqlSupportedTransaction,
        metadata::{SqlInfoData, SqlInfoDataBuilder},
    },
};

use super::read::plain;
use crate::tables::Snapshot;

/// Where DataFusion keeps tables that are named by one word.
pub(super) const CATALOG: &str = "datafusion";
pub(super) const SCHEMA: &str = "public";
/// The only kind of table.
const TABLE: &str = "TABLE";

/// A question about the catalogue, and its answer.
pub(super) trait Listed: ProstMessageExt + Send + 'static {
    /// One row for each thing.
    fn list(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError>;
}

impl Listed for CommandGetCatalogs {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut catalogs = self.into_builder();
        catalogs.append(CATALOG);
        catalogs.build()
    }
}

impl Listed for CommandGetDbSchemas {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut schemas = self.into_builder();
        schemas.append(CATALOG, SCHEMA);
        schemas.build()
    }
}

impl Listed for CommandGetTables {
    fn list(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut tables = self.into_builder();
        for (name, table) in snapshot.iter() {
            tables.append(CATALOG, SCHEMA, name, TABLE, &plain(&table.schema()))?;
        }
        tables.build()
    }
}

impl Listed for CommandGetTableTypes {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        let mut types = self.into_builder();
        types.append(TABLE);
        types.build()
    }
}

impl Listed for CommandGetSqlInfo {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        self.into_builder(&about()?).build()
    }
}

fn about() -> Result<SqlInfoData, FlightError> {
    let mut about = SqlInfoDataBuilder::new();
    about.append(SqlInfo::FlightSqlServerName, "polylance");
    about.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    about.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    about.append(SqlInfo::FlightSqlServerReadOnly, true);
    about.append(SqlInfo::FlightSqlServerSql, true);
    about.append(SqlInfo::FlightSqlServerSubstrait, false);
    about.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    about.append(SqlInfo::FlightSqlServerCancel, false);
    about.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    about.build()
}
