//! Makes sure that a table has its annotation columns, under the contracts of the run.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use lance::{Dataset, dataset::NewColumnTransform};
use polylance_schema::{HeadContract, columns::RESERVED};

use crate::{
    commit::retry::{Attempts, is_conflict},
    error::SinkError,
    table::open,
};

/// What was done for one column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// It is there under this contract: only rows without a value are missing.
    Kept,
    /// It is new, and null in every row.
    Added,
    /// It was filled under another contract: those values are gone, and it is null in every row.
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
        state(uri, &dataset, column)?;
    }
    let mut declared = Vec::with_capacity(columns.len());
    for column in columns {
        declared.push(declare(uri, &mut dataset, column).await?);
    }
    Ok(declared)
}

async fn declare(uri: &str, dataset: &mut Dataset, column: &Field) -> Result<Declared, SinkError> {
    let mut attempts = Attempts::default();
    let mut declared = None;
    loop {
        let changed = match state(uri, dataset, column)? {
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
                attempts.conflict(uri, source).await?;
                let latest = Box::pin(dataset.checkout_latest()).await;
                latest.map_err(SinkError::storage(uri, "looking for a newer version"))?;
            }
            Err(source) => return Err(SinkError::storage(uri, "adding a column")(source)),
        }
    }
}

/// What is to be done for a column.
fn state(uri: &str, dataset: &Dataset, column: &Field) -> Result<Declared, SinkError> {
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
