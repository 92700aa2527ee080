//! A model in the memory of the selected devices, and the threads that compute with it.

mod device_threads;
mod gpu_loader;
mod gpu_model;
mod per_device;
mod streamed_window;

pub(crate) use device_threads::DeviceThreads;
pub use gpu_model::GPU_LANES;
pub(crate) use per_device::{DeviceModel, PerDevice};
pub use streamed_window::streamed_window_tokens;
