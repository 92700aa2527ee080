//! Weights by formula, pooling, and selection of rows.

use std::sync::Arc;

use anyhow::Result;
use polylance_cuda::{
    NumberType,
    ops::{GatherRows, GatherRowsF32, Pool, PoolMode},
};
use rayon::prelude::*;

use super::{Checks, NUMBER_TYPES, Shapes};
use crate::{
    arrays::{downloaded, filled, poisoned, uploaded},
    formula::{Formula, Random, rounded},
};

/// The formula to the bit: everything else builds on it.
pub(super) fn check_fill(checks: &mut Checks<'_>) -> Result<()> {
    let counts = if checks.shapes == Shapes::All { vec![1, 7, 1001, 20_000_003] } else { vec![1, 7, 1001] };
    for number in NUMBER_TYPES {
        for &count in &counts {
            checks.report.doing(format_args!("filling {count} numbers in {number}"));
            let formula = Formula { offset: 0.25, ..Formula::new(number, count as u64, 1.5) };
            let buffer = filled(&checks.gpu, &formula, count, count)?;
            let found = downloaded(&buffer, number, count)?;
            let differs = |(index, found): (usize, &f32)| found.to_bits() != formula.at(index).to_bits();
            let different = found.par_iter().enumerate().filter(|&pair| differs(pair)).count();
            let reason = || format!("{different} of {count} numbers are not those of the formula");
            checks.require(&format!("fill_{number}"), different == 0, reason);
        }
    }
    Ok(())
}

pub(super) fn check(checks: &mut Checks<'_>) -> Result<()> {
    let mut shapes = vec![(vec![1, 3, 20, 2], 24), (vec![17, 1, 40], 384)];
    if checks.shapes == Shapes::All {
        let mut random = Random::new(71);
        shapes.push(((0..100).map(|_| 1 + random.below(512)).collect(), 2560));
        shapes.push((vec![5, 300], 8192));
    }
    for (lengths, hidden) in shapes {
        pool(checks, &lengths, hidden)?;
        gather(checks, lengths.iter().sum(), hidden)?;
    }
    Ok(())
}

const MODES: [PoolMode; 6] =
    [PoolMode::Cls, PoolMode::Mean, PoolMode::Max, PoolMode::MeanSqrtLen, PoolMode::WeightedMean, PoolMode::LastToken];

fn pool(checks: &mut Checks<'_>, lengths: &[usize], hidden: usize) -> Result<()> {
    let gpu = &Arc::clone(&checks.gpu);
    let mut borders = vec![0];
    borders.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    let tokens = borders[lengths.len()];
    let states = Formula { offset: 0.2, ..Formula::new(NumberType::F32, 72, 1.0) };
    let states_buffer = filled(gpu, &states, tokens * hidden, tokens * hidden)?;
    let cu_seqlens = uploaded(gpu, &borders.iter().map(|&border| border as u32).collect::<Vec<_>>())?;
    for mode in MODES {
        // The first columns alone, too: an odd number of them.
        for (dim, normalize) in [(hidden, false), (hidden, true), (hidden / 2 - 1, true)] {
            checks.report.doing(format_args!("pooling {mode:?}, {} sequences, {dim} of {hidden}", lengths.len()));
            let out = poisoned(gpu, NumberType::F32, lengths.len() * dim)?;
            let mut pass = gpu.begin()?;
            pass.pool(&Pool {
                states: states_buffer.all(),
                cu_seqlens: cu_seqlens.all(),
                out: out.all(),
                tokens,
                sequences: lengths.len(),
                hidden,
                dim,
                mode,
                normalize,
            })?;
            pass.finish()?.wait()?;
            let found = downloaded(&out, NumberType::F32, lengths.len() * dim)?;
            let of_sequence = |border: &[usize]| {
                let column = |column| pooled(&states, border[0]..border[1], hidden, column, mode);
                let mut vector: Vec<f64> = (0..dim).map(column).collect();
                if normalize {
                    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-12);
                    for x in &mut vector {
                        *x /= length;
                    }
                }
                vector
            };
            let expected: Vec<f64> = borders.par_windows(2).flat_map_iter(of_sequence).collect();
            let shape = format!("{mode:?}, {} sequences, {dim} of {hidden}", lengths.len());
            checks.compare("pool", &shape, NumberType::F32, &found, &expected);
        }
    }
    Ok(())
}

/// One column of a sequence's vector.
fn pooled(states: &Formula, tokens: std::ops::Range<usize>, hidden: usize, column: usize, mode: PoolMode) -> f64 {
    let count = tokens.len() as f64;
    let number = |token: usize| f64::from(states.at(token * hidden + column));
    let sum = || tokens.clone().map(number).sum::<f64>();
    match mode {
        PoolMode::Cls => number(tokens.start),
        PoolMode::LastToken => number(tokens.end - 1),
        PoolMode::Max => tokens.map(number).fold(f64::NEG_INFINITY, f64::max),
        PoolMode::Mean => sum() / count,
        PoolMode::MeanSqrtLen => sum() / count.sqrt(),
        PoolMode::WeightedMean => {
            let weighted: f64 = tokens.enumerate().map(|(at, token)| (at + 1) as f64 * number(token)).sum();
            weighted / (count * (count + 1.0) / 2.0)
        }
    }
}

fn gather(checks: &mut Checks<'_>, tokens: usize, hidden: usize) -> Result<()> {
    let gpu = &Arc::clone(&checks.gpu);
    let states = Formula::new(NumberType::F32, 73, 2.0);
    let states_buffer = filled(gpu, &states, tokens * hidden, tokens * hidden)?;
    let mut random = Random::new(tokens as u64);
    let rows: Vec<usize> = (0..tokens.min(301)).map(|_| random.below(tokens)).collect();
    let row_numbers = uploaded(gpu, &rows.iter().map(|&row| row as u32).collect::<Vec<_>>())?;
    let (count, shape) = (rows.len(), format!("{} of {tokens} rows of {hidden}", rows.len()));
    let mut outputs: Vec<(String, NumberType)> =
        NUMBER_TYPES.iter().map(|&number| (format!("gather_rows_{number}"), number)).collect();
    outputs.push(("gather_rows_out_f32".to_owned(), NumberType::F32));
    for (at, (kernel, number)) in outputs.into_iter().enumerate() {
        checks.report.doing(format_args!("{kernel}, {shape}"));
        let out = poisoned(gpu, number, count * hidden)?;
        let mut pass = gpu.begin()?;
        let (from, rows_on_device) = (states_buffer.all(), row_numbers.all());
        if at < NUMBER_TYPES.len() {
            pass.gather_rows(&GatherRows { number, states: from, rows: rows_on_device, x: out.all(), count, hidden })?;
        } else {
            pass.gather_rows_f32(&GatherRowsF32 { states: from, rows: rows_on_device, out: out.all(), count, hidden })?;
        }
        pass.finish()?.wait()?;
        let found = downloaded(&out, number, count * hidden)?;
        let expected = |index: usize| rounded(number, states.at(rows[index / hidden] * hidden + index % hidden));
        let different = found.iter().enumerate().filter(|(index, found)| found.to_bits() != expected(*index).to_bits());
        let different = different.count();
        checks.require(&kernel, different == 0, || format!("{shape}: {different} numbers differ"));
    }
    Ok(())
}
