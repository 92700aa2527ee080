//! Embeddings and layer norms.

use anyhow::Result;
use polylance_cuda::{
    DeviceBuffer, NumberType,
    ops::{AddNorm, Embed, Norm, NormRows, Placement},
};
use rayon::prelude::*;

use super::{Checks, NUMBER_TYPES, Shapes, sample};
use crate::{
    arrays::{downloaded, filled, poisoned, uploaded},
    formula::{Formula, Random},
};

const EPS: f32 = 1e-5;

/// Where the norm stands; as [`Placement`], without its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Pre,
    Post,
    None,
}

/// The norm's weights: here and on the device.
struct Weights {
    weight: Formula,
    bias: Formula,
    on_device: [DeviceBuffer; 2],
    hidden: usize,
}

impl Weights {
    fn new(checks: &Checks<'_>, hidden: usize) -> Result<Self> {
        let weight = Formula { offset: 1.0, ..Formula::new(NumberType::F32, 11, 0.5) };
        let bias = Formula::new(NumberType::F32, 12, 0.5);
        let on_device = [filled(&checks.gpu, &weight, hidden, hidden)?, filled(&checks.gpu, &bias, hidden, hidden)?];
        Ok(Self { weight, bias, on_device, hidden })
    }

    fn norm(&self) -> Norm<'_> {
        let [weight, bias] = &self.on_device;
        Norm { weight: weight.all(), bias: bias.all(), eps: EPS }
    }

    fn placement(&self, place: Place) -> Placement<'_> {
        match place {
            Place::Pre => Placement::Pre(self.norm()),
            Place::Post => Placement::Post(self.norm()),
            Place::None => Placement::None,
        }
    }

    /// The norm of a row.
    fn apply(&self, row: &[f64]) -> Vec<f64> {
        let count = row.len() as f64;
        let mean = row.iter().sum::<f64>() / count;
        let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
        let weights = (0..self.hidden).map(|at| (f64::from(self.weight.at(at)), f64::from(self.bias.at(at))));
        row.iter().zip(weights).map(|(x, (weight, bias))| (x - mean) * scale * weight + bias).collect()
    }
}

/// A row's expected states and input of the next map.
fn placed(weights: &Weights, place: Place, sum: Vec<f64>) -> [Vec<f64>; 2] {
    match place {
        Place::Pre => {
            let normed = weights.apply(&sum);
            [sum, normed]
        }
        Place::Post => {
            let normed = weights.apply(&sum);
            [normed.clone(), normed]
        }
        Place::None => [sum.clone(), sum],
    }
}

pub(super) fn check(checks: &mut Checks<'_>) -> Result<()> {
    // One for each size that `add_norm` is compiled for, and rows that do not fill theirs.
    let mut shapes = vec![(5, 8), (7, 384), (3, 520), (9, 1024), (2, 1544)];
    if checks.shapes == Shapes::All {
        shapes.extend([(1, 2560), (16_307, 2560), (5, 4096), (3, 8192)]);
    }
    for (rows, hidden) in shapes {
        for number in NUMBER_TYPES {
            checks.report.doing(format_args!("norms in {number}, {rows} rows of {hidden}"));
            for place in [Place::Pre, Place::Post, Place::None] {
                let case = Case { number, rows, hidden, place };
                add_norm(checks, case)?;
                embed(checks, case)?;
            }
            norm_rows(checks, number, rows, hidden)?;
        }
    }
    Ok(())
}

/// Rows that are compared.
const SAMPLED_ROWS: usize = 64;

/// A launch of a kernel that norms sums.
#[derive(Debug, Clone, Copy)]
struct Case {
    number: NumberType,
    rows: usize,
    hidden: usize,
    place: Place,
}

/// Compares both outputs of a kernel, states and `x`; `sum` gives a row's expected sum.
fn compare(
    checks: &mut Checks<'_>,
    kernel: &str,
    case: Case,
    weights: &Weights,
    [states, x]: [&DeviceBuffer; 2],
    sum: impl Fn(usize) -> Vec<f64> + Sync,
) -> Result<()> {
    let Case { number, rows, hidden, place } = case;
    let (kernel, shape) = (&format!("{kernel}_{number}"), &format!("{rows}x{hidden} {place:?}"));
    let sampled = sample(rows, SAMPLED_ROWS);
    let expected: Vec<[Vec<f64>; 2]> = sampled.par_iter().map(|&row| placed(weights, place, sum(row))).collect();
    for (output, (buffer, number)) in [(states, NumberType::F32), (x, number)].into_iter().enumerate() {
        let found = downloaded(buffer, number, rows * hidden)?;
        let written = found.par_iter().all(|number| number.is_finite());
        checks.require(kernel, written, || format!("{shape}: a number is not finite"));
        let found: Vec<f32> =
            sampled.iter().flat_map(|&row| &found[row * hidden..(row + 1) * hidden]).copied().collect();
        let expected: Vec<f64> = expected.iter().flat_map(|outputs| &outputs[output]).copied().collect();
        checks.compare(kernel, shape, number, &found, &expected);
    }
    Ok(())
}

fn add_norm(checks: &mut Checks<'_>, case: Case) -> Result<()> {
    let Case { number, rows, hidden, place } = case;
    let gpu = &checks.gpu;
    let weights = Weights::new(checks, hidden)?;
    let [states, y, bias] = [
        Formula { offset: 0.3, ..Formula::new(NumberType::F32, 21, 3.0) },
        Formula::new(number, 22, 1.0),
        Formula::new(NumberType::F32, 23, 0.5),
    ];
    let count = rows * hidden;
    let states_buffer = filled(gpu, &states, count, count)?;
    let y_buffer = filled(gpu, &y, count, count)?;
    let bias_buffer = filled(gpu, &bias, hidden, hidden)?;
    let x = poisoned(gpu, number, count)?;
    // Operands that may be left out are left out where there is no norm.
    let has_all = place != Place::None;
    let mut pass = gpu.begin()?;
    pass.add_norm(&AddNorm {
        number,
        y: Some(y_buffer.all()),
        bias: has_all.then(|| bias_buffer.all()),
        placement: weights.placement(place),
        states: states_buffer.all(),
        x: Some(x.all()),
        tokens: rows,
        hidden,
    })?;
    pass.finish()?.wait()?;
    let sum = |row: usize| -> Vec<f64> {
        let bias = |at: usize| if has_all { f64::from(bias.at(at)) } else { 0.0 };
        let at = |column: usize| row * hidden + column;
        (0..hidden).map(|c| f64::from(states.at(at(c))) + f64::from(y.at(at(c))) + bias(c)).collect()
    };
    compare(checks, "add_norm", case, &weights, [&states_buffer, &x], sum)
}

fn embed(checks: &mut Checks<'_>, case: Case) -> Result<()> {
    const WORDS: usize = 300;
    const POSITIONS: usize = 40;
    const TYPES: usize = 2;
    let Case { number, rows, hidden, place } = case;
    let gpu = &checks.gpu;
    let weights = Weights::new(checks, hidden)?;
    let tables = [(WORDS, 31), (POSITIONS, 32), (TYPES, 33)];
    let formulas = tables.map(|(_, seed)| Formula::new(number, seed, 1.0));
    let mut buffers = Vec::with_capacity(tables.len());
    for ((count, _), formula) in tables.into_iter().zip(&formulas) {
        buffers.push(filled(gpu, formula, count * hidden, count * hidden)?);
    }
    let mut random = Random::new((rows * hidden) as u64);
    let mut words = |below: usize| -> Vec<u32> { (0..rows).map(|_| random.below(below) as u32).collect() };
    let (ids, positions, types) = (words(WORDS), words(POSITIONS), words(TYPES));
    // Without types every token has the first.
    let has_types = place != Place::Pre;
    let indices = [uploaded(gpu, &ids)?, uploaded(gpu, &positions)?, uploaded(gpu, &types)?];
    let states = poisoned(gpu, NumberType::F32, rows * hidden)?;
    let x = poisoned(gpu, number, rows * hidden)?;
    let mut pass = gpu.begin()?;
    pass.embed(&Embed {
        number,
        words: buffers[0].all(),
        position_table: buffers[1].all(),
        type_table: buffers[2].all(),
        ids: indices[0].all(),
        positions: indices[1].all(),
        types: has_types.then(|| indices[2].all()),
        placement: weights.placement(place),
        states: states.all(),
        x: Some(x.all()),
        tokens: rows,
        hidden,
    })?;
    pass.finish()?.wait()?;
    let sum = |row: usize| -> Vec<f64> {
        let of_type = if has_types { types[row] } else { 0 };
        let rows = [ids[row], positions[row], of_type].map(|row| row as usize * hidden);
        let at = |column: usize| rows.iter().zip(&formulas).map(|(row, table)| f64::from(table.at(row + column))).sum();
        (0..hidden).map(at).collect()
    };
    compare(checks, "embed", case, &weights, [&states, &x], sum)
}

fn norm_rows(checks: &mut Checks<'_>, number: NumberType, rows: usize, hidden: usize) -> Result<()> {
    let gpu = &checks.gpu;
    let weights = Weights::new(checks, hidden)?;
    let y = Formula { offset: 0.5, ..Formula::new(number, 41, 2.0) };
    let y_buffer = filled(gpu, &y, rows * hidden, rows * hidden)?;
    let x = poisoned(gpu, number, rows * hidden)?;
    let mut pass = gpu.begin()?;
    pass.norm_rows(&NormRows { number, y: y_buffer.all(), norm: weights.norm(), x: x.all(), rows, hidden })?;
    pass.finish()?.wait()?;
    let sampled = sample(rows, SAMPLED_ROWS);
    let of_row = |&row: &usize| {
        let numbers: Vec<f64> = (0..hidden).map(|column| f64::from(y.at(row * hidden + column))).collect();
        weights.apply(&numbers)
    };
    let expected: Vec<f64> = sampled.par_iter().flat_map_iter(of_row).collect();
    let found = downloaded(&x, number, rows * hidden)?;
    let found: Vec<f32> = sampled.iter().flat_map(|&row| &found[row * hidden..(row + 1) * hidden]).copied().collect();
    checks.compare(&format!("norm_rows_{number}"), &format!("{rows}x{hidden}"), number, &found, &expected);
    Ok(())
}
