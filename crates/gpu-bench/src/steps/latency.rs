//! Milliseconds from the ids of one short text to its vector.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use polylance_schema::Dtype;
use serde_json::json;

use super::{Context, synthetic};
use crate::{
    geometry::Geometry,
    workload::{Lengths, batches},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct LatencyArguments {
    /// The models' sizes, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "e5-small,xlmr-large,xl")]
    geometry: Vec<Geometry>,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Tokens of the text
    #[arg(long, default_value_t = 20)]
    length: usize,
    /// How often it is computed
    #[arg(long, default_value_t = 200)]
    rounds: usize,
}

/// Measures each model.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &LatencyArguments) -> Result<()> {
    const WARMUP: usize = 10;
    let report = context.report;
    let gpu = context.open()?;
    for &geometry in &arguments.geometry {
        report.doing(format_args!("making {geometry}"));
        let config = geometry.config(None);
        let model = synthetic(&gpu, &config, arguments.dtype, None)?;
        let batch = batches(&config, Lengths::Equal(arguments.length), arguments.length, 1)?.remove(0);
        report.doing(format_args!("measuring {geometry}"));
        let mut milliseconds = Vec::with_capacity(arguments.rounds);
        for round in 0..WARMUP + arguments.rounds.max(1) {
            let started = Instant::now();
            model.embed(&batch.packed)?;
            if round >= WARMUP {
                milliseconds.push(1e3 * started.elapsed().as_secs_f64());
            }
            report.progress();
        }
        milliseconds.sort_by(f64::total_cmp);
        let at = |share: f64| milliseconds[(share * (milliseconds.len() - 1) as f64).round() as usize];
        let (median, slow) = (at(0.5), at(0.95));
        report.record(
            &format!("{geometry} {}, one text of {} tokens", arguments.dtype, arguments.length),
            format_args!("{median:.3} ms, {slow:.3} ms at the 95th percentile"),
            json!({
                "geometry": geometry.to_string(), "dtype": arguments.dtype.to_string(), "length": arguments.length,
                "median_ms": median, "p95_ms": slow, "least_ms": at(0.0),
            }),
        );
    }
    Ok(())
}
