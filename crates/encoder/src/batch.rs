//! Packed batches: sequences one after another, without padding.

use std::ops::Range;

use crate::error::{ModelError, Result};

/// The tokens of all sequences, one after another, and where each sequence begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBatch {
    /// The token ids of all sequences, special tokens included: `[total_tokens]`.
    pub input_ids: Vec<u32>,
    /// Where each sequence begins, and the end of the last: `[sequences + 1]`, ascending from 0.
    pub cu_seqlens: Vec<u32>,
    /// The type of each token, `[total_tokens]`; `None` when all are 0.
    pub token_types: Option<Vec<u32>>,
}

impl PackedBatch {
    /// Packs rows of token ids.
    ///
    /// # Errors
    /// [`ModelError::Input`] for an empty row, and for more than `u32::MAX` tokens in all.
    ///
    /// ```
    /// let batch = polylance_encoder::PackedBatch::new(&[vec![0, 5, 2], vec![0, 2]])?;
    /// assert_eq!(batch.input_ids, [0, 5, 2, 0, 2]);
    /// assert_eq!(batch.cu_seqlens, [0, 3, 5]);
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn new(rows: &[Vec<u32>]) -> Result<Self> {
        let mut input_ids = Vec::with_capacity(rows.iter().map(Vec::len).sum());
        let mut cu_seqlens = Vec::with_capacity(rows.len() + 1);
        cu_seqlens.push(0);
        for (sequence, row) in rows.iter().enumerate() {
            if row.is_empty() {
                return Err(ModelError::Input { sequence, message: "it has no tokens".to_owned() });
            }
            input_ids.extend_from_slice(row);
            let end = u32::try_from(input_ids.len()).map_err(|_| ModelError::Input {
                sequence,
                message: format!("the batch has {} tokens, more than {}", input_ids.len(), u32::MAX),
            })?;
            cu_seqlens.push(end);
        }
        Ok(Self { input_ids, cu_seqlens, token_types: None })
    }

    /// Packs rows of token ids with the type of each token: BERT marks the second text of a pair with 1.
    ///
    /// # Errors
    /// As [`PackedBatch::new`], and for a row with more or fewer types than tokens.
    ///
    /// ```
    /// let batch = polylance_encoder::PackedBatch::with_token_types(&[vec![0, 5, 2]], &[vec![0, 0, 1]])?;
    /// assert_eq!(batch.token_types, Some(vec![0, 0, 1]));
    /// # Ok::<(), polylance_encoder::ModelError>(())
    /// ```
    pub fn with_token_types(rows: &[Vec<u32>], types: &[Vec<u32>]) -> Result<Self> {
        let refuse = |sequence, message| Err(ModelError::Input { sequence, message });
        if rows.len() != types.len() {
            let sequence = rows.len().min(types.len());
            return refuse(sequence, format!("{} rows of tokens, {} of token types", rows.len(), types.len()));
        }
        if let Some(sequence) = rows.iter().zip(types).position(|(row, types)| row.len() != types.len()) {
            let (ids, types) = (rows[sequence].len(), types[sequence].len());
            return refuse(sequence, format!("{ids} tokens, {types} token types"));
        }
        Ok(Self { token_types: Some(types.concat()), ..Self::new(rows)? })
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.cu_seqlens.len().saturating_sub(1)
    }

    /// Cuts the batch between sequences into parts of at most `max_tokens` tokens; a longer sequence is a part of its
    /// own, and a batch without sequences is one part. `cu_seqlens` are the checked borders of this batch.
    pub(crate) fn parts(&self, cu_seqlens: &CuSeqlens, max_tokens: usize) -> Vec<BatchPart> {
        let borders = cu_seqlens.as_slice();
        let (mut parts, mut first) = (Vec::new(), 0);
        for next in 1..borders.len() {
            let is_last = next + 1 == borders.len();
            if is_last || (borders[next + 1] - borders[first]) as usize > max_tokens {
                parts.push(self.part(&borders[first..=next], first));
                first = next;
            }
        }
        if parts.is_empty() {
            parts.push(self.part(borders, 0));
        }
        parts
    }

    /// The part with these borders, which begins at the sequence `first_sequence`.
    fn part(&self, borders: &[u32], first_sequence: usize) -> BatchPart {
        let (start, end) = (borders[0] as usize, borders[borders.len() - 1] as usize);
        let of_part = |types: &Vec<u32>| types[start.min(types.len())..end.min(types.len())].to_vec();
        BatchPart {
            batch: Self {
                input_ids: self.input_ids[start..end].to_vec(),
                cu_seqlens: borders.iter().map(|border| border - borders[0]).collect(),
                token_types: self.token_types.as_ref().map(of_part),
            },
            first_sequence,
            first_token: start,
        }
    }
}

/// Neighbouring sequences of a batch, as a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchPart {
    pub(crate) batch: PackedBatch,
    /// Sequences and tokens of the whole batch before it.
    pub(crate) first_sequence: usize,
    pub(crate) first_token: usize,
}

/// Checked borders of the sequences in a packed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CuSeqlens(Vec<u32>);

impl CuSeqlens {
    /// Checks borders against the number of tokens.
    ///
    /// # Errors
    /// [`ModelError::Input`] when they do not ascend strictly from 0 to `total_tokens`.
    pub fn new(cu_seqlens: Vec<u32>, total_tokens: usize) -> Result<Self> {
        let refuse = |sequence, message: String| Err(ModelError::Input { sequence, message });
        if cu_seqlens.first() != Some(&0) {
            return refuse(0, "cu_seqlens does not begin with 0".to_owned());
        }
        if let Some(sequence) = cu_seqlens.windows(2).position(|pair| pair[0] >= pair[1]) {
            return refuse(sequence, "cu_seqlens does not ascend: a sequence has no tokens".to_owned());
        }
        match cu_seqlens.last() {
            Some(&end) if end as usize == total_tokens => Ok(Self(cu_seqlens)),
            end => refuse(
                cu_seqlens.len() - 1,
                format!("cu_seqlens ends at {}, the batch has {total_tokens} tokens", end.copied().unwrap_or(0)),
            ),
        }
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.0.len() - 1
    }

    /// Tokens of each sequence, in order.
    pub fn ranges(&self) -> impl ExactSizeIterator<Item = Range<usize>> + '_ {
        self.0.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
    }

    /// The borders themselves: `[sequences + 1]`.
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Where each sequence begins: `[sequences]`.
    pub(crate) fn starts(&self) -> &[u32] {
        &self.0[..self.sequences()]
    }

    /// Length of the longest sequence.
    pub fn longest(&self) -> usize {
        self.ranges().map(|range| range.len()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_must_ascend_from_zero_to_the_end() {
        assert!(CuSeqlens::new(vec![0, 3, 5], 5).is_ok());
        assert!(CuSeqlens::new(vec![0], 0).is_ok());
        for (borders, total) in [(vec![], 0), (vec![1, 2], 2), (vec![0, 3, 3], 3), (vec![0, 4, 3], 3), (vec![0, 3], 4)]
        {
            assert!(CuSeqlens::new(borders.clone(), total).is_err(), "{borders:?} of {total}");
        }
    }

    #[test]
    fn parts_are_cut_between_sequences() {
        let rows: Vec<Vec<u32>> = [3, 2, 9, 1, 1, 4].iter().zip(1..).map(|(len, id)| vec![id; *len]).collect();
        let batch = PackedBatch::with_token_types(&rows, &rows).unwrap();
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), 20).unwrap();
        let starts = |max_tokens| {
            let parts = batch.parts(&cu_seqlens, max_tokens);
            let joined: Vec<u32> = parts.iter().flat_map(|part| part.batch.input_ids.clone()).collect();
            assert_eq!(joined, batch.input_ids);
            for part in &parts {
                let rows = &rows[part.first_sequence..][..part.batch.sequences()];
                assert_eq!(part.batch, PackedBatch::with_token_types(rows, rows).unwrap());
            }
            parts.iter().map(|part| (part.first_sequence, part.first_token)).collect::<Vec<_>>()
        };
        assert_eq!(starts(5), [(0, 0), (2, 5), (3, 14), (5, 16)]);
        assert_eq!(starts(1), [(0, 0), (1, 3), (2, 5), (3, 14), (4, 15), (5, 16)]);
        assert_eq!(starts(20), [(0, 0)]);
        let empty = PackedBatch::new(&[]).unwrap();
        assert_eq!(empty.parts(&CuSeqlens::new(vec![0], 0).unwrap(), 5)[0].batch, empty);
    }

    #[test]
    fn empty_row_is_refused() {
        let error = PackedBatch::new(&[vec![1], vec![]]).unwrap_err();
        assert_eq!(error.to_string(), "sequence 1: it has no tokens");
    }

    #[test]
    fn token_types_must_match_the_tokens() {
        let refused = |types: &[Vec<u32>]| PackedBatch::with_token_types(&[vec![1], vec![2, 3]], types).unwrap_err();
        assert_eq!(refused(&[vec![0], vec![0]]).to_string(), "sequence 1: 2 tokens, 1 token types");
        assert_eq!(refused(&[vec![0]]).to_string(), "sequence 1: 2 rows of tokens, 1 of token types");
    }
}
