//! Softmax attention within packed sequences, in every head size.

use anyhow::Result;
use polylance_cuda::{NumberType, ops::Attention};
use rayon::prelude::*;

use super::{Checks, Shapes};
use crate::{
    arrays::{downloaded, filled, poisoned, uploaded},
    formula::{Formula, Random},
};

/// Query rows of a tile.
const TILE_ROWS: usize = 64;

/// Packed sequences, and the heads over them.
#[derive(Debug, Clone)]
struct Case {
    number: NumberType,
    heads: usize,
    head_size: usize,
    lengths: Vec<usize>,
    causal: bool,
    /// The first query row of each sequence: those before are of an earlier pass.
    first: usize,
}

pub(super) fn check(checks: &mut Checks<'_>) -> Result<()> {
    let large = checks.shapes == Shapes::All;
    let lengths = if large { vec![1, 64, 65, 200, 2, 63, 512, 130] } else { vec![1, 64, 70, 2] };
    let (heads, first) = (2, 0);
    for causal in [false, true] {
        for number in [NumberType::Bf16, NumberType::F16] {
            for head_size in [32, 64, 80, 96, 128] {
                let lengths = lengths.clone();
                attention(checks, &Case { number, heads, head_size, lengths, causal, first })?;
            }
        }
        // f32 supports heads of any size.
        for head_size in [8, 24, 64, 80, 128] {
            let (number, lengths) = (NumberType::F32, lengths.clone());
            attention(checks, &Case { number, heads, head_size, lengths, causal, first })?;
        }
    }
    // A continued text: the queries of a tile begin at any row.
    for (number, head_size) in [(NumberType::Bf16, 64), (NumberType::F16, 80), (NumberType::F32, 24)] {
        attention(checks, &Case { number, heads, head_size, lengths: vec![100], causal: true, first: 37 })?;
    }
    if large {
        let mut random = Random::new(61);
        let mixed: Vec<usize> = (0..64).map(|_| 1 + random.below(512)).collect();
        for lengths in [mixed, vec![128; 128], vec![512; 32]] {
            let number = NumberType::Bf16;
            attention(checks, &Case { number, heads: 32, head_size: 80, lengths, causal: false, first })?;
        }
    }
    Ok(())
}

fn attention(checks: &mut Checks<'_>, case: &Case) -> Result<()> {
    let &Case { number, heads, head_size, ref lengths, causal, first } = case;
    let described = format!(
        "{} sequences of up to {}, {heads} heads{}",
        lengths.len(),
        lengths.iter().max().copied().unwrap_or_default(),
        if causal { ", causal" } else { "" }
    );
    checks.report.doing(format_args!("attention in {number} with heads of {head_size}, {described}"));
    let mut borders = vec![0];
    let mut tiles: Vec<[u32; 2]> = Vec::new();
    for (sequence, &length) in lengths.iter().enumerate() {
        borders.push(borders[sequence] + length);
        tiles.extend((first..length).step_by(TILE_ROWS).map(|row| [sequence as u32, row as u32]));
    }
    let tokens = borders[lengths.len()];
    let gpu = &checks.gpu;
    let width = heads * head_size;
    // Large enough that some keys count more than others.
    let qkv = Formula::new(number, 62, 2.0);
    let qkv_buffer = filled(gpu, &qkv, tokens * 3 * width, tokens * 3 * width)?;
    let cu_seqlens = uploaded(gpu, &borders.iter().map(|&border| border as u32).collect::<Vec<_>>())?;
    let tile_list = uploaded(gpu, tiles.as_flattened())?;
    let out = poisoned(gpu, number, (tokens * width).next_multiple_of(8))?;
    let scale = 1.0 / (head_size as f32).sqrt();
    let mut pass = gpu.begin()?;
    pass.attention(&Attention {
        number,
        qkv: qkv_buffer.all(),
        cu_seqlens: cu_seqlens.all(),
        tile_list: tile_list.all(),
        out: out.all(),
        tokens,
        sequences: lengths.len(),
        tiles: tiles.len(),
        heads,
        head_size,
        scale,
        causal,
    })?;
    pass.finish()?.wait()?;
    let found = downloaded(&out, number, tokens * width)?;

    let kernel = match number {
        NumberType::F32 => "attention_f32".to_owned(),
        _ => format!("attention_{number}_{head_size}"),
    };
    // Rows before the first query are not written, all others are.
    let is_query = |token: usize| {
        let sequence = borders.partition_point(|&border| border <= token) - 1;
        token - borders[sequence] >= first
    };
    let of_token = |(token, row): (usize, &[f32])| {
        let query = is_query(token);
        row.iter().all(|number| number.is_finite() == query)
    };
    let written = found.par_chunks(width).enumerate().all(of_token);
    checks
        .require(&kernel, written, || format!("{described}: numbers that are not queries' are written, or others not"));

    let queries = queries(&borders, first, heads);
    let reference = Reference { qkv, heads, head_size, scale: f64::from(scale), causal };
    let expected: Vec<f64> = queries
        .par_iter()
        .flat_map_iter(|query| reference.row([borders[query.sequence], borders[query.sequence + 1]], query))
        .collect();
    let of_query = |query: &Query| {
        let start = (borders[query.sequence] + query.row) * width + query.head * head_size;
        found[start..start + head_size].to_vec()
    };
    let found: Vec<f32> = queries.iter().flat_map(of_query).collect();
    checks.compare(&kernel, &described, number, &found, &expected);
    Ok(())
}

/// A row of the output that is compared.
#[derive(Debug, Clone, Copy)]
struct Query {
    sequence: usize,
    /// Within its sequence.
    row: usize,
    head: usize,
}

/// All queries, or some of many: the last of each sequence, and random ones.
fn queries(borders: &[usize], first: usize, heads: usize) -> Vec<Query> {
    const MAX_COMPARED_PAIRS: usize = 60_000;
    const SAMPLED_QUERIES: usize = 200;
    let sequences = borders.len() - 1;
    let length = |sequence: usize| borders[sequence + 1] - borders[sequence];
    let pairs: usize = (0..sequences).map(|sequence| length(sequence) * length(sequence) * heads).sum();
    if pairs <= MAX_COMPARED_PAIRS {
        let of_sequence = |sequence| (first..length(sequence)).map(move |row| (sequence, row));
        let rows = (0..sequences).flat_map(of_sequence);
        return rows.flat_map(|(sequence, row)| (0..heads).map(move |head| Query { sequence, row, head })).collect();
    }
    let mut random = Random::new(pairs as u64);
    let last = (0..sequences).map(|sequence| Query { sequence, row: length(sequence) - 1, head: sequence % heads });
    let mut queries: Vec<Query> = last.collect();
    for _ in 0..SAMPLED_QUERIES {
        let sequence = random.below(sequences);
        let row = first + random.below(length(sequence) - first);
        queries.push(Query { sequence, row, head: random.below(heads) });
    }
    queries
}

/// Attention in f64.
struct Reference {
    qkv: Formula,
    heads: usize,
    head_size: usize,
    scale: f64,
    causal: bool,
}

impl Reference {
    /// The output of a query of the sequence between two borders.
    fn row(&self, [start, end]: [usize; 2], query: &Query) -> Vec<f64> {
        let width = self.heads * self.head_size;
        // `part` is 0 for queries, 1 for keys, 2 for values.
        let number = |token: usize, part: usize, at: usize| {
            f64::from(self.qkv.at((token * 3 + part) * width + query.head * self.head_size + at))
        };
        let token = start + query.row;
        let q: Vec<f64> = (0..self.head_size).map(|at| number(token, 0, at)).collect();
        let keys = start..if self.causal { token + 1 } else { end };
        let score = |key: usize| self.scale * q.iter().enumerate().map(|(at, q)| q * number(key, 1, at)).sum::<f64>();
        let scores: Vec<f64> = keys.clone().map(score).collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value =
            |at: usize| keys.clone().zip(&weights).map(|(key, weight)| weight * number(key, 2, at)).sum::<f64>();
        (0..self.head_size).map(|at| value(at) / total).collect()
    }
}
