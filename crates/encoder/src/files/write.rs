//! Writes a model with another head.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use serde_json::{Map, Value, json};

use super::{ModelFiles, tokenizer_config::tokenizer_config};
use crate::{
    config::ModelKind,
    error::{ModelError, Result},
    weights::{CheckedWeights, Stored, Weights, tensors},
};

/// A tensor of a head to write.
#[derive(Debug, Clone)]
pub struct HeadTensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row major.
    pub values: &'a [f32],
}

impl ModelFiles {
    /// Writes `config.json` (the geometry and `keys`), `model.safetensors` (this model's encoder under transformers'
    /// names, and `head`), `tokenizer.json` and `tokenizer_config.json`. Floats keep their format, quantized tensors
    /// become f32.
    ///
    /// Each file is written under a temporary name first, so that a folder never mixes two models.
    ///
    /// # Errors
    /// When this model's weights cannot be read or the folder cannot be written.
    pub fn write_with_head(&self, folder: &Path, keys: &Value, head: &[HeadTensor<'_>]) -> Result<()> {
        fs::create_dir_all(folder).map_err(ModelError::io(folder))?;
        let mut config = self.config.to_json();
        if let (Some(config), Some(keys)) = (config.as_object_mut(), keys.as_object()) {
            config.extend(keys.clone());
        }
        let weights = folder.join("model.safetensors.part");
        self.write_weights(&weights, head)?;
        let tokenizer = self.tokenizer_json()?;
        let parts = tokenizer_config(&tokenizer, self.config.max_tokens())
            .map_err(|error| ModelError::config(Path::new("tokenizer.json"), error.to_string()))?;
        let small = [
            ("tokenizer.json", tokenizer),
            ("tokenizer_config.json", format!("{parts:#}\n").into_bytes()),
            ("config.json", format!("{config:#}\n").into_bytes()),
        ];
        for (name, bytes) in &small {
            let path = folder.join(format!("{name}.part"));
            fs::write(&path, bytes).map_err(ModelError::io(&path))?;
        }
        for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json"] {
            let path = folder.join(name);
            fs::rename(folder.join(format!("{name}.part")), &path).map_err(ModelError::io(&path))?;
        }
        Ok(())
    }

    fn write_weights(&self, path: &Path, head: &[HeadTensor<'_>]) -> Result<()> {
        let specs = tensors(&self.config);
        let weights = CheckedWeights::new(Weights::open(&self.weights)?, &specs)?.weights;
        let prefix = if self.config.kind == ModelKind::Bert { "bert." } else { "roberta." };
        let stored = specs.iter().filter_map(|spec| Some((&spec.name, weights.view(&spec.name)?)));
        let stored: Vec<_> = stored.collect();
        let (mut header, mut start) = (Map::new(), 0);
        let mut place = |name: String, dtype: &str, shape: &[usize], bytes: usize| {
            header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + bytes]}));
            start += bytes;
        };
        for (name, view) in &stored {
            let elements: usize = view.shape.iter().product();
            let (dtype, width) = match view.stored {
                Stored::F16 => ("F16", 2),
                Stored::Bf16 => ("BF16", 2),
                _ => ("F32", 4),
            };
            place(format!("{prefix}{name}"), dtype, view.shape, elements * width);
        }
        for tensor in head {
            place(tensor.name.to_owned(), "F32", &tensor.shape, tensor.values.len() * 4);
        }
        header.insert("__metadata__".to_owned(), json!({"format": "pt"}));
        let mut header = Value::Object(header).to_string();
        // The data starts at a multiple of eight bytes.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));

        let io = || ModelError::io(path);
        let mut file = BufWriter::new(File::create(path).map_err(io())?);
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io())?;
        file.write_all(header.as_bytes()).map_err(io())?;
        for (name, view) in stored {
            if matches!(view.stored, Stored::F32 | Stored::F16 | Stored::Bf16) {
                file.write_all(view.bytes).map_err(io())?;
            } else {
                file.write_all(&bytes(&view.to_f32())).map_err(io())?;
            }
            weights.release(name);
        }
        for tensor in head {
            file.write_all(&bytes(tensor.values)).map_err(io())?;
        }
        file.flush().map_err(io())
    }
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
