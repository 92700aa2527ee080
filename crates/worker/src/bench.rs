//! How fast a model is on this machine, and how near to what the machine can do.

use std::{collections::BTreeSet, time::Instant};

use futures::executor::block_on;
use polylance_backend::{Backend, Embeddings, Result};
use polylance_encoder::ModelConfig;
use polylance_kernels::{Isa, Precision, peak};
use polylance_schema::Dtype;
use serde::Serialize;

use crate::{DevicePool, DeviceSpec, Machine, VisibleGpu};

/// What [`bench()`] measured.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    /// The arithmetic.
    pub dtype: String,
    /// The instructions of the kernels: of the CPU's, or the GPU's architecture such as `sm_90`.
    pub instructions: String,
    /// The devices.
    pub devices: Vec<String>,
    /// The names of the GPUs among them, each once; empty on a CPU.
    pub gpus: Vec<String>,
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
    /// What the kernels' instructions reach on as many cores when nothing is read from memory; absent on a GPU.
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

/// What computes on the devices.
#[derive(Debug, PartialEq)]
struct Kernels {
    instructions: String,
    gpus: Vec<String>,
    /// Operations a second that the instructions reach, where it can be measured.
    peak: Option<f64>,
}

impl Kernels {
    fn of(devices: &[String], dtype: Dtype, machine: &Machine) -> Self {
        let specs: Vec<DeviceSpec> = devices.iter().filter_map(|name| name.parse().ok()).collect();
        let gpu = |spec: &DeviceSpec| if let DeviceSpec::Cuda(ordinal) = spec { machine.gpu(*ordinal) } else { None };
        let gpus: Vec<&VisibleGpu> = specs.iter().filter_map(gpu).collect();
        if gpus.is_empty() {
            let cores: usize = specs.iter().map(DeviceSpec::threads).sum();
            let peak = peak(Isa::detect(), precision(dtype)) * cores as f64;
            return Self { instructions: Isa::detect().to_string(), gpus: Vec::new(), peak: Some(peak) };
        }
        let each_once = |names: Vec<String>| names.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>();
        let architectures = gpus.iter().map(|gpu| gpu.architecture()).collect();
        let names = gpus.iter().map(|gpu| gpu.name.clone()).collect();
        Self { instructions: each_once(architectures).join(", "), gpus: each_once(names), peak: None }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_named_with_their_architecture_and_have_no_peak() {
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
        assert_eq!(kernels(&["cuda:1", "cuda:2"]).instructions, "sm_89, sm_90");
        let on_core = kernels(&["cpu:0"]);
        assert_eq!((on_core.instructions, on_core.gpus.len()), (Isa::detect().to_string(), 0));
        assert!(on_core.peak.is_some_and(|peak| peak > 0.0));
    }
}
