//! Every kernel against sums in f64, at odd shapes and at those of XLM-RoBERTa-XL.
//!
//! Operands are generated on the device by the formula that the first check compares to the bit, so references can be
//! computed on the host from any index without a copy. Outputs are NaN before a launch, and so are the rows after the
//! operands: a number that is not written, or computed from memory that must not be read, is NaN and fails the check.

mod attention;
mod gemm;
mod norm;
mod rows;

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Result;
use clap::Args;
use polylance_cuda::{Gpu, NumberType};
use serde_json::json;

use super::Context;
use crate::{
    arrays::{Distance, tolerance},
    report::Report,
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct KernelsArguments {
    /// Odd shapes alone, without the large ones
    #[arg(long)]
    small: bool,
    /// Only kernels whose family contains this: fill, norm, gemm, attention, rows; may be given several times
    #[arg(long)]
    only: Vec<String>,
}

/// The shapes that are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shapes {
    /// Odd ones.
    Small,
    /// Those of XLM-RoBERTa-XL too.
    All,
}

const NUMBER_TYPES: [NumberType; 3] = [NumberType::Bf16, NumberType::F16, NumberType::F32];

/// Checks every family.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &KernelsArguments) -> Result<()> {
    let gpu = context.open()?;
    let shapes = if arguments.small { Shapes::Small } else { Shapes::All };
    let mut checks = Checks { report: context.report, gpu, shapes, kernels: BTreeMap::new() };
    let families: [(&str, Family); 5] = [
        ("fill", rows::check_fill),
        ("norm", norm::check),
        ("rows", rows::check),
        ("attention", attention::check),
        ("gemm", gemm::check),
    ];
    for (family, check) in families {
        if arguments.only.is_empty() || arguments.only.iter().any(|part| family.contains(part.as_str())) {
            check(&mut checks)?;
            checks.report_kernels();
        }
    }
    Ok(())
}

/// The checks of a family of kernels.
type Family = fn(&mut Checks<'_>) -> Result<()>;

/// The results of each kernel's checks.
struct Checks<'a> {
    report: &'a Report,
    gpu: Arc<Gpu>,
    shapes: Shapes,
    kernels: BTreeMap<String, Kernel>,
}

/// All checks of one kernel.
#[derive(Default)]
struct Kernel {
    checks: usize,
    numbers: usize,
    worst: Distance,
    failures: Vec<String>,
}

impl Checks<'_> {
    /// Compares an output, within the tolerance of its type.
    fn compare(&mut self, kernel: &str, shape: &str, output: NumberType, found: &[f32], expected: &[f64]) {
        self.add(kernel, shape, Distance::between(found, expected), tolerance(output));
    }

    fn add(&mut self, kernel: &str, shape: &str, distance: Distance, tolerance: f64) {
        let entry = self.kernels.entry(kernel.to_owned()).or_default();
        entry.checks += 1;
        entry.numbers += distance.count;
        entry.worst.relative = entry.worst.relative.max(distance.relative);
        entry.worst.largest = entry.worst.largest.max(distance.largest);
        entry.worst.not_finite += distance.not_finite;
        if !distance.is_within(tolerance) {
            let Distance { not_finite, relative, largest, .. } = distance;
            entry
                .failures
                .push(format!("{shape}: {not_finite} not finite, error {relative:.1e}, of one {largest:.1e}"));
        }
        self.report.progress();
    }

    /// Records a check of a kernel that is no distance.
    fn require(&mut self, kernel: &str, holds: bool, reason: impl FnOnce() -> String) {
        let entry = self.kernels.entry(kernel.to_owned()).or_default();
        entry.checks += 1;
        if !holds {
            entry.failures.push(reason());
        }
        self.report.progress();
    }

    /// A line for each kernel that was checked since the last call.
    fn report_kernels(&mut self) {
        for (name, kernel) in std::mem::take(&mut self.kernels) {
            let Kernel { checks, numbers, worst, failures } = kernel;
            let mut text =
                format!("{checks:>3} checks, error {:.1e}, of one number {:.1e}", worst.relative, worst.largest);
            if let Some(first) = failures.first() {
                text = format!("{text}; {} FAILED, the first {first}", failures.len());
            }
            let value = json!({
                "checks": checks, "numbers": numbers, "error": worst.relative, "largest": worst.largest,
                "not_finite": worst.not_finite, "failures": failures,
            });
            self.report.check(&name, failures.is_empty(), text, value);
        }
    }
}

/// Rows that are compared: all of a few, or the first, the last, those where tiles end, and some between.
fn sample(rows: usize, most: usize) -> Vec<usize> {
    if rows <= most {
        return (0..rows).collect();
    }
    let borders = [
        0,
        63,
        64,
        127,
        128,
        255,
        256,
        rows / 2,
        rows.saturating_sub(129),
        rows.saturating_sub(128),
        rows - 2,
        rows - 1,
    ];
    let mut random = crate::formula::Random::new(rows as u64);
    let between = std::iter::repeat_with(|| random.below(rows)).take(most.saturating_sub(borders.len()));
    let mut sample: Vec<usize> = borders.into_iter().filter(|&row| row < rows).chain(between).collect();
    sample.sort_unstable();
    sample.dedup();
    sample
}

/// GELU in its erf form.
fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// The error function, by the series `2/√π · e^(-x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n+1)!!`, whose terms have one sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_its_known_values() {
        let cases = [(0.0, 0.0), (0.5, 0.520_499_877_813_046_5), (2.0, 0.995_322_265_018_952_7), (7.0, 1.0)];
        for (x, expected) in cases {
            assert!((erf(x) - expected).abs() < 1e-14 && (erf(-x) + expected).abs() < 1e-14, "{x}");
        }
        assert!((gelu(1.0) - 0.841_344_746_068_542_9).abs() < 1e-14);
    }

    #[test]
    fn a_sample_has_the_borders_and_no_row_twice() {
        assert_eq!(sample(5, 24), [0, 1, 2, 3, 4]);
        let rows = sample(16_307, 24);
        assert!(rows.len() >= 20 && rows.is_sorted_by(|a, b| a < b));
        assert!([0, 127, 128, 16_306].iter().all(|row| rows.contains(row)));
    }
}
