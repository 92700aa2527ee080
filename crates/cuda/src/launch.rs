//! Grids, blocks and shared memory of the kernels: the constants that this crate and the kernels' source must agree on.
//!
//! Everything here depends on sizes and the architecture only, never on time or on the number of rows where that could
//! change a row's bits.

use crate::number::NumberType;

/// A launch: blocks, threads in a block, bytes of dynamic shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Launch {
    pub(crate) grid: [u32; 3],
    pub(crate) block: u32,
    pub(crate) shared_bytes: u32,
}

/// Dynamic shared memory that every kernel may use without a request to the driver.
pub(crate) const FREE_SHARED_BYTES: u32 = 48 << 10;
/// Blocks along the second axis of a grid.
pub(crate) const MAX_GRID_Y: u32 = 65_535;
/// Every operand starts at a multiple of this many bytes.
pub(crate) const ALIGNMENT: u64 = 16;

/// The longest row of states.
pub(crate) const MAX_HIDDEN: usize = 8192;
/// Rows of 16-bit operands, and of states, are multiples of this many numbers.
pub(crate) const COLUMN_STEP: usize = 8;
/// Rows of f32 operands of matrix products are multiples of this many numbers.
pub(crate) const F32_COLUMN_STEP: usize = 4;

/// Matrix products read and write whole tiles: their operands of `rows` rows have room for this many.
pub const fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(256)
}

const WARP: u32 = 32;
/// Threads of a block in which every warp works on a row of its own.
const ROW_BLOCK: u32 = 128;

/// A warp for each row.
pub(crate) fn warp_per_row(rows: u32) -> Launch {
    Launch { grid: [rows.div_ceil(ROW_BLOCK / WARP), 1, 1], block: ROW_BLOCK, shared_bytes: 0 }
}

/// Outputs that a warp of a thin linear map computes at once.
const LINEAR_OUTPUTS: u32 = 8;
/// Blocks over the outputs of a row: enough to fill a device with a single row.
const MAX_LINEAR_BLOCKS: u32 = 256;

/// A warp for each row and group of outputs; with many outputs it loops over groups.
pub(crate) fn linear(rows: u32, outputs: u32) -> Launch {
    let Launch { grid: [blocks, ..], block, shared_bytes } = warp_per_row(rows);
    Launch { grid: [blocks, outputs.div_ceil(LINEAR_OUTPUTS).min(MAX_LINEAR_BLOCKS), 1], block, shared_bytes }
}

/// The sizes that `add_norm` is compiled for: chunks of 4 numbers that each lane of a warp keeps.
const ROW_CHUNKS: [u32; 6] = [4, 8, 12, 20, 32, 64];

/// The smallest compiled size that holds rows of `columns` numbers.
pub(crate) fn row_chunks(columns: usize) -> Option<u32> {
    ROW_CHUNKS.into_iter().find(|&chunks| columns <= 128 * chunks as usize)
}

const ATTENTION_BLOCK: u32 = 128;

/// Head sizes that attention is compiled for in bf16 and f16.
pub(crate) const ATTENTION_HEAD_SIZES: [usize; 5] = [32, 64, 80, 96, 128];
/// The longest head.
pub(crate) const MAX_HEAD_SIZE: usize = 128;

/// A block for each tile and head.
pub(crate) fn attention(number: NumberType, tiles: u32, heads: u32, head_size: u32) -> Launch {
    Launch { grid: [tiles, heads, 1], block: ATTENTION_BLOCK, shared_bytes: attention_shared_bytes(number, head_size) }
}

const ATTENTION_SHARED_BYTES_PER_HEAD_SIZE: u32 = 512;
/// Rows of a tile of queries in f32.
const ATTENTION_F32_ROWS: u32 = 64;
/// Rows of a tile of keys or values in f32.
const ATTENTION_F32_KEYS: u32 = 32;

/// Dynamic shared memory of an attention block.
const fn attention_shared_bytes(number: NumberType, head_size: u32) -> u32 {
    match number {
        NumberType::Bf16 | NumberType::F16 => ATTENTION_SHARED_BYTES_PER_HEAD_SIZE * head_size,
        NumberType::F32 => {
            // A row of a head, padded, and a row of scores.
            let pitch = head_size.next_multiple_of(32) + 4;
            let score_pitch = ATTENTION_F32_KEYS + 4;
            ((ATTENTION_F32_ROWS + 2 * ATTENTION_F32_KEYS) * pitch + ATTENTION_F32_ROWS * score_pitch) * 4
        }
    }
}

const MAX_POOL_BLOCK: u32 = 512;

/// A block for each sequence, a thread for 4 columns.
pub(crate) fn pool(sequences: u32, dim: u32) -> Launch {
    let block = dim.div_ceil(4).next_multiple_of(WARP).min(MAX_POOL_BLOCK);
    Launch { grid: [sequences, 1, 1], block, shared_bytes: 0 }
}

const FILL_BLOCK: u32 = 256;
const MAX_FILL_BLOCKS: u64 = 1 << 16;

/// Threads that stride over the numbers.
pub(crate) fn fill(count: u64) -> Launch {
    let blocks = count.div_ceil(u64::from(FILL_BLOCK)).min(MAX_FILL_BLOCKS) as u32;
    Launch { grid: [blocks, 1, 1], block: FILL_BLOCK, shared_bytes: 0 }
}

const GEMM_TILE: u32 = 128;
const GEMM_BLOCK: u32 = 128;
const GEMM_SHARED_BYTES: u32 = 48 << 10;
const GEMM_F32_TILE: u32 = 64;
const GEMM_F32_BLOCK: u32 = 256;
const GEMM_F32_STEP: u32 = 16;
/// Two buffers of a tile of each operand, whose rows have 4 more columns.
const GEMM_F32_SHARED_BYTES: u32 = 2 * 2 * GEMM_F32_STEP * (GEMM_F32_TILE + 4) * 4;

/// A block for each tile of the output. The rows are along `x` for tensor cores, along `y` in f32.
pub(crate) fn gemm(number: NumberType, m: u32, n: u32) -> Launch {
    match number {
        NumberType::Bf16 | NumberType::F16 => Launch {
            grid: [m.div_ceil(GEMM_TILE), n.div_ceil(GEMM_TILE), 1],
            block: GEMM_BLOCK,
            shared_bytes: GEMM_SHARED_BYTES,
        },
        NumberType::F32 => Launch {
            grid: [n.div_ceil(GEMM_F32_TILE), m.div_ceil(GEMM_F32_TILE), 1],
            block: GEMM_F32_BLOCK,
            shared_bytes: GEMM_F32_SHARED_BYTES,
        },
    }
}

/// Columns and rows of the boxes in which the Hopper kernel copies its operands.
pub(crate) struct Boxes {
    pub(crate) x: [u32; 2],
    pub(crate) w: [u32; 2],
    pub(crate) out: [u32; 2],
}

/// Each of the two blocks of a cluster copies its own rows of `x`, and half of the rows of `w` for both.
pub(crate) const HOPPER_BOXES: Boxes = Boxes { x: [64, 128], w: [64, 128], out: [64, 16] };
const HOPPER_BLOCK: u32 = 384;
const HOPPER_CLUSTER: u32 = 2;
const HOPPER_TILE_ROWS: u32 = 128;
const HOPPER_TILE_COLUMNS: u32 = 256;
const HOPPER_TILE_DEPTH: u32 = 64;
const HOPPER_STAGES: u32 = 4;
const HOPPER_BARRIER_BYTES: u32 = 1024;
/// The stages of both operands, the output on its way to memory, and the barriers.
const HOPPER_SHARED_BYTES: u32 = HOPPER_STAGES * (HOPPER_TILE_ROWS + HOPPER_TILE_COLUMNS) * HOPPER_TILE_DEPTH * 2
    + (32 << 10)
    + HOPPER_BARRIER_BYTES;

/// Pairs of blocks that walk over tiles: as many as run at once, or as there are tiles. The number of blocks changes
/// no bit of the result.
pub(crate) fn hopper_gemm(multiprocessors: u32, m: u32, n: u32) -> Launch {
    let tiles = u64::from(m.div_ceil(HOPPER_CLUSTER * HOPPER_TILE_ROWS)) * u64::from(n.div_ceil(HOPPER_TILE_COLUMNS));
    let pairs = tiles.min(u64::from((multiprocessors / HOPPER_CLUSTER).max(1))) as u32;
    Launch { grid: [pairs * HOPPER_CLUSTER, 1, 1], block: HOPPER_BLOCK, shared_bytes: HOPPER_SHARED_BYTES }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_chunks_is_the_smallest_size_that_fits() {
        let cases = [(8, Some(4)), (512, Some(4)), (520, Some(8)), (2560, Some(20)), (8192, Some(64)), (8200, None)];
        for (columns, chunks) in cases {
            assert_eq!(row_chunks(columns), chunks, "{columns} columns");
        }
    }

    /// The value of a constant of the kernels' source.
    fn in_source(source: &str, name: &str) -> u32 {
        let start = source.find(&format!("int {name} = ")).unwrap_or_else(|| panic!("{name} is not in the source"));
        let line = source[start..].lines().next().unwrap_or_default();
        let value = line.split("= ").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default();
        value.parse().unwrap_or_else(|_| panic!("{name} is no number in the source: {line}"))
    }

    #[test]
    fn constants_match_the_kernel_sources() {
        let mma = include_str!("../kernels/launch.h");
        let f32 = include_str!("../kernels/launch_f32.h");
        let hopper = include_str!("../kernels/launch_sm90.h");
        let cases = [
            (mma, "kGemmTileRows", GEMM_TILE),
            (mma, "kGemmTileColumns", GEMM_TILE),
            (mma, "kGemmThreads", GEMM_BLOCK),
            (mma, "kGemmSharedBytes", GEMM_SHARED_BYTES),
            (mma, "kAttentionThreads", ATTENTION_BLOCK),
            (mma, "kAttentionSharedBytesPerHeadSize", ATTENTION_SHARED_BYTES_PER_HEAD_SIZE),
            (f32, "kGemmF32Threads", GEMM_F32_BLOCK),
            (f32, "kGemmF32Tile", GEMM_F32_TILE),
            (f32, "kGemmF32KStep", GEMM_F32_STEP),
            (f32, "kAttentionF32Threads", ATTENTION_BLOCK),
            (f32, "kAttentionF32Rows", ATTENTION_F32_ROWS),
            (f32, "kAttentionF32Keys", ATTENTION_F32_KEYS),
            (f32, "kAttentionF32MaxHeadSize", MAX_HEAD_SIZE as u32),
            (hopper, "kGemmSm90Threads", HOPPER_BLOCK),
            (hopper, "kGemmSm90Cluster", HOPPER_CLUSTER),
            (hopper, "kGemmSm90TileRows", HOPPER_TILE_ROWS),
            (hopper, "kGemmSm90TileColumns", HOPPER_TILE_COLUMNS),
            (hopper, "kGemmSm90TileDepth", HOPPER_TILE_DEPTH),
            (hopper, "kGemmSm90Stages", HOPPER_STAGES),
            (hopper, "kGemmSm90BarrierBytes", HOPPER_BARRIER_BYTES),
            (hopper, "kGemmSm90XRows", HOPPER_BOXES.x[1]),
            (hopper, "kGemmSm90XColumns", HOPPER_BOXES.x[0]),
            (hopper, "kGemmSm90WRows", HOPPER_BOXES.w[1]),
            (hopper, "kGemmSm90WColumns", HOPPER_BOXES.w[0]),
            (hopper, "kGemmSm90OutRows", HOPPER_BOXES.out[1]),
            (hopper, "kGemmSm90OutColumns", HOPPER_BOXES.out[0]),
        ];
        for (source, name, ours) in cases {
            assert_eq!(ours, in_source(source, name), "{name}");
        }
    }

    #[test]
    fn grids_cover_every_row_and_tile() {
        assert_eq!(warp_per_row(1).grid, [1, 1, 1]);
        assert_eq!(warp_per_row(5).grid, [2, 1, 1]);
        assert_eq!(gemm(NumberType::Bf16, 129, 7680).grid, [2, 60, 1]);
        assert_eq!(gemm(NumberType::F32, 64, 65).grid, [2, 1, 1]);
        assert_eq!(linear(5, 9).grid, [2, 2, 1]);
        assert_eq!(pool(3, 100).block, 32);
        assert_eq!(hopper_gemm(131, 16_384, 7680).grid, [130, 1, 1]);
        assert_eq!(hopper_gemm(132, 257, 256).grid, [4, 1, 1]);
        assert_eq!(fill(257).grid, [2, 1, 1]);
    }
}
