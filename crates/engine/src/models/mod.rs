//! Models by name: those that the user names, and those that tables name.

mod registry;
mod trusted;

use polylance_encoder::ModelFiles;
use polylance_worker::{DevicePool, PoolOptions, Selection};

use crate::EngineError;

pub use registry::{NamedHead, TableModels, open_for_table, open_heads, open_reranker};
pub use trusted::{TableModelPolicy, find, trust};

/// Loads a model onto the selected devices, on a blocking thread.
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
