//! Declares annotation columns in a table, with the contracts of the run.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use lance::{Dataset, dataset::NewColumnTransform};
use polylance_schema::{HeadContract, columns::RESERVED};

use crate::{
    commit::retry::{CommitRetry, is_conflict},
    error::SinkError,
    table::open,
};

/// The outcome of declaring one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// The table has the column with this contract: only rows without a value are missing.
    Kept,
    /// The column is new, and null in every row.
    Added,
    /// The column had another contract: its values were dropped, and it is null in every row.
    Replaced,
}

/// Declares `columns`, which carry their [`HeadContract`], in the table at `uri`. No data file is written.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::NotAnAnnotation`] when a column of that name holds something else,
/// [`SinkError::Conflict`] or [`SinkError::Storage`].
pub async fn declare_columns(uri: &str, columns: &[Field]) -> Result<Vec<Declared>, SinkError> {
    let mut dataset = open::existing(uri).await?;
    for column in columns {
        required_change(uri, &dataset, column)?;
    }
    let mut declared = Vec::with_capacity(columns.len());
    for column in columns {
        declared.push(declare(uri, &mut dataset, column).await?);
    }
    Ok(declared)
}

async fn declare(uri: &str, dataset: &mut Dataset, column: &Field) -> Result<Declared, SinkError> {
    let mut retry = CommitRetry::default();
    let mut declared = None;
    loop {
        let changed = match required_change(uri, dataset, column)? {
            Declared::Kept => return Ok(declared.unwrap_or(Declared::Kept)),
            Declared::Replaced => {
                declared = Some(Declared::Replaced);
                Box::pin(dataset.drop_columns(&[column.name().as_str()])).await
            }
            Declared::Added => {
                declared = declared.or(Some(Declared::Added));
                let schema = Arc::new(Schema::new(vec![column.clone()]));
                Box::pin(dataset.add_columns(NewColumnTransform::AllNulls(schema), None, None)).await
            }
        };
        match changed {
            Ok(()) => {}
            Err(source) if is_conflict(&source) => {
                retry.refresh_after_conflict(uri, dataset, source).await?;
            }
            Err(source) => return Err(SinkError::storage(uri, "adding a column")(source)),
        }
    }
}

/// The change that declares a column.
fn required_change(uri: &str, dataset: &Dataset, column: &Field) -> Result<Declared, SinkError> {
    let not_ours = || SinkError::NotAnAnnotation { uri: uri.to_owned(), column: column.name().clone() };
    let unreadable = |source| SinkError::UnreadableHead { uri: uri.to_owned(), source };
    if RESERVED.contains(&column.name().as_str()) {
        return Err(not_ours());
    }
    let Some(found) = dataset.schema().field(column.name()) else { return Ok(Declared::Added) };
    let found = HeadContract::of(&Field::from(found)).map_err(unreadable)?.ok_or_else(not_ours)?;
    let wanted = HeadContract::of(column).map_err(unreadable)?.ok_or_else(not_ours)?;
    Ok(if found.same(&wanted) { Declared::Kept } else { Declared::Replaced })
}
