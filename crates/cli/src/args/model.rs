//! The arguments that select models and devices.

use polylance_config::ByteSize;
use polylance_encoder::ModelFiles;
use polylance_engine::{
    devices,
    models::{self, TableModelPolicy},
};
use polylance_schema::Dtype;
use polylance_worker::Selection;

use crate::error::Result;

/// The devices of a command.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct DeviceArgs {
    /// Devices that share the work, all of one kind: auto, cpu, cpu:0-3, cuda:0 [default: auto: all GPUs, else all
    /// cores]
    #[arg(long, value_name = "DEVICE,…", value_delimiter = ',')]
    pub(crate) devices: Vec<String>,
}

impl DeviceArgs {
    /// The devices and the dtype: the given one, else the fastest one of the devices.
    pub(crate) fn select(&self, dtype: Option<Dtype>) -> Result<Selection> {
        Ok(devices::select(&self.devices, dtype)?)
    }
}

/// The memory of a model on the CPU.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct MemoryArgs {
    /// Maximum memory for the model's weights on the CPU, such as 4GiB; the layers of a larger model are streamed from
    /// their files [default: three quarters of the available memory]
    #[arg(long, value_name = "SIZE")]
    pub(crate) model_memory: Option<ByteSize>,
}

impl MemoryArgs {
    /// The limit in bytes.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.model_memory.map(|limit| limit.0)
    }
}

/// The dtype and the devices of a command.
#[derive(Debug, clap::Args)]
pub(crate) struct ComputeArgs {
    /// Arithmetic of the model: f32, bf16, int8 (CPU) or f16 (GPU) [default: bf16 on GPUs and on CPUs that multiply it
    /// faster, else f32]
    #[arg(long, value_name = "DTYPE")]
    dtype: Option<Dtype>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    memory: MemoryArgs,
}

impl ComputeArgs {
    pub(crate) fn select(&self) -> Result<Selection> {
        Ok(self.devices.select(self.dtype)?.with_memory(self.memory.bytes()))
    }

    /// As [`Self::select`] with another dtype, for which `auto` may select other devices.
    pub(crate) fn select_with(&self, dtype: Dtype) -> Result<Selection> {
        Ok(self.devices.select(Some(dtype))?.with_memory(self.memory.bytes()))
    }
}

/// A model, its dtype and its devices.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Model: `builtin:multilingual-e5-small`, a folder or .gguf file (local, s3://, gs:// or az://), or a hub name
    #[arg(long, value_name = "MODEL", default_value = "builtin:multilingual-e5-small")]
    model: String,
    #[command(flatten)]
    pub(crate) compute: ComputeArgs,
}

impl ModelArgs {
    pub(crate) async fn files(&self) -> Result<ModelFiles> {
        Ok(models::find(&self.model).await?)
    }
}

/// Which model of a table's contract may be loaded.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct TableModelArgs {
    /// Override the model path recorded in the tables: if the model has moved, or no command has used it here yet
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Fetch and load any model that the tables name; use it only for tables whose author you trust
    #[arg(long)]
    trust_table_model: bool,
}

impl From<TableModelArgs> for TableModelPolicy {
    fn from(args: TableModelArgs) -> Self {
        Self { model: args.model, trust: args.trust_table_model }
    }
}
