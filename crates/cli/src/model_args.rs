//! The arguments by which commands choose devices, and load a model by itself.

use polylance_encoder::{Dtype, ModelFiles};
use polylance_schema::Contract;
use polylance_worker::{DevicePool, Machine, PoolOptions, Selection};

use crate::{error::Result, known_models};

/// The devices of a command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DeviceArgs {
    /// Devices of one kind that share the work: auto, cpu, cpu:0-3, cuda:0 [default: auto, all GPUs or else all cores]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
}

impl DeviceArgs {
    /// The devices and the dtype: the given one, else what the devices are fastest at.
    pub(crate) fn select(&self, dtype: Option<Dtype>) -> Result<Selection> {
        select(&self.devices, dtype)
    }

    /// The devices and the dtype for queries of a table.
    pub(crate) fn select_query(&self, contract: &Contract) -> Result<Selection> {
        let selection = polylance_worker::resolve_query(&self.devices, contract.dtype.parse()?, Machine::this())?;
        selection.log();
        Ok(selection)
    }
}

/// The devices of these names on this machine and their dtype, which are logged.
pub(crate) fn select(devices: &[String], dtype: Option<Dtype>) -> Result<Selection> {
    let selection = polylance_worker::resolve(devices, dtype, Machine::this())?;
    selection.log();
    Ok(selection)
}

/// The arithmetic of a command and its devices.
#[derive(Debug, clap::Args)]
pub(crate) struct ComputeArgs {
    /// The arithmetic: f32, bf16, int8 (CPU) or f16 (GPU) [default: bf16 on GPUs and where the CPU is faster at it, else
    /// f32]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    devices: DeviceArgs,
}

impl ComputeArgs {
    pub(crate) fn select(&self) -> Result<Selection> {
        self.devices.select(self.dtype)
    }

    /// With another dtype, for which `auto` may be other devices.
    pub(crate) fn select_with(&self, dtype: Dtype) -> Result<Selection> {
        self.devices.select(Some(dtype))
    }
}

/// A model, its arithmetic and its devices.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// `builtin:multilingual-e5-small`, a folder, a .gguf file or a name on the hub
    #[arg(long, value_name = "MODEL", default_value = "builtin:multilingual-e5-small")]
    model: String,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

impl ModelArgs {
    pub(crate) fn files(&self) -> Result<ModelFiles> {
        known_models::find(&self.model)
    }
}

/// Loads the model onto the selected devices.
pub(crate) async fn open(files: &ModelFiles, selection: &Selection, batch_tokens: Option<usize>) -> Result<DevicePool> {
    let files = files.clone();
    let options = PoolOptions { batch_tokens, ..selection.options() };
    Ok(tokio::task::spawn_blocking(move || DevicePool::open(&files, &options)).await??)
}
