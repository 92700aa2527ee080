//! The arguments of commands that load a model by itself.

use polylance_encoder::{Dtype, ModelFiles};
use polylance_worker::{DevicePool, PoolOptions};

use crate::error::Result;

/// A model, its arithmetic and its devices.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// `builtin:multilingual-e5-small`, a folder, a .gguf file or a name on the hub
    #[arg(long, value_name = "MODEL", default_value = "builtin:multilingual-e5-small")]
    model: String,
    /// The arithmetic: f32, bf16, int8 (CPU) or f16 (CUDA) [default: bf16 where the CPU is faster at it, else f32]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    /// Devices that share the work: auto, cpu, cpu:0-3, cuda:0 [default: auto]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    devices: Vec<String>,
}

impl ModelArgs {
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype.unwrap_or_else(Dtype::of_this_cpu)
    }

    pub(crate) fn files(&self) -> Result<ModelFiles> {
        Ok(ModelFiles::find(&self.model)?)
    }

    /// Loads the model onto its devices, to compute in `dtype`.
    pub(crate) async fn open(
        &self,
        files: &ModelFiles,
        dtype: Dtype,
        batch_tokens: Option<usize>,
    ) -> Result<DevicePool> {
        let (files, devices) = (files.clone(), self.devices.clone());
        let options = PoolOptions { devices, dtype: Some(dtype), batch_tokens, ..PoolOptions::default() };
        Ok(tokio::task::spawn_blocking(move || DevicePool::open(&files, &options)).await??)
    }
}
