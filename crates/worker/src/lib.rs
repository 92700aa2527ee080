//! The worker: tokenizer threads, a token-budget batcher, and for each device a thread (for a GPU two), its supervisor
//! and a bounded queue.
//!
//! [`DevicePool`] fulfils `polylance_backend::Backend` with real models. Texts go in and chunks come out of
//! the tokenizer threads, rows of ids go in and vectors come out of the devices, in the order
//! they came, whichever device was quicker. [`resolve()`] says which devices `auto` and other names are on this machine,
//! and in which dtype they compute.

mod batcher;
mod bench;
mod charsmap;
mod chunker;
mod computing;
mod device;
mod device_threads;
mod devices;
mod error;
mod gpu_model;
mod machine;
mod normalizer;
mod part;
mod placement;
mod pool;
mod queues;
mod refused;
mod resolve;
mod shared_pass;
mod spec;
mod supervisor;
mod task_pool;
mod tasks;
mod token_states;
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
