//! Checks and measures the GPU engine on a machine with an NVIDIA GPU.
//!
//! One binary that needs only the driver, so that it can be copied to a rented machine; `gpu/device.sh`
//! runs its steps. Every step prints a line for each fact and appends one line of JSON; its exit status is 1 when
//! a check fails, and it aborts when the device makes no progress.

mod arrays;
mod formula;
mod geometry;
mod npy;
mod report;
mod steps;
mod throughput;
mod workload;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use crate::{report::Report, steps::Context};

/// Checks and measures the GPU engine
#[derive(Debug, Parser)]
#[command(name = "polylance-gpu-bench", version)]
struct Arguments {
    #[command(subcommand)]
    step: Step,
    /// Append the step's results to this file, as one line of JSON
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The GPU, by the driver's number
    #[arg(long, global = true, value_name = "N", default_value_t = 0)]
    gpu: u32,
    /// Abort after this many seconds without progress
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 20)]
    patience: u64,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// The card, its driver, its clocks
    Info,
    /// Every kernel against sums in f64
    Kernels(steps::kernels::KernelsArguments),
    /// One pass of a tiny model of each kind, for compute-sanitizer
    Tiny,
    /// Hidden states, heads and generated text against transformers
    Goldens(steps::goldens::GoldensArguments),
    /// A few layers of the true width, written for a comparison with torch
    Layers(steps::layers::LayersArguments),
    /// Whether a sequence has the same bits in every batch
    Batchings(steps::batchings::BatchingsArguments),
    /// Tokens per second, and where the time goes
    Speed(steps::speed::SpeedArguments),
    /// Milliseconds of one short text
    Latency(steps::latency::LatencyArguments),
    /// Tokens per second through the device pool, compared with the bare engine
    Pool(steps::pool::PoolArguments),
    /// A model that is streamed, compared with the same on the device
    Streamed(steps::streamed::StreamedArguments),
    /// What happens without memory, and with input that no model takes
    Memory(steps::memory::MemoryArguments),
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Kernels(_) => "kernels",
            Self::Tiny => "tiny",
            Self::Goldens(_) => "goldens",
            Self::Layers(_) => "layers",
            Self::Batchings(_) => "batchings",
            Self::Speed(_) => "speed",
            Self::Latency(_) => "latency",
            Self::Pool(_) => "pool",
            Self::Streamed(_) => "streamed",
            Self::Memory(_) => "memory",
        }
    }

    fn run(&self, context: &Context<'_>) -> anyhow::Result<()> {
        match self {
            Self::Info => steps::info::run(context),
            Self::Kernels(arguments) => steps::kernels::run(context, arguments),
            Self::Tiny => steps::tiny::run(context),
            Self::Goldens(arguments) => steps::goldens::run(context, arguments),
            Self::Layers(arguments) => steps::layers::run(context, arguments),
            Self::Batchings(arguments) => steps::batchings::run(context, arguments),
            Self::Speed(arguments) => steps::speed::run(context, arguments),
            Self::Latency(arguments) => steps::latency::run(context, arguments),
            Self::Pool(arguments) => steps::pool::run(context, arguments),
            Self::Streamed(arguments) => steps::streamed::run(context, arguments),
            Self::Memory(arguments) => steps::memory::run(context, arguments),
        }
    }
}

fn main() -> ExitCode {
    let Arguments { step, json, gpu, patience } = Arguments::parse();
    let report = Report::start(step.name(), json, Duration::from_secs(patience.max(1)));
    let result = step.run(&Context { report: &report, ordinal: gpu });
    if let Err(error) = result {
        report.fail(&format!("{error:#}"));
    }
    if report.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
