//! Models by name: those that the user names, and those that tables name.

mod bucket;
mod registry;
mod trusted;
mod user_folder;

use polylance_dataflow::ObjectAddress;
use polylance_encoder::ModelFiles;
use polylance_worker::{DevicePool, PoolOptions, Selection};

use crate::EngineError;

pub use bucket::BucketModelError;
pub(crate) use bucket::CopyCheck;
pub use registry::{NamedHead, TableModels, open_for_table, open_heads, open_reranker};
pub(crate) use trusted::find_checked;
pub use trusted::{TableModelPolicy, find, trust};

/// A model's name as messages and tables may show it: an address in object storage without a password.
fn public_name(model: &str) -> String {
    let public = ObjectAddress::parse(model).and_then(|address| address.public().ok());
    public.unwrap_or_else(|| model.to_owned())
}

/// Finds a model wherever it is, without trusting it.
async fn locate(model: &str, check: CopyCheck) -> Result<ModelFiles, EngineError> {
    if let Some(address) = ObjectAddress::parse(model) {
        return Ok(Box::pin(bucket::find(address, check)).await?);
    }
    let model = model.to_owned();
    Ok(tokio::task::spawn_blocking(move || ModelFiles::find(&model)).await??)
}

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
