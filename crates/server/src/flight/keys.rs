//! Keys of tables, as tools ask for them with every table that they open.
//!
//! No table refers to another. A table that a run writes has one row a document and chunk; of others nothing is known.

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

use super::catalog::{CATALOG, Listed, SCHEMA};
use crate::tables::Snapshot;

impl Listed for CommandGetPrimaryKeys {
    fn list(self, snapshot: &Snapshot) -> Result<RecordBatch, FlightError> {
        let named =
            |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| asked.is_empty() || asked == name);
        let table = snapshot.iter().find(|(name, table)| {
            let schema = table.schema();
            *name == self.table
                && table.contract().is_some()
                && [DOC_ID, CHUNK].iter().all(|column| schema.column_with_name(column).is_some())
        });
        let columns: &[&str] = match table {
            Some(_) if named(&self.catalog, CATALOG) && named(&self.db_schema, SCHEMA) => &[DOC_ID, CHUNK],
            _ => &[],
        };
        let texts = |value: &str| -> ArrayRef { Arc::new(StringArray::from(vec![value; columns.len()])) };
        let places = Int32Array::from_iter_values(1..=columns.len() as i32);
        let no_name = StringArray::new_null(columns.len());
        let columns: Vec<ArrayRef> = vec![
            texts(CATALOG),
            texts(SCHEMA),
            texts(&self.table),
            Arc::new(StringArray::from(columns.to_vec())),
            Arc::new(no_name),
            Arc::new(places),
        ];
        Ok(RecordBatch::try_new(primary(), columns)?)
    }
}

impl Listed for CommandGetExportedKeys {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign()))
    }
}

impl Listed for CommandGetImportedKeys {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign()))
    }
}

impl Listed for CommandGetCrossReference {
    fn list(self, _: &Snapshot) -> Result<RecordBatch, FlightError> {
        Ok(RecordBatch::new_empty(foreign()))
    }
}

fn text(name: &str, nullable: bool) -> Field {
    Field::new(name, DataType::Utf8, nullable)
}

/// The protocol's columns of a primary key.
fn primary() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("catalog_name", true),
        text("db_schema_name", true),
        text("table_name", false),
        text("column_name", false),
        text("key_name", true),
        Field::new("key_sequence", DataType::Int32, false),
    ]))
}

/// The protocol's columns of a foreign key.
fn foreign() -> SchemaRef {
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
