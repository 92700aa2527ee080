//! Checkpoints whose weights are a pure function of tensor name and index, for tests and for trying sizes.
//!
//! The same function stands in `tests/goldens/make.py`, so that any geometry can be held against transformers
//! without committing weights. A number is `splitmix64(fnv1a(name) + index)`, its upper 24 bits as a uniform number in
//! `[-1, 1)`, times a scale: `sqrt(3 / columns)` for matrices of linear maps, 0.05 for biases, 0.1 for embeddings;
//! a norm's weight is `1 + 0.1 x`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use rayon::prelude::*;
use serde_json::json;

use crate::{
    config::ModelConfig,
    error::{ModelError, Result},
    weights::{TensorSpec, narrow_bf16, tensors},
};

/// Number formats a checkpoint can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// Brain floats.
    Bf16,
}

/// A checkpoint to be written.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    config: ModelConfig,
    format: Format,
    shard_bytes: u64,
}

/// Numbers made at once.
const BLOCK: usize = 1 << 22;

impl Checkpoint {
    /// A checkpoint of this geometry: f32, one file.
    pub fn new(config: ModelConfig) -> Self {
        Self { config, format: Format::F32, shard_bytes: u64::MAX }
    }

    /// In this number format.
    #[must_use]
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// In files of about this size.
    #[must_use]
    pub fn shards(self, shard_bytes: u64) -> Self {
        Self { shard_bytes, ..self }
    }

    /// Writes `config.json` and the weights as safetensors, a tensor at a time. The tokenizer is the caller's.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |path: &Path| ModelError::io(path.to_owned());
        fs::create_dir_all(folder).map_err(io(folder))?;
        let config = folder.join("config.json");
        fs::write(&config, format!("{:#}", self.config.to_json())).map_err(io(&config))?;

        let shards = self.split();
        let mut map = BTreeMap::new();
        for (number, shard) in shards.iter().enumerate() {
            let name = if shards.len() == 1 {
                "model.safetensors".to_owned()
            } else {
                format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len())
            };
            let path = folder.join(&name);
            self.write_shard(shard, &path).map_err(io(&path))?;
            map.extend(shard.iter().map(|spec| (spec.name.clone(), name.clone())));
        }
        if shards.len() > 1 {
            let total: u64 = shards.iter().flatten().map(|spec| self.bytes(spec)).sum();
            let index = json!({"metadata": {"total_size": total}, "weight_map": map});
            let path = folder.join("model.safetensors.index.json");
            fs::write(&path, format!("{index:#}")).map_err(io(&path))?;
        }
        Ok(())
    }

    fn bytes(&self, spec: &TensorSpec) -> u64 {
        let width = match self.format {
            Format::F32 => 4,
            Format::Bf16 => 2,
        };
        spec.shape.iter().map(|size| *size as u64).product::<u64>() * width
    }

    fn split(&self) -> Vec<Vec<TensorSpec>> {
        let mut shards: Vec<Vec<TensorSpec>> = Vec::new();
        let mut filled = u64::MAX;
        for spec in tensors(&self.config) {
            let bytes = self.bytes(&spec);
            match shards.last_mut() {
                Some(shard) if filled.saturating_add(bytes) <= self.shard_bytes => {
                    shard.push(spec);
                    filled += bytes;
                }
                _ => {
                    shards.push(vec![spec]);
                    filled = bytes;
                }
            }
        }
        shards
    }

    fn write_shard(&self, shard: &[TensorSpec], path: &Path) -> std::io::Result<()> {
        let dtype = match self.format {
            Format::F32 => "F32",
            Format::Bf16 => "BF16",
        };
        let mut header = serde_json::Map::new();
        let mut start = 0;
        for spec in shard {
            let end = start + self.bytes(spec);
            header
                .insert(spec.name.clone(), json!({"dtype": dtype, "shape": spec.shape, "data_offsets": [start, end]}));
            start = end;
        }
        let mut header = serde_json::Value::Object(header).to_string();
        // The numbers begin at a multiple of eight bytes.
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for spec in shard {
            let total: usize = spec.shape.iter().product();
            for first in (0..total).step_by(BLOCK) {
                let numbers = numbers(&spec.name, &spec.shape, first, BLOCK.min(total - first));
                match self.format {
                    Format::F32 => {
                        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                        file.write_all(&bytes)?;
                    }
                    Format::Bf16 => file.write_all(&narrow_bf16(&numbers))?,
                }
            }
        }
        file.flush()
    }
}

/// Numbers `first..first + count` of a tensor.
pub fn numbers(name: &str, shape: &[usize], first: usize, count: usize) -> Vec<f32> {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let (offset, scale) = if name.ends_with("LayerNorm.weight") || name.ends_with("layer_norm.weight") {
        (1.0, 0.1)
    } else if name.contains("embeddings.") && shape.len() == 2 {
        (0.0, 0.1)
    } else if let [_, columns] = shape {
        (0.0, (3.0 / *columns as f32).sqrt())
    } else {
        (0.0, 0.05)
    };
    let number = |index: usize| {
        let bits = splitmix64(seed.wrapping_add(index as u64)) >> 40;
        offset + scale * (bits as f32 / (1 << 23) as f32 - 1.0)
    };
    (first..first + count).into_par_iter().with_min_len(1 << 14).map(number).collect()
}

fn splitmix64(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
