//! Descriptions of matrices for the copy engine of compute capability 9.0.

use std::collections::HashMap;

use crate::{
    driver::Driver,
    driver_api::{DevicePointer, Status, TensorMap, constant},
    error::{CudaError, Result},
    number::NumberType,
};

/// A matrix, row by row without gaps, and the box of it that one copy moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Matrix {
    pub(crate) start: DevicePointer,
    pub(crate) number: NumberType,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Columns and rows.
    pub(crate) copied_box: [u32; 2],
}

/// A cache of descriptions. A description depends on its matrix alone, so it stays valid when memory is reused.
#[derive(Default)]
pub(crate) struct TensorMaps(HashMap<Matrix, TensorMap>);

/// More than a large model needs for its weights and for operands of every number of rows: a bound, not a working size.
const MAX_CACHED_MAPS: usize = 1 << 14;

impl TensorMaps {
    pub(crate) fn get(&self, matrix: &Matrix) -> Option<TensorMap> {
        self.0.get(matrix).copied()
    }

    pub(crate) fn insert(&mut self, matrix: Matrix, map: TensorMap) {
        if self.0.len() >= MAX_CACHED_MAPS {
            self.0.clear();
        }
        self.0.insert(matrix, map);
    }
}

impl Matrix {
    /// The description, and the status of the call that made it.
    pub(crate) fn describe(&self, driver: &Driver) -> Result<(TensorMap, Status)> {
        const RANK: u32 = 2;
        let data_type = match self.number {
            NumberType::Bf16 => constant::TENSOR_MAP_BFLOAT16,
            NumberType::F16 => constant::TENSOR_MAP_FLOAT16,
            NumberType::F32 => return Err(CudaError::misuse("tensor map", "f32 has no Hopper kernel")),
        };
        let sizes = [self.columns as u64, self.rows as u64];
        let row_bytes = [self.columns as u64 * self.number.bytes() as u64];
        let steps = [1, 1];
        let mut map = TensorMap([0; 16]);
        // SAFETY: the arrays have as many entries as the rank needs (one fewer for the pitches), and a place for the
        // result is given, aligned as the driver requires.
        let status = unsafe {
            (driver.tensor_map_encode_tiled)(
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
        Ok((map, status))
    }
}
