//! Checks that a sequence has the same bits alone and in every batch.

use anyhow::{Result, ensure};
use clap::Args;
use polylance_encoder::{ModelConfig, PackedBatch, SentenceEncoder};
use polylance_schema::Dtype;
use rayon::prelude::*;
use serde_json::json;

use super::{Context, synthetic};
use crate::{
    formula::Random,
    geometry::Geometry,
    workload::{Batch, ids},
};

/// Options of the step.
#[derive(Debug, Args)]
pub(crate) struct BatchingsArguments {
    /// The model's sizes
    #[arg(long, value_enum, default_value_t = Geometry::Xl)]
    geometry: Geometry,
    /// How many layers; a few of a large model
    #[arg(long)]
    layers: Option<usize>,
    /// The arithmetic
    #[arg(long, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
    /// Sequences
    #[arg(long, default_value_t = 64)]
    sequences: usize,
    /// The longest sequence; the model's limit unless given
    #[arg(long)]
    longest: Option<usize>,
    /// Batches that the sequences are put into
    #[arg(long, default_value_t = 20)]
    batches: usize,
    /// Tokens of the largest batch
    #[arg(long, default_value_t = 32_768)]
    tokens: usize,
}

/// A sequence's vector and states, as bits.
type Bits = (Vec<u32>, Vec<u32>);

/// Computes the sequences alone and in batches.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>, arguments: &BatchingsArguments) -> Result<()> {
    let &BatchingsArguments { geometry, layers, dtype, sequences, longest, batches, tokens } = arguments;
    let report = context.report;
    let gpu = context.open()?;
    let config = geometry.config(Some(layers.unwrap_or_else(|| geometry.layers_of_a_check())));
    report.doing(format_args!("making {geometry}"));
    let model = synthetic(&gpu, &config, dtype, Some(tokens))?;
    let mut random = Random::new(1);
    let rows = random_rows(&config, sequences, longest.unwrap_or_else(|| config.max_tokens()), &mut random);

    report.doing("computing each sequence alone");
    let mut alone: Vec<Bits> = Vec::with_capacity(rows.len());
    for row in &rows {
        alone.extend(compute(&model, std::slice::from_ref(row))?);
        report.progress();
    }
    let finite = alone.iter().flat_map(|(vector, states)| vector.iter().chain(states));
    let finite = finite.map(|&bits| f32::from_bits(bits)).all(f32::is_finite);
    report.check("alone", finite, format_args!("{sequences} sequences, all numbers finite: {finite}"), finite);
    for round in 1..=2 {
        let mut worst = 0;
        let (mut compared, mut smallest, mut largest) = (0, usize::MAX, 0);
        for number in 0..batches {
            let members = members(&rows, target(number, batches, tokens), &mut random);
            let batch: Vec<Vec<u32>> = members.iter().map(|&member| rows[member].clone()).collect();
            let ids = batch.iter().map(Vec::len).sum();
            (smallest, largest) = (smallest.min(ids), largest.max(ids));
            report.doing(format_args!("round {round}, a batch of {ids} tokens"));
            let found = compute(&model, &batch)?;
            ensure!(found.len() == members.len(), "{} vectors for {} sequences", found.len(), members.len());
            worst += found.par_iter().zip(&members).filter(|(found, member)| **found != alone[**member]).count();
            compared += members.len();
        }
        report.check(
            &format!("round {round}"),
            worst == 0,
            format_args!("{worst} of {compared} differ, in {batches} batches of {smallest} to {largest} tokens"),
            json!({
                "differ": worst, "compared": compared, "batches": batches, "smallest": smallest, "largest": largest,
                "geometry": geometry.to_string(), "layers": config.num_hidden_layers, "dtype": dtype.to_string(),
            }),
        );
    }
    Ok(())
}

/// Rows of random lengths, and of lengths around the borders of tiles.
fn random_rows(config: &ModelConfig, count: usize, longest: usize, random: &mut Random) -> Vec<Vec<u32>> {
    const BORDERS: [usize; 13] = [1, 2, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512];
    let borders: Vec<usize> = BORDERS.into_iter().filter(|&length| length <= longest).collect();
    let length = |at: usize, random: &mut Random| borders.get(at).copied().unwrap_or_else(|| 1 + random.below(longest));
    (0..count).map(|at| ids(config, at, length(at, random))).collect()
}

/// The tokens of a batch: from 1 to the largest number, in geometric steps.
fn target(number: usize, batches: usize, tokens: usize) -> usize {
    let share = number as f64 / (batches.max(2) - 1) as f64;
    (tokens as f64).powf(share).round() as usize
}

/// Sequences in random order with at most `target` tokens together, but at least one sequence. They repeat when all
/// have been taken.
fn members(rows: &[Vec<u32>], target: usize, random: &mut Random) -> Vec<usize> {
    let mut members = Vec::new();
    let mut used = 0;
    loop {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        random.shuffle(&mut order);
        let before = members.len();
        for member in order {
            if used + rows[member].len() <= target {
                used += rows[member].len();
                members.push(member);
            }
        }
        if members.len() == before {
            break;
        }
    }
    if members.is_empty() {
        members.push(random.below(rows.len()));
    }
    members
}

/// The bits of each sequence.
fn compute(model: &SentenceEncoder, rows: &[Vec<u32>]) -> Result<Vec<Bits>> {
    let batch: PackedBatch = Batch::new(rows)?.packed;
    let vectors = model.embed(&batch)?;
    let states = model.hidden_states(&batch)?.flatten_all()?.to_vec1::<f32>()?;
    let (dim, hidden) = (model.dim(), states.len() / batch.input_ids.len().max(1));
    let bits = |numbers: &[f32]| numbers.iter().map(|number| number.to_bits()).collect::<Vec<_>>();
    let borders: Vec<usize> = batch.cu_seqlens.iter().map(|&border| border as usize * hidden).collect();
    let of_sequences = vectors.par_chunks(dim).zip(borders.par_windows(2));
    Ok(of_sequences.map(|(vector, border)| (bits(vector), bits(&states[border[0]..border[1]]))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_from_one_id_to_the_most() {
        let targets: Vec<usize> = (0..20).map(|number| target(number, 20, 32_768)).collect();
        assert_eq!((targets[0], targets[19]), (1, 32_768));
        assert!(targets.is_sorted());
    }

    #[test]
    fn members_fill_a_batch_and_repeat_only_when_all_are_taken() {
        let rows: Vec<Vec<u32>> = (1..10).map(|length| vec![7; length]).collect();
        let mut random = Random::new(3);
        let all = members(&rows, 45, &mut random);
        assert_eq!(all.len(), 9);
        let ids = |members: &[usize]| members.iter().map(|&member| rows[member].len()).sum::<usize>();
        assert_eq!(ids(&members(&rows, 1, &mut random)), 1);
        assert!(ids(&members(&rows, 100, &mut random)) > 90);
    }
}
