//! Weights, packed in the order in which products read them.

use half::bf16;

use super::{PANEL, Precision};
use crate::aligned::AlignedBytes;

/// The groups of a column are padded to a multiple of this: whole tiles.
const K_GROUP_STEP: usize = 16;

/// A matrix of weights, `[n, k]`, packed for products with rows of `k` numbers.
pub struct PackedWeights {
    precision: Precision,
    n: usize,
    k: usize,
    /// Groups of a column, with the zeros after its last number.
    k_groups: usize,
    /// `[n / PANEL, k_groups, PANEL]` groups.
    bytes: AlignedBytes,
    /// For int8: the value of one step of each column.
    scales: Vec<f32>,
    /// For int8: the sum of each column's steps, times its scale.
    column_sums: Vec<f32>,
}

impl PackedWeights {
    /// Packs `n` rows of `k` numbers, which `row` writes one at a time, so that a mapped file is never copied whole.
    ///
    /// # Panics
    ///
    /// `n` or `k` is 0.
    pub fn new(precision: Precision, n: usize, k: usize, mut row: impl FnMut(usize, &mut [f32])) -> Self {
        assert!(n > 0 && k > 0, "weights have rows and columns");
        let k_groups = k_groups(precision, k);
        let mut bytes = AlignedBytes::zeroed(n.div_ceil(PANEL) * k_groups * PANEL * 4);
        let (mut scales, mut column_sums) = (Vec::new(), Vec::new());
        // A panel's columns one after another, with zeros after the last number of each.
        let width = k_groups * precision.numbers_per_group();
        let mut columns = vec![0.0; PANEL * width];
        for (panel, bytes) in bytes.as_mut_slice().chunks_exact_mut(k_groups * PANEL * 4).enumerate() {
            let first = panel * PANEL;
            let count = PANEL.min(n - first);
            columns[count * width..].fill(0.0);
            for (column, numbers) in columns.chunks_exact_mut(width).take(count).enumerate() {
                row(first + column, &mut numbers[..k]);
            }
            match precision {
                Precision::F32 => interleave(bytes, &columns, |[x]: [f32; 1], _| x.to_le_bytes()),
                Precision::Bf16 => interleave(bytes, &columns, |pair: [f32; 2], _| {
                    let [a, b] = pair.map(|x| bf16::from_f32(x).to_le_bytes());
                    [a[0], a[1], b[0], b[1]]
                }),
                Precision::Int8 => {
                    let scale = |numbers: &[f32]| {
                        let largest = numbers.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
                        if largest > 0.0 { largest / 127.0 } else { 1.0 }
                    };
                    let steps: Vec<f32> = columns.chunks_exact(width).map(scale).collect();
                    let mut sums = [0; PANEL];
                    interleave(bytes, &columns, |four: [f32; 4], column| {
                        let four = four.map(|x| (x / steps[column]).round() as i8);
                        sums[column] += four.iter().map(|step| i32::from(*step)).sum::<i32>();
                        four.map(i8::cast_unsigned)
                    });
                    scales.extend(&steps[..count]);
                    column_sums.extend(sums.iter().zip(&steps).take(count).map(|(sum, step)| *sum as f32 * step));
                }
            }
        }
        Self { precision, n, k, k_groups, bytes, scales, column_sums }
    }

    /// The numbers that they are packed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Rows of the matrix: numbers in a row of the product.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Columns of the matrix: numbers in a row of the left side.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory of `n` rows of `k` numbers, before they are packed.
    pub fn bytes_for(precision: Precision, n: usize, k: usize) -> usize {
        let per_column = if precision == Precision::Int8 { 2 * size_of::<f32>() } else { 0 };
        n.div_ceil(PANEL) * k_groups(precision, k) * PANEL * 4 + n * per_column
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + (self.scales.len() + self.column_sums.len()) * 4
    }

    pub(super) fn k_groups(&self) -> usize {
        self.k_groups
    }

    /// The first group of a panel; the rest of the panel, and the panels after it, follow.
    pub(super) fn panel(&self, panel: usize) -> *const u32 {
        self.bytes.as_slice()[panel * self.k_groups * PANEL * 4..].as_ptr().cast()
    }

    pub(super) fn scales(&self) -> &[f32] {
        &self.scales
    }

    pub(super) fn column_sums(&self) -> &[f32] {
        &self.column_sums
    }
}

/// Groups of a column of `k` numbers, with those that pad it.
fn k_groups(precision: Precision, k: usize) -> usize {
    k.div_ceil(precision.numbers_per_group()).next_multiple_of(K_GROUP_STEP)
}

/// Writes a panel group by group, in each of them that of every column. A few groups of each column are taken at a
/// time, so that input and output both stay in the first-level cache.
fn interleave<const N: usize>(bytes: &mut [u8], columns: &[f32], mut group: impl FnMut([f32; N], usize) -> [u8; 4]) {
    let width = columns.len() / PANEL;
    for (step, lines) in bytes.chunks_exact_mut(K_GROUP_STEP * PANEL * 4).enumerate() {
        for (column, numbers) in columns.chunks_exact(width).enumerate() {
            let groups = &numbers[step * K_GROUP_STEP * N..][..K_GROUP_STEP * N];
            for (line, numbers) in lines.as_chunks_mut::<{ PANEL * 4 }>().0.iter_mut().zip(groups.as_chunks::<N>().0) {
                line[column * 4..][..4].copy_from_slice(&group(*numbers, column));
            }
        }
    }
}

impl std::fmt::Debug for PackedWeights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { precision, n, k, .. } = self;
        f.debug_struct("PackedWeights")
            .field("precision", precision)
            .field("n", n)
            .field("k", k)
            .finish_non_exhaustive()
    }
}
