//! Batches of token ids: their lengths and their contents.

use std::{fmt, str::FromStr};

use anyhow::{Result, ensure};
use polylance_encoder::{ModelConfig, PackedBatch};

/// The number of tokens of each article of the Universal Declaration of Human Rights, in all its translations. Written
/// by `gpu/make_lengths.py`.
const UDHR_LENGTHS: &str = include_str!("../../../gpu/udhr-lengths.txt");

/// Adjacent articles have one language, so every n-th article is taken. The stride shares no factor with their number.
const UDHR_STRIDE: usize = 7919;

/// The lengths of sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// All equal.
    Equal(usize),
    /// Those of the articles of the declaration.
    Udhr,
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "udhr" => Ok(Self::Udhr),
            Ok(length) if length > 0 => Ok(Self::Equal(length)),
            _ => Err("expected a number of tokens, or udhr".to_owned()),
        }
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(length) => write!(f, "{length}"),
            Self::Udhr => f.write_str("udhr"),
        }
    }
}

/// The lengths of all articles.
///
/// # Errors
/// When the file has anything but numbers.
fn udhr_lengths() -> Result<Vec<usize>> {
    let lines = UDHR_LENGTHS.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.flat_map(str::split_whitespace).map(str::parse).collect::<Result<_, _>>()?)
}

/// The ids of a sequence, by the formula of the committed goldens, so that other programs can make them too.
pub(crate) fn ids(config: &ModelConfig, sequence: usize, length: usize) -> Vec<u32> {
    const FIRST: u64 = 5;
    let words = (config.vocab_size as u64 - FIRST).max(1);
    (0..length as u64).map(|at| (FIRST + (sequence as u64 * 7919 + at * 104_729) % words) as u32).collect()
}

/// A batch, and the lengths of its sequences.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) packed: PackedBatch,
    pub(crate) lengths: Vec<usize>,
}

impl Batch {
    pub(crate) fn new(rows: &[Vec<u32>]) -> Result<Self> {
        Ok(Self { packed: PackedBatch::new(rows)?, lengths: rows.iter().map(Vec::len).collect() })
    }

    pub(crate) fn tokens(&self) -> usize {
        self.packed.input_ids.len()
    }

    /// The rows of ids.
    pub(crate) fn rows(&self) -> Vec<Vec<u32>> {
        let borders = self.packed.cu_seqlens.windows(2);
        borders.map(|pair| self.packed.input_ids[pair[0] as usize..pair[1] as usize].to_vec()).collect()
    }
}

/// `count` different batches of at most `tokens` tokens.
///
/// # Errors
/// When a sequence does not fit a batch or the model.
pub(crate) fn batches(config: &ModelConfig, lengths: Lengths, tokens: usize, count: usize) -> Result<Vec<Batch>> {
    let longest = config.max_tokens();
    let of_articles = udhr_lengths()?;
    let length_of = |sequence: usize| match lengths {
        Lengths::Equal(length) => length,
        Lengths::Udhr => of_articles[sequence * UDHR_STRIDE % of_articles.len()].min(longest).min(tokens),
    };
    let mut sequence = 0;
    let mut batches = Vec::with_capacity(count);
    for _ in 0..count {
        let mut rows = Vec::new();
        let mut used = 0;
        while used + length_of(sequence) <= tokens {
            let length = length_of(sequence);
            ensure!(length <= longest, "sequences of {length} tokens, the model takes at most {longest}");
            rows.push(ids(config, sequence, length));
            used += length;
            sequence += 1;
        }
        ensure!(!rows.is_empty(), "a batch of {tokens} tokens has no room for a sequence of {lengths}");
        batches.push(Batch::new(&rows)?);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    #[test]
    fn the_lengths_are_those_of_every_article() {
        let lengths = udhr_lengths().unwrap();
        assert_eq!(lengths.len(), 15_803);
        assert!(lengths.iter().all(|length| (3..=512).contains(length)));
        let mean = lengths.iter().sum::<usize>() as f64 / lengths.len() as f64;
        assert!((60.0..160.0).contains(&mean), "{mean}");
        let mut places: Vec<usize> = (0..lengths.len()).map(|at| at * UDHR_STRIDE % lengths.len()).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), lengths.len(), "every article is taken once");
    }

    #[test]
    fn batches_are_full_and_differ() {
        let config = Geometry::Tiny.config(None);
        for (lengths, expected) in [(Lengths::Equal(128), 1024), (Lengths::Udhr, 700)] {
            let batches = batches(&config, lengths, 1100, 3).unwrap();
            assert!(batches.iter().all(|batch| (expected..=1100).contains(&batch.tokens())), "{lengths}");
            assert_ne!(batches[0].packed, batches[1].packed);
            assert_eq!(batches[0].rows().len(), batches[0].lengths.len());
        }
        assert!(batches(&config, Lengths::Equal(600), 1100, 1).is_err());
        assert!(batches(&config, Lengths::Equal(200), 100, 1).is_err());
    }

    #[test]
    fn lengths_are_read_as_they_are_printed() {
        for text in ["128", "udhr"] {
            assert_eq!(text.parse::<Lengths>().unwrap().to_string(), text);
        }
        assert!("0".parse::<Lengths>().is_err() && "long".parse::<Lengths>().is_err());
    }
}
