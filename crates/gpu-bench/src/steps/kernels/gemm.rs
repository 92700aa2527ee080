//! Matrix products of both families, and thin linear maps.

use anyhow::Result;
use polylance_cuda::{
    NumberType,
    ops::{Activation, Epilogue, Gemm, Linear},
    padded_rows,
};
use rayon::prelude::*;

use super::{Checks, NUMBER_TYPES, Shapes, gelu, sample};
use crate::{
    arrays::{Distance, downloaded, filled, poisoned, tolerance},
    formula::Formula,
};

/// Rows, columns and inner dimension of a product.
#[derive(Debug, Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
}

/// Rows that are compared with sums in f64.
const SAMPLED_ROWS: usize = 20;

pub(super) fn check(checks: &mut Checks<'_>) -> Result<()> {
    let shape = |m, n, k| Shape { m, n, k };
    let small = [shape(1, 8, 8), shape(7, 136, 72), shape(129, 72, 40), shape(3, 264, 200), shape(130, 24, 264)];
    for case in small {
        for number in NUMBER_TYPES {
            for epilogue in [Epilogue::None, Epilogue::Gelu, Epilogue::F32] {
                gemm(checks, number, epilogue, case)?;
            }
            linear(checks, number, case)?;
        }
    }
    // A vocabulary's size need not be a multiple of anything.
    for number in NUMBER_TYPES {
        gemm(checks, number, Epilogue::F32, shape(5, 151, 48))?;
        linear(checks, number, shape(5, 3, 48))?;
    }
    if checks.shapes == Shapes::All {
        const ROWS: usize = 16_307;
        let large = [
            (Epilogue::None, shape(ROWS, 7680, 2560)),
            (Epilogue::None, shape(ROWS, 2560, 2560)),
            (Epilogue::Gelu, shape(ROWS, 10_240, 2560)),
            (Epilogue::None, shape(ROWS, 2560, 10_240)),
            (Epilogue::F32, shape(40, 250_002, 1024)),
        ];
        for (epilogue, case) in large {
            gemm(checks, NumberType::Bf16, epilogue, case)?;
        }
        gemm(checks, NumberType::F16, Epilogue::Gelu, shape(4099, 10_240, 2560))?;
        gemm(checks, NumberType::F32, Epilogue::None, shape(1027, 2560, 2560))?;
        linear(checks, NumberType::Bf16, shape(512, 2560, 2560))?;
    }
    Ok(())
}

/// The operands of a product, here and by rows.
struct Operands {
    x: Formula,
    w: Vec<f32>,
    bias: Option<Formula>,
    shape: Shape,
}

impl Operands {
    /// The sums of a row, bias included.
    fn row(&self, row: usize) -> Vec<f64> {
        let Shape { n, k, .. } = self.shape;
        let x: Vec<f64> = (0..k).map(|at| f64::from(self.x.at(row * k + at))).collect();
        let sum = |column: usize| {
            let w = &self.w[column * k..(column + 1) * k];
            let bias = self.bias.map_or(0.0, |bias| f64::from(bias.at(column)));
            bias + x.iter().zip(w).map(|(x, w)| x * f64::from(*w)).sum::<f64>()
        };
        (0..n).into_par_iter().map(sum).collect()
    }
}

fn formulas(number: NumberType, x: NumberType, Shape { k, .. }: Shape) -> [Formula; 3] {
    // Sums are about 1, so that GELU is not a straight line.
    let scale = (3.0 / k as f32).sqrt();
    [Formula::new(x, 51, 1.7), Formula::new(number, 52, scale), Formula::new(NumberType::F32, 53, 0.5)]
}

fn gemm(checks: &mut Checks<'_>, number: NumberType, epilogue: Epilogue, shape: Shape) -> Result<()> {
    let Shape { m, n, k } = shape;
    if number != NumberType::F32 && epilogue != Epilogue::F32 && !n.is_multiple_of(8) {
        return Ok(());
    }
    let described = format!("{m}x{n}x{k} {epilogue:?}");
    checks.report.doing(format_args!("a product in {number}, {described}"));
    let [x, w, bias] = formulas(number, number, shape);
    let gpu = std::sync::Arc::clone(&checks.gpu);
    let x_buffer = filled(&gpu, &x, m * k, padded_rows(m) * k)?;
    let w_buffer = filled(&gpu, &w, n * k, n * k)?;
    let bias_buffer = filled(&gpu, &bias, n, n)?;
    let has_bias = m != 7;
    let out_number = if epilogue == Epilogue::F32 { NumberType::F32 } else { number };
    let operands = Operands {
        x,
        w: (0..n * k).into_par_iter().map(|index| w.at(index)).collect(),
        bias: has_bias.then_some(bias),
        shape,
    };
    let sampled = sample(m, if n * k < 1 << 20 { 160 } else { SAMPLED_ROWS });
    let activate = |sum: f64| if epilogue == Epilogue::Gelu { gelu(sum) } else { sum };
    let mut expected: Vec<f64> = Vec::with_capacity(sampled.len() * n);
    for &row in &sampled {
        expected.extend(operands.row(row).into_iter().map(activate));
        checks.report.progress();
    }
    // Without the kernel for compute capability 9.0 there is one family.
    let has_hopper = gpu.info().compute == (9, 0) && number != NumberType::F32 && epilogue != Epilogue::F32;
    let mut outputs: Vec<Vec<f32>> = Vec::new();
    for &hopper in if has_hopper { &[false, true][..] } else { &[false] } {
        let out = poisoned(&gpu, out_number, padded_rows(m) * n)?;
        gpu.set_hopper_gemm(hopper);
        let mut pass = gpu.begin()?;
        pass.gemm(&Gemm {
            number,
            x: x_buffer.all(),
            w: w_buffer.all(),
            bias: has_bias.then(|| bias_buffer.all()),
            out: out.all(),
            epilogue,
            m,
            n,
            k,
        })?;
        pass.finish()?.wait()?;
        gpu.set_hopper_gemm(true);
        let family = match epilogue {
            Epilogue::None => "gemm",
            Epilogue::Gelu => "gemm_gelu",
            Epilogue::F32 => "gemm_out_f32",
        };
        let kernel = format!("{family}{}_{number}", if hopper { "_sm90" } else { "" });
        let found = downloaded(&out, out_number, m * n)?;
        let written = found.par_iter().all(|number| number.is_finite());
        checks.require(&kernel, written, || format!("{described}: a number is not finite"));
        let of_sample: Vec<f32> = sampled.iter().flat_map(|&row| &found[row * n..(row + 1) * n]).copied().collect();
        checks.compare(&kernel, &described, out_number, &of_sample, &expected);
        if let Some(other) = outputs.first() {
            // Every number, against the other family: only the order of the sums differs.
            let other: Vec<f64> = other.par_iter().map(|&number| f64::from(number)).collect();
            checks.add(
                &kernel,
                &format!("{described} compared with mma"),
                Distance::between(&found, &other),
                tolerance(number),
            );
        }
        outputs.push(found);
    }
    Ok(())
}

fn linear(checks: &mut Checks<'_>, number: NumberType, shape: Shape) -> Result<()> {
    let Shape { m, n, k } = shape;
    let [x, w, bias] = formulas(number, NumberType::F32, shape);
    let gpu = std::sync::Arc::clone(&checks.gpu);
    let x_buffer = filled(&gpu, &x, m * k, m * k)?;
    let w_buffer = filled(&gpu, &w, n * k, n * k)?;
    let bias_buffer = filled(&gpu, &bias, n, n)?;
    let sampled = sample(m, SAMPLED_ROWS);
    for activation in [Activation::None, Activation::Gelu, Activation::Tanh] {
        let described = format!("{m}x{n}x{k} {activation:?}");
        checks.report.doing(format_args!("a linear map in {number}, {described}"));
        let has_bias = activation != Activation::None;
        let out = poisoned(&gpu, NumberType::F32, m * n)?;
        let mut pass = gpu.begin()?;
        pass.linear(&Linear {
            number,
            x: x_buffer.all(),
            w: w_buffer.all(),
            bias: has_bias.then(|| bias_buffer.all()),
            out: out.all(),
            activation,
            m,
            n,
            k,
        })?;
        pass.finish()?.wait()?;
        let operands = Operands {
            x,
            w: (0..n * k).into_par_iter().map(|index| w.at(index)).collect(),
            bias: has_bias.then_some(bias),
            shape,
        };
        let activate = |sum: f64| match activation {
            Activation::None => sum,
            Activation::Gelu => gelu(sum),
            Activation::Tanh => sum.tanh(),
        };
        let expected: Vec<f64> = sampled.iter().flat_map(|&row| operands.row(row)).map(activate).collect();
        let found = downloaded(&out, NumberType::F32, m * n)?;
        let of_sample: Vec<f32> = sampled.iter().flat_map(|&row| &found[row * n..(row + 1) * n]).copied().collect();
        checks.compare(&format!("linear_{number}"), &described, NumberType::F32, &of_sample, &expected);
    }
    Ok(())
}
