//! Whether a table's contract and columns are those of a run.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema};
use lance::Dataset;
use polylance_schema::{Contract, HeadContract, columns::RUN_ID, search::MAP_METADATA_KEY};

use super::target::TableTarget;
use crate::error::{ColumnDifference, ContractMismatch, SinkError};

pub(super) fn contract(uri: &str, dataset: &Dataset) -> Result<Option<Contract>, SinkError> {
    Contract::from_metadata(&dataset.schema().metadata)
        .map_err(|source| SinkError::UnreadableContract { uri: uri.to_owned(), source })
}

/// Checks that a column is still the one that the head fills.
pub(crate) fn check_head(uri: &str, dataset: &Dataset, column: &Field) -> Result<(), SinkError> {
    let unreadable = |source| SinkError::UnreadableHead { uri: uri.to_owned(), source };
    let found = dataset.schema().field(column.name()).map(Field::from);
    let found = found.map(|field| HeadContract::of(&field).map_err(unreadable)).transpose()?.flatten();
    let wanted = HeadContract::of(column).map_err(unreadable)?;
    match (found, wanted) {
        (Some(found), Some(wanted)) if found.same(&wanted) => Ok(()),
        _ => Err(SinkError::ColumnChanged { uri: uri.to_owned(), column: column.name().clone() }),
    }
}

/// See [`crate::Table::check`]; the commit operator repeats the check before every commit.
pub(crate) fn check_target(dataset: &Dataset, target: &TableTarget) -> Result<(), SinkError> {
    let uri = target.uri.clone();
    let Some(table) = contract(&uri, dataset)? else {
        return Err(SinkError::NoContract { uri });
    };
    let differences = table.differences(&target.contract);
    if !differences.is_empty() {
        let (table, run) = (table.summary(), target.contract.summary());
        return Err(SinkError::ContractMismatch(Box::new(ContractMismatch { uri, table, run, differences })));
    }
    target.mark.check(&uri, dataset)?;
    let run = without_annotations(&target.schema());
    let columns = column_differences(&without_foreign(dataset, &run), &run);
    if columns.is_empty() { Ok(()) } else { Err(SinkError::SchemaMismatch { uri, columns }) }
}

/// The table's columns without those that other programs have added: they come after the columns that the table was
/// created with, and are nullable, because they are null in the rows that a run writes.
pub(super) fn without_foreign(dataset: &Dataset, run: &Schema) -> Schema {
    let made_with = dataset.schema().field(RUN_ID).map_or(i32::MAX, |last| last.id);
    let table = without_annotations(&Schema::from(dataset.schema()));
    let added = |name: &str| dataset.schema().field(name).is_some_and(|field| field.nullable && field.id > made_with);
    let keep = |field: &&FieldRef| run.field_with_name(field.name()).is_ok() || !added(field.name());
    Schema::new(table.fields().iter().filter(keep).map(Arc::clone).collect::<Vec<_>>())
}

/// The columns that a run writes: columns of heads and maps are filled later, and may be absent.
fn without_annotations(schema: &Schema) -> Schema {
    let later = [HeadContract::METADATA_KEY, MAP_METADATA_KEY];
    let annotation = |field: &FieldRef| later.iter().any(|key| field.metadata().contains_key(*key));
    Schema::new(schema.fields().iter().filter(|field| !annotation(field)).map(Arc::clone).collect::<Vec<_>>())
}

/// Columns that only one side has, or whose types differ; the order does not matter to Lance.
pub(crate) fn column_differences(table: &Schema, run: &Schema) -> Vec<ColumnDifference> {
    let kind = |schema: &Schema, name: &str| schema.field_with_name(name).ok().map(|f| f.data_type().clone());
    let only_in_run = run.fields().iter().filter(|f| table.field_with_name(f.name()).is_err());
    table
        .fields()
        .iter()
        .chain(only_in_run)
        .filter_map(|field| {
            let (table, run) = (kind(table, field.name()), kind(run, field.name()));
            let same = matches!((&table, &run), (Some(a), Some(b)) if a.equals_datatype(b));
            (!same).then(|| ColumnDifference {
                column: field.name().clone(),
                table: table.map(|t| t.to_string()),
                run: run.map(|t| t.to_string()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use polylance_schema::{TextColumn, table_schema};

    use super::*;

    #[test]
    fn columns_differ_by_presence_and_type() {
        let keep = |kind| vec![Arc::new(Field::new("lang", kind, true))];
        let table = table_schema(&keep(DataType::Utf8), 4, TextColumn::Kept);
        let run = table_schema(&keep(DataType::Int32), 4, TextColumn::LeftOut);
        let differences = column_differences(&table, &run);
        assert_eq!(differences.iter().map(|d| d.column.as_str()).collect::<Vec<_>>(), ["lang", "text"]);
        assert!(column_differences(&table, &table).is_empty());
    }
}
