//! The parameters of vector searches that a table stores.

use polylance_schema::search::{EF, NPROBES, REFINE};

use crate::{error::SinkError, table::open};

/// Stores in the table at `uri` how searches use its vector index; `None` stands for their defaults. Returns the
/// table's version.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::Storage`].
pub async fn set_search_params(
    uri: &str,
    nprobes: Option<usize>,
    refine: Option<u32>,
    ef: Option<usize>,
) -> Result<u64, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let text = |number: Option<usize>| number.map(|number| number.to_string());
    let values = [(NPROBES, text(nprobes)), (REFINE, text(refine.map(|refine| refine as usize))), (EF, text(ef))];
    let values = values.into_iter().map(|(key, value)| (key.to_owned(), value));
    let written = dataset.update_config(values).await;
    written.map_err(SinkError::storage(uri, "writing the search parameters"))?;
    Ok(dataset.version_id())
}
