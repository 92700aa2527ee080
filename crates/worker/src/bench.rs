//! Measures the speed of a model on this machine, and its share of the peak.

use std::{collections::BTreeSet, time::Instant};

use futures::executor::block_on;
use polylance_backend::{Backend, Embeddings, Result};
use polylance_encoder::ModelConfig;
use polylance_kernels::{Isa, Precision, peak};
use polylance_schema::Dtype;
use serde::Serialize;

use crate::{
    embedding_pool::DevicePool,
    selection::{DeviceSpec, Machine, VisibleGpu},
};

/// The result of [`bench()`].
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The arithmetic.
    pub dtype: String,
    /// The instruction set of the CPU's kernels, or the GPU's architecture such as `sm_90`.
    pub instructions: String,
    /// The devices.
    pub devices: Vec<String>,
    /// The distinct names of the GPUs among them; empty on a CPU.
    pub gpus: Vec<String>,
    /// Inputs in a round.
    pub sequences: usize,
    /// Tokens in a round.
    pub tokens: usize,
    /// Seconds of each round, from tokens to vectors.
    pub rounds: Vec<f64>,
    /// Seconds of the median round.
    pub seconds: f64,
    /// Tokens per second in the median round.
    pub tokens_per_second: f64,
    /// Operations per second that the model requires, in the median round, in units of 10⁹.
    pub gflops: f64,
    /// The peak of the kernels' instructions on as many cores without memory access; absent on a GPU.
    pub peak_gflops: Option<f64>,
    /// The median round's share of the peak.
    pub share_of_peak: Option<f64>,
}

/// Encodes `inputs` in `rounds` rounds after a warm-up round, and returns the vectors of the last.
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
    let round = || {
        let inputs = inputs.to_vec();
        let started = Instant::now();
        block_on(pool.encode(inputs)).map(|vectors| (started.elapsed().as_secs_f64(), vectors))
    };
    let (_, mut vectors) = round()?;
    let mut seconds = Vec::with_capacity(rounds.max(1));
    for _ in 0..rounds.max(1) {
        let (elapsed, round_vectors) = round()?;
        seconds.push(elapsed);
        vectors = round_vectors;
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let (tokens, devices) = (inputs.iter().map(Vec::len).sum(), pool.info().devices.clone());
    let gflops = operations(config, inputs) / median / 1e9;
    let Kernels { instructions, gpus, peak } = Kernels::of(&devices, dtype, Machine::this());
    let peak_gflops = peak.map(|peak| peak / 1e9);
    let report = BenchReport {
        dtype: dtype.to_string(),
        instructions,
        devices,
        gpus,
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

/// The kernels that compute on the devices.
#[derive(Debug, PartialEq)]
struct Kernels {
    instructions: String,
    gpus: Vec<String>,
    /// Operations per second that the instructions reach at most, if it can be measured.
    peak: Option<f64>,
}

impl Kernels {
    fn of(devices: &[String], dtype: Dtype, machine: &Machine) -> Self {
        let specs: Vec<DeviceSpec> =
            devices.iter().flat_map(|name| name.split('+')).filter_map(|name| name.parse().ok()).collect();
        let gpu = |spec: &DeviceSpec| if let DeviceSpec::Cuda(ordinal) = spec { machine.gpu(*ordinal) } else { None };
        let gpus: Vec<&VisibleGpu> = specs.iter().filter_map(gpu).collect();
        if gpus.is_empty() {
            let cores: usize = specs.iter().map(DeviceSpec::threads).sum();
            let peak = peak(Isa::detect(), precision(dtype)) * cores as f64;
            return Self { instructions: Isa::detect().to_string(), gpus: Vec::new(), peak: Some(peak) };
        }
        let distinct = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let architectures = gpus.iter().map(|gpu| gpu.architecture()).collect();
        let names = gpus.iter().map(|gpu| gpu.name.clone()).collect();
        Self { instructions: distinct(architectures).join(", "), gpus: distinct(names), peak: None }
    }
}

fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 | Dtype::F16 => Precision::Bf16,
        Dtype::Int8 => Precision::Int8,
    }
}

/// Multiplications and additions of the layers: of the linear maps per token, and of attention per pair of tokens.
fn operations(config: &ModelConfig, inputs: &[Vec<u32>]) -> f64 {
    let (hidden, wide, layers) =
        (config.hidden_size as f64, config.intermediate_size as f64, config.num_hidden_layers as f64);
    let maps = 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * wide);
    let input_operations = |input: &Vec<u32>| {
        let tokens = input.len() as f64;
        layers * tokens * (maps + 4.0 * hidden * tokens)
    };
    inputs.iter().map(input_operations).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_reported_with_their_architecture_and_no_peak() {
        let gpu =
            |ordinal, name: &str, compute| VisibleGpu { ordinal, name: name.to_owned(), compute, near_cores: None };
        let gpus = vec![gpu(0, "NVIDIA H200", (9, 0)), gpu(1, "NVIDIA H200", (9, 0)), gpu(2, "NVIDIA L4", (8, 9))];
        let machine = Machine::new(vec![0], Ok(gpus));
        let kernels = |devices: &[&str]| {
            let devices: Vec<String> = devices.iter().map(|&name| name.to_owned()).collect();
            Kernels::of(&devices, Dtype::Bf16, &machine)
        };
        let hopper = Kernels { instructions: "sm_90".to_owned(), gpus: vec!["NVIDIA H200".to_owned()], peak: None };
        assert_eq!(kernels(&["cuda:0", "cuda:1"]), hopper);
        assert_eq!(kernels(&["cuda:0+cuda:1"]), hopper);
        assert_eq!(kernels(&["cuda:1", "cuda:2"]).instructions, "sm_89, sm_90");
        let on_core = kernels(&["cpu:0"]);
        assert_eq!((on_core.instructions, on_core.gpus.len()), (Isa::detect().to_string(), 0));
        assert!(on_core.peak.is_some_and(|peak| peak > 0.0));
    }
}
