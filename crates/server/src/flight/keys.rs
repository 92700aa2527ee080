//! Keys of tables, which tools request for every table that they open.
//!
//! There are no foreign keys. The primary key of a table that a run wrote is `doc_id` and `chunk`; other tables have no
//! key.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int32Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_flight::{
    error::FlightError,
    sql::{CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys},
};
use polylance_schema::columns::{CHUNK, DOC_ID};

use super::catalog::{CATALOG, CatalogCommand, SCHEMA};
use crate::tables::Snapshot;

impl CatalogCommand for CommandGetPrimaryKeys {
    fn rows(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError> {
        let matches = |filter: &Option<String>, name: &str| {
            filter.as_deref().is_none_or(|filter| filter.is_empty() || filter == name)
        };
        let table = snapshot.iter().find(|(name, table)| {
            let schema = table.schema();
            *name == self.table
                && table.contract().is_some()
                && [DOC_ID, CHUNK].iter().all(|column| schema.column_with_name(column).is_some())
        });
        let columns: &[&str] = match table {
            Some(_) if matches(&self.catalog, CATALOG) && matches(&self.db_schema, SCHEMA) => &[DOC_ID, CHUNK],
            _ => &[],
        };
        let texts = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; columns.len()])) };
        let sequence = Int32Array::from_iter_values(1..=columns.len() as i32);
        let no_name = StringArray::new_null(columns.len());
        let columns: Vec<ArrayRef> = vec![
            texts(CATALOG),
            texts(SCHEMA),
            texts(&self.table),
            Arc::new(StringArray::from(columns.to_vec())),
            Arc::new(no_name),
            Arc::new(sequence),
        ];
        Ok(RecordBatch::try_new(primary_key_schema(), columns)?)
    }
}

impl CatalogCommand for CommandGetExportedKeys {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign_key_schema()))
    }
}

impl CatalogCommand for CommandGetImportedKeys {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign_key_schema()))
    }
}

impl CatalogCommand for CommandGetCrossReference {
    fn rows(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign_key_schema()))
    }
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

/// The protocol's columns of primary keys.
fn primary_key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The protocol's columns of foreign keys.
fn foreign_key_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pk_catalog_name", true),
        text("pk_db_schema_name", true),
        text("pk_table_name", false),
        text("pk_column_name", false),
        text("fk_catalog_name", true),
        text("fk_db_schema_name", true),
        text("fk_table_name", false),
        text("fk_column_name", false),
        Field::new("key_sequence", DataType::Int32, false),
        text("fk_key_name", true),
        text("pk_key_name", true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
}
