//! The arguments by which commands choose models and devices.

use polylance_encoder::ModelFiles;
use polylance_engine::{
    models::{self, TableModelPolicy},
    resolve::select_devices,
};
use polylance_schema::Dtype;
use polylance_worker::Selection;

use crate::error::Result;

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
        Ok(select_devices(&self.devices, dtype)?)
    }
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
        Ok(models::find(&self.model)?)
    }
}

/// How a command agrees to the model that a table names.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TableModelArgs {
    /// Where the tables' model is now, when it has moved, or when no command has used it on this machine yet
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Fetch and load whatever model the tables name: only for tables whose author you trust
    #[arg(long)]
    trust_table_model: bool,
}

impl From<TableModelArgs> for TableModelPolicy {
    fn from(args: TableModelArgs) -> Self {
        Self { model: args.model, trust: args.trust_table_model }
    }
}
