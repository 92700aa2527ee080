//! NVIDIA GPUs without a toolkit: the driver found at run time, device memory, and checked launches of our kernels.
//!
//! [`gpus`] lists the devices and never fails; [`Gpu::open`] opens one. Memory is [`DeviceBuffer`] and
//! [`PinnedBuffer`]. A [`Pass`] queues copies and kernels on the device's stream, in order, and
//! [`Pass::finish`] returns a [`Pending`] to wait for. Only [`Pass::copy_ahead`] uses another stream, so that a copy runs
//! while kernels compute. The kernels' binary is part of the program: a machine needs the
//! driver, and nothing else.
//!
//! The interface is safe. Every kernel's operands are checked against the buffers that hold them before the launch, and
//! host memory that a copy still uses belongs to the [`Pending`] until that has been waited for. What the device itself
//! reads from its memory, such as token ids, must be checked by the caller: a wrong id makes the device fail
//! ([`CudaError::Lost`]), never the host.
//!
//! | module | content |
//! |---|---|
//! | `driver`, `driver_api` | the driver, and its C functions |
//! | [`error`](CudaError) | errors, by what a caller can do |
//! | [`gpu`](Gpu) | devices, their contexts, loss and reset |
//! | [`memory`](DeviceBuffer) | buffers on the device and page-locked buffers on the host |
//! | [`pass`](Pass) | copies and launches of one batch, and waiting for them |
//! | [`copy_ahead`](Pass::copy_ahead) | copies to the device while kernels compute |
//! | [`upload`](Uploader) | weights from ordinary memory |
//! | `kernel`, `launch`, `kernel_launch` | kernels by name, their grids, and their launch |
//! | `number`, `tensor_map` | number formats, and descriptions of matrices for the copy engine |
//! | [`ops`] | one checked launch for every kernel |

#![expect(unsafe_code, reason = "the driver is a C library")]

mod copy_ahead;
mod device_list;
mod driver;
mod driver_api;
mod error;
mod gpu;
mod kernel;
mod kernel_launch;
mod launch;
mod memory;
mod number;
pub mod ops;
mod pass;
mod tensor_map;
mod upload;

pub use copy_ahead::AheadCopy;
pub use device_list::{GpuInfo, gpus, gpus_or_why};
pub use error::{CudaError, Result};
pub use gpu::Gpu;
pub use launch::padded_rows;
pub use memory::{DeviceBuffer, DeviceSlice, PinnedBuffer, Pod};
pub use number::NumberType;
pub use pass::{Done, HostSlot, KernelTime, Pass, Pending};
pub use upload::Uploader;
