//! Field ids of data files, and those of the table that they are committed to.

use std::collections::HashMap;

use lance::Dataset;
use lance_core::datatypes::{Field as LanceField, Schema as LanceSchema};
use lance_table::format::Fragment;
use serde::{Deserialize, Serialize};

use crate::error::{ColumnDifference, SinkError};

/// A field of a data file: its id there, its path in the schema, and Lance's name of its type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenField {
    pub(crate) id: i32,
    pub(crate) path: String,
    pub(crate) kind: String,
}

/// The fields of a schema, nested ones included.
pub(crate) fn written_fields(schema: &LanceSchema) -> Vec<WrittenField> {
    let mut all = Vec::new();
    let mut open: Vec<(String, &LanceField)> = schema.fields.iter().map(|field| (field.name.clone(), field)).collect();
    while let Some((path, field)) = open.pop() {
        open.extend(field.children.iter().map(|child| (format!("{path}\u{0}{}", child.name), child)));
        all.push(WrittenField { id: field.id, path, kind: field.logical_type.to_string() });
    }
    all
}

/// Gives the files of `fragments` the field ids of `dataset`. `written` lists the ids that they were written with:
/// those of a table that did not exist yet, or of which a column was dropped and added again since. Lance reads a file
/// by its field ids, not by its names: under the ids of another schema, its columns would be read as other columns.
///
/// # Errors
/// [`SinkError::SchemaMismatch`] when the table has no such column, or one of another type.
pub(crate) fn remap_field_ids(
    uri: &str,
    dataset: &Dataset,
    fragments: &mut [Fragment],
    written: &[WrittenField],
) -> Result<(), SinkError> {
    let table = written_fields(dataset.schema());
    let table: HashMap<&str, &WrittenField> = table.iter().map(|field| (field.path.as_str(), field)).collect();
    let written: HashMap<i32, &WrittenField> = written.iter().map(|field| (field.id, field)).collect();
    for file in fragments.iter_mut().flat_map(|fragment| &mut fragment.files) {
        let ids = file.fields.iter().map(|id| {
            let field = written.get(id).ok_or_else(|| SinkError::rows(uri, format!("a data file with field {id}")))?;
            match table.get(field.path.as_str()) {
                Some(found) if found.kind == field.kind => Ok(found.id),
                found => Err(SinkError::SchemaMismatch {
                    uri: uri.to_owned(),
                    columns: vec![ColumnDifference {
                        column: field.path.replace('\u{0}', "."),
                        table: found.map(|found| found.kind.clone()),
                        run: Some(field.kind.clone()),
                    }],
                }),
            }
        });
        let ids = ids.collect::<Result<Vec<i32>, SinkError>>()?;
        if ids != *file.fields {
            file.fields = ids.into();
        }
    }
    Ok(())
}
