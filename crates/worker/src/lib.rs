//! Runs models: tokenizer threads, batches within a token budget, and a supervised thread with a bounded queue for each
//! device (two for a GPU).
//!
//! [`DevicePool`] implements `polylance_backend::Backend` with real models, [`TaskPool`] its `Annotator`. Tokenizer
//! threads turn texts into chunks, and devices turn chunks into vectors. Results are in input order whichever device
//! was faster. [`resolve()`] selects the devices and the dtype that `auto` and other names stand for on this machine.

mod bench;
mod contract;
mod device;
mod embedding_pool;
mod error;
mod finite;
mod fused_heads;
mod options;
mod placement;
mod selection;
mod task_pool;
mod tasks;
mod token_states;
mod tokenize;

pub use bench::{BenchReport, bench};
pub use contract::{contract, head_contract};
pub use device::{DeviceWorker, TokenCount};
pub use embedding_pool::DevicePool;
pub use error::PoolError;
pub use fused_heads::{FusedHead, can_fuse};
pub use options::PoolOptions;
pub use placement::{GPU_LANES, streamed_window_tokens};
pub use selection::{
    DeviceSpec, Machine, NoGpu, SelectedDevices, Selection, SelectionNote, VisibleGpu, resolve, resolve_query,
};
pub use task_pool::TaskPool;
pub use token_states::{TokenState, TokenStates};
