//! One stored tensor, and its conversion to f32.

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A number format of a weight file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stored {
    F32,
    F16,
    Bf16,
    /// Blocks of 32: an f16 scale, 32 signed bytes.
    Q8_0,
    /// Blocks of 32: an f16 scale, 16 bytes of two 4-bit numbers, offset 8; low halves come first.
    Q4_0,
    /// Known by name only: its tensors can be listed, not read.
    Other(String),
}

impl Stored {
    /// The numbers and the bytes of a block.
    pub(crate) fn block(&self) -> Option<(usize, usize)> {
        match self {
            Self::F32 => Some((1, 4)),
            Self::F16 | Self::Bf16 => Some((1, 2)),
            Self::Q8_0 => Some((32, 34)),
            Self::Q4_0 => Some((32, 18)),
            Self::Other(_) => None,
        }
    }

    /// Bytes of `elements` numbers; `None` if they are not whole blocks or the format cannot be read.
    pub(crate) fn bytes(&self, elements: usize) -> Option<usize> {
        let (numbers, bytes) = self.block()?;
        elements.is_multiple_of(numbers).then(|| elements / numbers)?.checked_mul(bytes)
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Other(name) => name,
        }
    }
}

/// A stored tensor: format, shape, and exactly its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TensorView<'a> {
    pub(crate) stored: &'a Stored,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
}

/// Numbers that one parallel task converts.
const TASK_NUMBERS: usize = 1 << 16;

impl TensorView<'_> {
    /// The tensor on `device` in `dtype`, converted from f32 unless it is stored in `dtype` already.
    pub(crate) fn to_tensor(self, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        let same = matches!((self.stored, dtype), (Stored::F16, DType::F16) | (Stored::Bf16, DType::BF16));
        if same {
            return Tensor::from_raw_buffer(self.bytes, dtype, self.shape, device);
        }
        Tensor::from_vec(self.to_f32(), self.shape, device)?.to_dtype(dtype)
    }

    /// All numbers, in order.
    pub(crate) fn to_f32(self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.shape.iter().product()];
        if numbers.len() <= TASK_NUMBERS {
            // Without the threads of a pool, which may be the one that waits for these numbers.
            widen(self.stored, self.bytes, &mut numbers);
        } else if let Some((in_block, bytes)) = self.stored.block() {
            numbers
                .par_chunks_mut(TASK_NUMBERS)
                .zip(self.bytes.par_chunks(TASK_NUMBERS / in_block * bytes))
                .for_each(|(out, bytes)| widen(self.stored, bytes, out));
        }
        numbers
    }

    /// `count` rows of a matrix from `first` on, which must exist.
    pub(crate) fn row_range(self, first: usize, count: usize) -> Vec<f32> {
        let width = self.shape.iter().skip(1).product::<usize>();
        let row_bytes = self.stored.bytes(width).unwrap_or(0);
        let bytes = &self.bytes[first * row_bytes..(first + count) * row_bytes];
        TensorView { stored: self.stored, shape: &[count, width], bytes }.to_f32()
    }

    /// Writes one row of a matrix, which must exist, to `out` of the same length.
    pub(crate) fn row(self, row: usize, out: &mut [f32]) {
        let row_bytes = self.stored.bytes(out.len()).unwrap_or(0);
        widen(self.stored, &self.bytes[row * row_bytes..(row + 1) * row_bytes], out);
    }

    /// Rows of a matrix, one after another; `ids` must be below the number of rows.
    pub(crate) fn rows(self, ids: &[u32]) -> Vec<f32> {
        let width = self.shape.iter().skip(1).product::<usize>();
        let mut rows = vec![0.0; ids.len() * width];
        let row_bytes = self.stored.bytes(width).unwrap_or(0);
        rows.par_chunks_mut(width.max(1)).with_min_len(16).zip(ids).for_each(|(row, &id)| {
            let start = id as usize * row_bytes;
            widen(self.stored, &self.bytes[start..start + row_bytes], row);
        });
        rows
    }
}

/// Converts whole blocks to f32.
fn widen(stored: &Stored, bytes: &[u8], out: &mut [f32]) {
    match stored {
        Stored::F32 => {
            for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        Stored::Bf16 => {
            for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *number = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        Stored::F16 => {
            for (number, bytes) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *number = f16::from_le_bytes(*bytes).to_f32();
            }
        }
        Stored::Q8_0 => {
            for (numbers, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<34>().0) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                for (number, byte) in numbers.iter_mut().zip(&block[2..]) {
                    *number = f32::from(byte.cast_signed()) * scale;
                }
            }
        }
        Stored::Q4_0 => {
            for (numbers, block) in out.as_chunks_mut::<32>().0.iter_mut().zip(bytes.as_chunks::<18>().0) {
                let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                let (low, high) = numbers.split_at_mut(16);
                for ((low, high), byte) in low.iter_mut().zip(high).zip(&block[2..]) {
                    *low = (f32::from(byte & 15) - 8.0) * scale;
                    *high = (f32::from(byte >> 4) - 8.0) * scale;
                }
            }
        }
        Stored::Other(_) => {}
    }
}

/// Rounds to bfloat16 bytes, for writers.
pub(crate) fn narrow_bf16(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bf16::from_f32(*number).to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::{GgmlDType, QTensor};

    use super::*;

    fn numbers() -> Vec<f32> {
        (0..256).map(|i| ((i * 37 % 101) as f32 - 50.0) / 13.0).collect()
    }

    fn view<'a>(stored: &'a Stored, bytes: &'a [u8]) -> Vec<f32> {
        TensorView { stored, shape: &[4, 64], bytes }.to_f32()
    }

    #[test]
    fn floats_are_widened_exactly() {
        let f32s: Vec<u8> = numbers().iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(view(&Stored::F32, &f32s), numbers());
        let half: Vec<u8> = numbers().iter().flat_map(|n| f16::from_f32(*n).to_le_bytes()).collect();
        assert_eq!(view(&Stored::F16, &half), numbers().iter().map(|n| f16::from_f32(*n).to_f32()).collect::<Vec<_>>());
        let brain = narrow_bf16(&numbers());
        assert_eq!(
            view(&Stored::Bf16, &brain),
            numbers().iter().map(|n| bf16::from_f32(*n).to_f32()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn quantized_blocks_match_candle() {
        let source = Tensor::from_vec(numbers(), (4, 64), &Device::Cpu).unwrap();
        for (stored, ggml) in [(Stored::Q8_0, GgmlDType::Q8_0), (Stored::Q4_0, GgmlDType::Q4_0)] {
            let quantized = QTensor::quantize(&source, ggml).unwrap();
            let expected = quantized.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(view(&stored, &quantized.data().unwrap()), expected);
        }
    }

    #[test]
    fn rows_match_the_whole_tensor() {
        let quantized =
            QTensor::quantize(&Tensor::from_vec(numbers(), (4, 64), &Device::Cpu).unwrap(), GgmlDType::Q4_0).unwrap();
        let bytes = quantized.data().unwrap();
        let view = TensorView { stored: &Stored::Q4_0, shape: &[4, 64], bytes: &bytes };
        let all = view.to_f32();
        assert_eq!(view.rows(&[3, 0]), [&all[192..], &all[..64]].concat());
        assert_eq!(view.row_range(1, 2), all[64..192]);
        let mut row = [0.0; 64];
        view.row(2, &mut row);
        assert_eq!(row, all[128..192]);
    }
}
