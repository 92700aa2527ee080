//! The weight files of a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{required, sentence_transformers::inside};
use crate::{
    error::{ModelError, Result},
    weights::WeightFiles,
};

/// The weights of a folder, whole or in shards; safetensors before PyTorch.
pub(super) fn weights(folder: &Path) -> Result<WeightFiles> {
    let single = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    if let Some(path) = single("model.safetensors") {
        return Ok(WeightFiles::Safetensors(vec![path]));
    }
    if let Some(index) = single("model.safetensors.index.json") {
        return Ok(WeightFiles::Safetensors(shards(folder, &index)?));
    }
    if let Some(path) = single("pytorch_model.bin") {
        return Ok(WeightFiles::Pytorch(vec![path]));
    }
    if let Some(index) = single("pytorch_model.bin.index.json") {
        return Ok(WeightFiles::Pytorch(shards(folder, &index)?));
    }
    Err(ModelError::MissingFile {
        folder: folder.to_owned(),
        missing: "model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json"
            .to_owned(),
    })
}

/// The files of an index, sorted.
fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let json = fs::read(index).map_err(ModelError::io(index))?;
    let parsed: Index = serde_json::from_slice(&json).map_err(|error| ModelError::config(index, error.to_string()))?;
    let mut names: Vec<&String> = parsed.weight_map.values().collect();
    names.sort();
    names.dedup();
    let shards = names.into_iter().map(|name| match inside(name) {
        Some(_) => required(folder, name),
        None => Err(ModelError::config(index, format!("the shard {name:?} is not in the model's folder"))),
    });
    shards.collect()
}
