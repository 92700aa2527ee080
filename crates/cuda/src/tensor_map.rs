//! Descriptions of matrices for the copy engine of compute capability 9.0.

use std::collections::HashMap;

use crate::{
    driver::{DevicePointer, TensorMap, constant},
    error::{CudaError, Result},
    gpu::Gpu,
    kernel::NumberType,
    memory::DeviceSlice,
};

/// A matrix, row by row without gaps, and the box of it that one copy moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Matrix {
    start: DevicePointer,
    number: NumberType,
    rows: u64,
    columns: u64,
    /// Columns and rows.
    copied_box: [u32; 2],
}

/// Descriptions made before. One depends on nothing but its matrix, so it stays right when memory is reused.
#[derive(Default)]
pub(crate) struct TensorMaps(HashMap<Matrix, TensorMap>);

/// More than the weights of a large model and their operands at every number of rows: a bound, not a working size.
const MAX_MAPS: usize = 1 << 14;

/// The description of a matrix.
pub(crate) fn encode(
    gpu: &Gpu,
    slice: DeviceSlice<'_>,
    number: NumberType,
    [rows, columns]: [usize; 2],
    copied_box: [u32; 2],
) -> Result<TensorMap> {
    let matrix = Matrix { start: slice.address(), number, rows: rows as u64, columns: columns as u64, copied_box };
    let mut maps = gpu.tensor_maps();
    if let Some(map) = maps.0.get(&matrix) {
        return Ok(*map);
    }
    let map = matrix.encode(gpu)?;
    if maps.0.len() >= MAX_MAPS {
        maps.0.clear();
    }
    maps.0.insert(matrix, map);
    Ok(map)
}

impl Matrix {
    fn encode(&self, gpu: &Gpu) -> Result<TensorMap> {
        const RANK: u32 = 2;
        let data_type = match self.number {
            NumberType::Bf16 => constant::TENSOR_MAP_BFLOAT16,
            NumberType::F16 => constant::TENSOR_MAP_FLOAT16,
            NumberType::F32 => return Err(CudaError::misuse("tensor map", "f32 has no Hopper kernel")),
        };
        let sizes = [self.columns, self.rows];
        let row_bytes = [self.columns * self.number.bytes() as u64];
        let steps = [1, 1];
        let mut map = TensorMap([0; 16]);
        // SAFETY: the arrays have as many entries as the rank needs (one fewer for the pitches), and a place for the
        // result is given, aligned as the driver wants it.
        let status = unsafe {
            (gpu.driver().tensor_map_encode_tiled)(
                &raw mut map,
                data_type,
                RANK,
                self.start,
                sizes.as_ptr(),
                row_bytes.as_ptr(),
                self.copied_box.as_ptr(),
                steps.as_ptr(),
                0,
                constant::TENSOR_MAP_SWIZZLE_128B,
                constant::TENSOR_MAP_PROMOTE_256B,
                0,
            )
        };
        gpu.check("cuTensorMapEncodeTiled", status)?;
        Ok(map)
    }
}
