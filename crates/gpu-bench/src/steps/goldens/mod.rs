//! The engine against the committed outputs of Hugging Face transformers, as the tests of polylance-encoder compare
//! them.

mod heads;
mod states;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use clap::Args;
use polylance_encoder::{Device, Gpu, ModelConfig, ModelFiles, synthetic::Checkpoint};
use safetensors::SafeTensors;
use serde_json::Value;
use tempfile::TempDir;

use super::Context;

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct GoldensArguments {
    /// Where `goldens.json`, `goldens.safetensors`, `heads.json` and `heads.safetensors` are
    folder: PathBuf,
    /// Only cases whose name contains this; may be given several times
    #[arg(long)]
    only: Vec<String>,
}

impl GoldensArguments {
    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Compares every case.
///
/// # Errors
/// When the files are not there or the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &GoldensArguments) -> Result<()> {
    let gpu = context.open()?;
    states::run(context.report, &gpu, arguments)?;
    heads::run(context.report, &gpu, arguments)
}

/// A file of cases and its tensors.
struct Goldens {
    json: Value,
    tensors: Vec<u8>,
}

impl Goldens {
    fn read(folder: &Path, name: &str) -> Result<Self> {
        let read = |ending: &str| {
            let path = folder.join(name).with_extension(ending);
            fs::read(&path).with_context(|| path.display().to_string())
        };
        Ok(Self { json: serde_json::from_slice(&read("json")?)?, tensors: read("safetensors")? })
    }

    fn cases(&self) -> Result<&[Value]> {
        self.json["cases"].as_array().map(Vec::as_slice).context("the goldens have no cases")
    }

    /// The numbers of a tensor in f32.
    fn numbers(&self, name: &str) -> Result<Vec<f32>> {
        let tensors = SafeTensors::deserialize(&self.tensors)?;
        let tensor = tensors.tensor(name)?;
        Ok(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
    }
}

fn name(case: &Value) -> Result<&str> {
    case["name"].as_str().context("a case has no name")
}

fn config(case: &Value) -> Result<ModelConfig> {
    Ok(ModelConfig::from_json(case["config"].to_string().as_bytes(), Path::new("goldens"))?)
}

/// Rows of ids by the formula of the goldens; a sequence of one token is the first of every sequence.
fn rows(config: &ModelConfig, lengths: &Value) -> Result<Vec<Vec<u32>>> {
    let lengths: Vec<usize> = serde_json::from_value(lengths.clone())?;
    let row = |(sequence, &length): (usize, &usize)| {
        if length == 1 { vec![0] } else { crate::workload::ids(config, sequence, length) }
    };
    Ok(lengths.iter().enumerate().map(row).collect())
}

/// Writes a checkpoint for as long as the folder lives.
fn files_of(checkpoint: &Checkpoint) -> Result<(TempDir, ModelFiles)> {
    let folder = tempfile::tempdir()?;
    let files = checkpoint.write_model(folder.path())?;
    Ok((folder, files))
}

fn device(gpu: &Arc<Gpu>) -> Device {
    Device::Cuda(Arc::clone(gpu))
}

/// The arithmetic families of a GPU: on compute capability 9.0 there are two kernels for matrix products.
fn product_families(gpu: &Gpu) -> &'static [bool] {
    if gpu.info().compute == (9, 0) { &[true, false] } else { &[false] }
}
