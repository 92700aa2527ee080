//! How fast a model is on this machine, and how near to what the machine can do.

use std::time::Instant;

use futures::executor::block_on;
use polylance_backend::{Backend, Embeddings, Result};
use polylance_encoder::{Dtype, ModelConfig};
use polylance_kernels::{Isa, Precision, peak};
use serde::Serialize;

use crate::{DevicePool, DeviceSpec};

/// What [`bench()`] measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The arithmetic.
    pub dtype: String,
    /// The instructions of the CPU's kernels.
    pub instructions: String,
    /// The devices.
    pub devices: Vec<String>,
    /// Inputs in a round.
    pub sequences: usize,
    /// Their ids.
    pub tokens: usize,
    /// Each round, from ids to vectors.
    pub rounds: Vec<f64>,
    /// The median of the rounds.
    pub seconds: f64,
    /// Ids a second in the median round.
    pub tokens_per_second: f64,
    /// Operations in a round that the model's arithmetic asks for, a second, in units of 10⁹.
    pub gflops: f64,
    /// What the kernels' instructions reach on as many cores when nothing is read from memory; absent without a CPU.
    pub peak_gflops: Option<f64>,
    /// The share of that which a round reached.
    pub share_of_peak: Option<f64>,
}

/// Encodes `inputs` so many times, after one time that does not count, and returns the last round's vectors.
///
/// # Errors
/// When an input is refused or a device fails.
pub fn bench(
    pool: &DevicePool,
    config: &ModelConfig,
    dtype: Dtype,
    inputs: &[Vec<u32>],
    rounds: usize,
) -> Result<(BenchReport, Embeddings)> {
    let once = || {
        let inputs = inputs.to_vec();
        let started = Instant::now();
        block_on(pool.encode(inputs)).map(|vectors| (started.elapsed().as_secs_f64(), vectors))
    };
    let (_, mut vectors) = once()?;
    let mut seconds = Vec::with_capacity(rounds.max(1));
    for _ in 0..rounds.max(1) {
        let (took, found) = once()?;
        seconds.push(took);
        vectors = found;
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let (tokens, devices) = (inputs.iter().map(Vec::len).sum(), pool.info().devices.clone());
    let gflops = operations(config, inputs) / median / 1e9;
    let specs: Vec<DeviceSpec> = devices.iter().filter_map(|name| name.parse().ok()).collect();
    let on_cpu = !specs.iter().any(|spec| matches!(spec, DeviceSpec::Cuda(_)));
    let peak_gflops = on_cpu.then(|| {
        let cores: usize = specs.iter().map(DeviceSpec::threads).sum();
        peak(Isa::detect(), precision(dtype)) * cores as f64 / 1e9
    });
    let report = BenchReport {
        dtype: dtype.to_string(),
        instructions: Isa::detect().to_string(),
        devices,
        sequences: inputs.len(),
        tokens,
        rounds: seconds,
        seconds: median,
        tokens_per_second: tokens as f64 / median,
        gflops,
        peak_gflops,
        share_of_peak: peak_gflops.map(|peak| gflops / peak),
    };
    Ok((report, vectors))
}

fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 | Dtype::F16 => Precision::Bf16,
        Dtype::Int8 => Precision::Int8,
    }
}

/// Multiplications and additions of the layers: those of the maps for each id, and those of attention for each pair.
fn operations(config: &ModelConfig, inputs: &[Vec<u32>]) -> f64 {
    let (hidden, wide, layers) =
        (config.hidden_size as f64, config.intermediate_size as f64, config.num_hidden_layers as f64);
    let maps = 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * wide);
    let of = |ids: &Vec<u32>| {
        let ids = ids.len() as f64;
        layers * ids * (maps + 4.0 * hidden * ids)
    };
    inputs.iter().map(of).sum()
}
