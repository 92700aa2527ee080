//! Tokens per second of the engine alone, as a share of the card's peak, and the time of each kernel.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use polylance_encoder::{Gpu, ModelConfig, SentenceEncoder};
use polylance_schema::Dtype;
use serde_json::{Value, json};

use super::{Context, synthetic};
use crate::{
    geometry::{Geometry, operations, operations_by_label},
    report::Report,
    throughput::{Effort, Rate, measure},
    workload::{Batch, Lengths, batches},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct SpeedArguments {
    /// The model's sizes
    #[arg(long, value_enum, default_value_t = Geometry::Xl)]
    geometry: Geometry,
    /// How many layers, if not all
    #[arg(long)]
    layers: Option<usize>,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Tokens of a batch; several, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "16384")]
    tokens: Vec<usize>,
    /// How long sequences are: numbers or udhr, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "128")]
    lengths: Vec<Lengths>,
    /// Threads that compute at once; several, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "2")]
    lanes: Vec<usize>,
    /// Enough batches
    #[arg(long, default_value_t = 20)]
    batches: usize,
    /// Enough time, once a quarter of the batches is done
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Where the rates of matrix products are: results of `peer.py ceilings`
    #[arg(long, value_name = "FILE")]
    ceilings: Option<PathBuf>,
    /// Measure each kernel too
    #[arg(long)]
    profile: bool,
}

/// Different batches that are computed in turn.
const DIFFERENT_BATCHES: usize = 4;

/// Measures every combination.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &SpeedArguments) -> Result<()> {
    let report = context.report;
    let ceilings = arguments.ceilings.as_deref().map(Ceilings::read).transpose()?.unwrap_or_default();
    let gpu = context.open()?;
    let config = arguments.geometry.config(arguments.layers);
    report.doing(format_args!("making {}", arguments.geometry));
    let most = arguments.tokens.iter().max().copied();
    let model = synthetic(&gpu, &config, arguments.dtype, most)?;
    report.progress();
    for &tokens in &arguments.tokens {
        for &lengths in &arguments.lengths {
            let batches = batches(&config, lengths, tokens, DIFFERENT_BATCHES)?;
            let case = format!("{} {} {tokens} ids of {lengths}", arguments.geometry, arguments.dtype);
            for &lanes in &arguments.lanes {
                report.doing(format_args!("measuring {case}, {lanes} lanes"));
                let effort = Effort {
                    warmup: 3,
                    batches: arguments.batches,
                    time: Duration::from_secs_f64(arguments.seconds.max(0.0)),
                };
                let rate = measure(report, &batches, lanes, effort, |batch| embed(&model, batch))?;
                let about = json!({
                    "geometry": arguments.geometry.to_string(), "layers": config.num_hidden_layers,
                    "dtype": arguments.dtype.to_string(), "batch_tokens": tokens, "lengths": lengths.to_string(),
                    "lanes": lanes, "gpu": gpu.info().name,
                });
                let (text, value) = described(&config, &batches, rate, &ceilings, about);
                report.record(&format!("{case}, {lanes} lanes"), text, value);
            }
            if arguments.profile {
                profile(report, &gpu, &model, &config, &case, &batches)?;
            }
        }
    }
    Ok(())
}

fn embed(model: &SentenceEncoder, batch: &Batch) -> Result<()> {
    model.embed(&batch.packed)?;
    Ok(())
}

/// A rate as a share of the card's ceiling.
fn described(
    config: &ModelConfig,
    batches: &[Batch],
    rate: Rate,
    ceilings: &Ceilings,
    about: Value,
) -> (String, Value) {
    let work: f64 = batches.iter().map(|batch| operations(config, &batch.lengths)).sum();
    let tokens: usize = batches.iter().map(Batch::tokens).sum();
    let tflops = rate.median * work / tokens as f64 / 1e12;
    let mut text = format!("{:>9.0} tok/s ±{:.1} %, {tflops:.1} TFLOP/s", rate.median, 50.0 * rate.spread());
    let mut value = rate.to_json();
    value["tflops"] = tflops.into();
    for (name, ceiling) in [("burst", ceilings.burst), ("sustained", ceilings.sustained)] {
        if let Some(ceiling) = ceiling.filter(|ceiling| *ceiling > 0.0) {
            text = format!("{text}, {:.1} % of {name}", 100.0 * tflops / ceiling);
            value[format!("share_of_{name}")] = (tflops / ceiling).into();
        }
    }
    value["about"] = about;
    (text, value)
}

/// Matrix products per second that the card reaches, in units of 10¹² operations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Ceilings {
    burst: Option<f64>,
    sustained: Option<f64>,
}

impl Ceilings {
    /// From lines of JSON, the last line that has a rate.
    fn read(path: &std::path::Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Ok(Self::from_lines(&text))
    }

    fn from_lines(text: &str) -> Self {
        let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let rate = |name: &str| lines.iter().rev().find_map(|line| line["facts"][name].as_f64());
        Self { burst: rate("square_burst_tflops"), sustained: rate("square_sustained_tflops") }
    }
}

/// The time of each kernel of a batch.
fn profile(
    report: &Report,
    gpu: &Arc<Gpu>,
    model: &SentenceEncoder,
    config: &ModelConfig,
    case: &str,
    batches: &[Batch],
) -> Result<()> {
    report.doing(format_args!("measuring the kernels of {case}"));
    gpu.set_profile(true);
    // The first pass creates the events.
    embed(model, &batches[0])?;
    model.take_kernel_times();
    for batch in batches {
        embed(model, batch)?;
        report.progress();
    }
    gpu.set_profile(false);
    let times = model.take_kernel_times();
    let total: f64 = times.iter().map(|time| time.milliseconds).sum();
    for time in &times {
        let work: f64 = batches
            .iter()
            .flat_map(|batch| operations_by_label(config, &batch.lengths))
            .filter(|(label, _)| *label == time.label)
            .map(|(_, operations)| operations)
            .sum();
        let tflops = (work > 0.0).then(|| work / time.milliseconds.max(1e-9) / 1e9);
        let (milliseconds, share) = (time.milliseconds / batches.len() as f64, time.milliseconds / total.max(1e-9));
        let rate = tflops.map(|tflops| format!(", {tflops:.1} TFLOP/s")).unwrap_or_default();
        report.record(
            &format!("{case}: {}", time.label),
            format_args!("{milliseconds:>9.3} ms a batch, {:>4.1} %{rate} ({})", 100.0 * share, time.kernel),
            json!({
                "kernel": time.kernel, "launches": f64::from(time.launches) / batches.len() as f64,
                "milliseconds": milliseconds, "share": share, "tflops": tflops,
            }),
        );
    }
    let of_batch = total / batches.len() as f64;
    report.record(&format!("{case}: all kernels"), format_args!("{of_batch:>9.3} ms a batch"), of_batch);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_those_of_the_last_line_that_has_them() {
        let lines = [
            r#"{"facts": {"square_burst_tflops": 1.5}}"#,
            "no JSON",
            r#"{"facts": {"square_burst_tflops": 790.0, "square_sustained_tflops": 700.0}}"#,
            r#"{"facts": {}}"#,
        ];
        let expected = Ceilings { burst: Some(790.0), sustained: Some(700.0) };
        assert_eq!(Ceilings::from_lines(&lines.join("\n")), expected);
        assert_eq!(Ceilings::from_lines(""), Ceilings::default());
    }
}
