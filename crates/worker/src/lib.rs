//! The worker: tokenizer threads, a token-budget batcher, and for each device a thread (for a GPU two), its supervisor
//! and a bounded queue.
//!
//! [`DevicePool`] fulfils `polylance_backend::Backend` with real models. Texts go in and chunks come out of
//! the tokenizer threads, rows of ids go in and vectors come out of the devices, in the order
//! they came, whichever device was quicker. [`resolve()`] says which devices `auto` and other names are on this machine,
//! and in which dtype they compute.

#[path = "device/batcher.rs"]
mod batcher;
mod bench;
#[path = "tokenize/charsmap.rs"]
mod charsmap;
#[path = "tokenize/chunker/mod.rs"]
mod chunker;
#[path = "device/worker_thread.rs"]
mod computing;
#[path = "device/thread.rs"]
mod device;
#[path = "placement/device_threads.rs"]
mod device_threads;
#[path = "device/devices.rs"]
mod devices;
mod error;
#[path = "placement/gpu_model/mod.rs"]
mod gpu_model;
#[path = "selection/machine.rs"]
mod machine;
#[path = "tokenize/normalizer.rs"]
mod normalizer;
#[path = "device/batch_slice.rs"]
mod part;
#[path = "placement/per_device.rs"]
mod placement;
#[path = "embedding_pool.rs"]
mod pool;
#[path = "device/queues.rs"]
mod queues;
#[path = "device/stalled_inputs.rs"]
mod refused;
#[path = "selection/resolve.rs"]
mod resolve;
#[path = "fused_heads.rs"]
mod shared_pass;
#[path = "selection/spec.rs"]
mod spec;
#[path = "device/supervisor/mod.rs"]
mod supervisor;
mod task_pool;
mod tasks;
mod token_states;
#[path = "tokenize/pool.rs"]
mod tokenizers;

pub use bench::{BenchReport, bench};
pub use device::DeviceWorker;
pub use error::PoolError;
pub use gpu_model::GPU_LANES;
pub use machine::{Machine, NoGpu, VisibleGpu};
pub use pool::{DevicePool, PoolOptions, contract};
pub use queues::Ids;
pub use resolve::{SelectedDevices, Selection, SelectionNote, resolve, resolve_query};
pub use shared_pass::{PassHead, shares_pass};
pub use spec::DeviceSpec;
pub use task_pool::{TaskPool, head_contract};
pub use token_states::{TokenState, TokenStates};
