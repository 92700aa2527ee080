//! Models by name: those that the user has named, and those that tables name.

mod known;
mod table;

use polylance_encoder::ModelFiles;
use polylance_worker::{DevicePool, PoolOptions, Selection};

use crate::EngineError;

pub use known::{TableModelPolicy, find, remember};
pub use table::{NamedHead, TableModels, open_for_table, open_heads, open_reranker};

/// Loads a model onto the selected devices, on a thread that may wait.
///
/// # Errors
/// [`EngineError::Pool`].
pub async fn open(
    files: &ModelFiles,
    selection: &Selection,
    batch_tokens: Option<usize>,
) -> Result<DevicePool, EngineError> {
    let files = files.clone();
    let options = PoolOptions { batch_tokens, ..selection.options() };
    Ok(tokio::task::spawn_blocking(move || DevicePool::open(&files, &options)).await??)
}
