//! Kernels, their names and their parameters.

use std::{fmt, sync::atomic::AtomicU32};

use crate::{
    driver_api::{Function, TensorMap},
    launch::FREE_SHARED_BYTES,
    number::NumberType,
};

/// The name of a kernel: its family, then the number type and a size where it is compiled for several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KernelName {
    pub(crate) family: &'static str,
    pub(crate) number: Option<NumberType>,
    pub(crate) size: Option<u32>,
}

impl KernelName {
    pub(crate) fn new(family: &'static str) -> Self {
        Self { family, number: None, size: None }
    }

    pub(crate) fn of(family: &'static str, number: NumberType) -> Self {
        Self { family, number: Some(number), size: None }
    }

    pub(crate) fn sized(family: &'static str, number: NumberType, size: u32) -> Self {
        Self { family, number: Some(number), size: Some(size) }
    }
}

impl fmt::Display for KernelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family)?;
        if let Some(number) = self.number {
            write!(f, "_{number}")?;
        }
        if let Some(size) = self.size {
            write!(f, "_{size}")?;
        }
        Ok(())
    }
}

/// A kernel that was looked up.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) function: Function,
    /// The dynamic shared memory that the driver lets it use.
    pub(crate) shared_bytes: AtomicU32,
}

/// A parameter as the kernel receives it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parameter {
    /// An address or a number: the kernel takes as many of the low bytes as its type has.
    Word(u64),
    /// A matrix for the copy engine.
    Map(TensorMap),
}

impl From<i32> for Parameter {
    fn from(number: i32) -> Self {
        Self::Word(u64::from(number as u32))
    }
}

impl From<u64> for Parameter {
    fn from(number: u64) -> Self {
        Self::Word(number)
    }
}

impl From<f32> for Parameter {
    fn from(number: f32) -> Self {
        Self::Word(u64::from(number.to_bits()))
    }
}

impl Kernel {
    pub(crate) fn new(name: String, function: Function) -> Self {
        Self { name, function, shared_bytes: AtomicU32::new(FREE_SHARED_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names_have_type_and_size() {
        assert_eq!(KernelName::new("pool").to_string(), "pool");
        assert_eq!(KernelName::of("gemm", NumberType::Bf16).to_string(), "gemm_bf16");
        assert_eq!(KernelName::sized("add_norm", NumberType::F16, 20).to_string(), "add_norm_f16_20");
    }
}
