//! A model whose layers are streamed gives what it gives in memory, bit for bit: from its files on the CPU, from the
//! host's memory on a GPU. So does one whose layers are spread over several GPUs.

mod cpu;
#[cfg(target_os = "linux")]
mod gpu;
#[cfg(target_os = "linux")]
mod spread;

use polylance_encoder::{ModelConfig, ModelFiles, ModelKind, PackedBatch, synthetic::Checkpoint};
use tempfile::TempDir;

/// A driver with three GPUs.
#[cfg(target_os = "linux")]
fn driver() -> polylance_fake_cuda::Session {
    polylance_fake_cuda::FakeDriver::session_with(&[("FAKE_CUDA_DEVICES", "3")])
}

/// Sizes that are no multiples of the kernels' steps, and are padded on a GPU.
fn config(kind: ModelKind, layers: usize) -> ModelConfig {
    ModelConfig {
        kind,
        vocab_size: 64,
        hidden_size: 48,
        num_hidden_layers: layers,
        num_attention_heads: 4,
        intermediate_size: 84,
        max_position_embeddings: 80,
        pad_token_id: 1,
        ..ModelConfig::tiny()
    }
}

fn files_of(checkpoint: &Checkpoint) -> (TempDir, ModelFiles) {
    let folder = tempfile::tempdir().unwrap();
    let files = checkpoint.write_model(folder.path()).unwrap();
    (folder, files)
}

/// Sequences of at most `longest` ids.
fn sequences(count: u32, longest: u32) -> Vec<Vec<u32>> {
    (0..count).map(|row| (0..=row * 7 % longest).map(|at| 5 + (row * 11 + at * 29) % 59).collect()).collect()
}

/// A batch with tokens of two types.
fn batch_of(rows: &[Vec<u32>]) -> PackedBatch {
    let types: Vec<Vec<u32>> = rows.iter().map(|row| (0..row.len()).map(|at| u32::from(at > 3)).collect()).collect();
    PackedBatch::with_token_types(rows, &types).unwrap()
}
