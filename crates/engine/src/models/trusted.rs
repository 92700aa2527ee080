//! Trusted models: those that the user has named. Only these may be loaded by a table.
//!
//! A table may come from anywhere, and its metadata names a model: a hub repository, a bucket or a folder. Loading that
//! model fetches and reads files that the table's author chose. So a table's model is loaded only if the user has named it,
//! in this command or in an earlier one. Each trusted model is recorded in a file of its own.

use std::{
    fs, io,
    path::{self, Path, PathBuf},
};

use polylance_encoder::ModelFiles;
use polylance_schema::Contract;

use super::{bucket::CopyCheck, locate, public_name, user_folder::state_folder};
use crate::{EngineError, UsageError};

/// Prefix of the models in the binary.
const BUILTIN_PREFIX: &str = "builtin:";

/// Which models of tables may be loaded.
#[derive(Debug, Clone, Default)]
pub struct TableModelPolicy {
    /// Overrides the model path recorded in the tables.
    pub model: Option<String>,
    /// Fetch and load any model that a table names; only for tables whose author is trusted.
    pub trust: bool,
}

impl TableModelPolicy {
    /// The model to load for a table of this contract.
    ///
    /// # Errors
    /// [`UsageError`] if the table names a model that the user has not named.
    pub fn model_of(&self, contract: &Contract) -> Result<String, UsageError> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let model = &contract.model;
        let trusted = || folder().is_some_and(|folder| is_trusted(&folder, model));
        if model.starts_with(BUILTIN_PREFIX) || self.trust || trusted() {
            return Ok(model.clone());
        }
        let message = format!("the table names the model {model:?}, which no command has used on this machine");
        let hint = "name the model with --model, or load what the table names with --trust-table-model";
        Err(UsageError::new(message).with_hint(hint))
    }
}

/// Finds a model that the user has named, and trusts it from now on.
///
/// # Errors
/// [`EngineError::Model`], and [`EngineError::Bucket`] for an address in object storage.
pub async fn find(model: &str) -> Result<ModelFiles, EngineError> {
    find_checked(model, CopyCheck::Files).await
}

/// As [`find`]; a cached copy is compared with what was fetched.
pub(crate) async fn find_checked(model: &str, check: CopyCheck) -> Result<ModelFiles, EngineError> {
    let files = locate(model, check).await?;
    trust(files.name());
    Ok(files)
}

/// Trusts a model: from now on tables may load it.
pub fn trust(model: &str) {
    let model = &public_name(model);
    if model.starts_with(BUILTIN_PREFIX) {
        return;
    }
    // If this fails, the user has to name the model again.
    let _written = folder().map(|folder| write(&folder, model));
}

/// The folder of trusted models, in the user's state folder.
fn folder() -> Option<PathBuf> {
    Some(state_folder()?.join("models"))
}

fn write(folder: &Path, model: &str) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let entry = if Path::new(model).exists() { path_entry(model) } else { hub_entry(model) };
    fs::write(folder.join(file_name(&entry)), format!("{entry}\n"))
}

/// Whether a model of this name is trusted. The model itself is not accessed.
fn is_trusted(folder: &Path, model: &str) -> bool {
    [path_entry(model), hub_entry(model)].iter().any(|entry| folder.join(file_name(entry)).is_file())
}

fn hub_entry(model: &str) -> String {
    format!("hub {model}")
}

/// The entry has the absolute path: a relative one means different folders in different places.
fn path_entry(model: &str) -> String {
    let path = path::absolute(model).unwrap_or_else(|_| PathBuf::from(model));
    format!("path {}", path.display())
}

fn file_name(entry: &str) -> String {
    blake3::hash(entry.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_is_trusted_after_it_was_named() {
        let folder = tempfile::tempdir().unwrap();
        let trusted = |model: &str| is_trusted(&folder.path().join("models"), model);
        let local = folder.path().join("own").display().to_string();
        fs::create_dir(&local).unwrap();
        for model in ["org/model", local.as_str()] {
            assert!(!trusted(model), "{model}");
            write(&folder.path().join("models"), model).unwrap();
            assert!(trusted(model), "{model}");
        }
        assert!(trusted(&format!("{local}/.")));
        for other in ["org/model2", "../org/model", "/org/model", "hub org/model", "own"] {
            assert!(!trusted(other), "{other}");
        }
    }
}
