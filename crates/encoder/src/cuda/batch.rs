//! A packed batch as the kernels read it: one block of 32-bit words, so that it is uploaded at once.

use crate::{
    batch::{CuSeqlens, PackedBatch},
    config::ModelConfig,
    error::{ModelError, Result},
};

/// Query rows that a block of the attention kernel computes.
const ATTENTION_TILE_ROWS: usize = 64;

/// Every part starts at a multiple of this many words, which are 16 bytes.
const PART_ALIGNMENT_WORDS: usize = 4;

/// Words from `start` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: usize,
    pub(super) len: usize,
}

/// The words of a batch, and where its parts begin.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) words: Vec<u32>,
    /// `[tokens]`.
    pub(super) ids: Part,
    /// `[tokens]`: rows of the position embeddings.
    pub(super) positions: Part,
    /// `[tokens]`: rows of the token type embeddings; absent when all types are 0.
    pub(super) types: Option<Part>,
    /// `[sequences + 1]`.
    pub(super) cu_seqlens: Part,
    /// `[tiles, 2]`: a sequence, and the first query row within it.
    pub(super) tiles: Part,
    /// Rows of the states that a head reads.
    pub(super) rows: Part,
}

/// The largest size in words of a block of `tokens` tokens in `sequences` sequences.
pub(super) fn capacity(tokens: usize, sequences: usize) -> usize {
    let tiles = tokens / ATTENTION_TILE_ROWS + sequences;
    // Each of the six parts may be followed by padding.
    4 * tokens + sequences + 1 + 2 * tiles + 6 * PART_ALIGNMENT_WORDS
}

impl Block {
    /// A whole batch. `rows` are rows of the states that a head reads.
    ///
    /// # Errors
    /// [`ModelError::Input`] for a sequence that is too long, or an id or a token type that the model does not have.
    pub(super) fn new(config: &ModelConfig, batch: &PackedBatch, cu_seqlens: &CuSeqlens, rows: &[u32]) -> Result<Self> {
        check(config, batch, cu_seqlens)?;
        let positions = cu_seqlens.ranges().flat_map(|range| config.positions(&batch.input_ids[range]));
        let tiles = cu_seqlens.ranges().enumerate().flat_map(|(sequence, range)| tiles(sequence, 0, range.len()));
        let types = batch.token_types.as_deref().filter(|_| config.type_vocab_size > 1);
        Ok(Self::of(&batch.input_ids, positions, types, cu_seqlens.as_slice(), tiles, rows))
    }

    /// The next tokens of one sequence, after `before` earlier ones; positions count from 0.
    ///
    /// # Errors
    /// As [`Block::new`].
    pub(super) fn next(config: &ModelConfig, ids: &[u32], before: usize) -> Result<Self> {
        check_ids(config, 0, ids)?;
        let total = before + ids.len();
        let positions = (before..total).map(|position| position as u32);
        let (cu_seqlens, rows) = ([0, total as u32], [ids.len() as u32 - 1]);
        Ok(Self::of(ids, positions, None, &cu_seqlens, tiles(0, before, total), &rows))
    }

    fn of(
        ids: &[u32],
        positions: impl Iterator<Item = u32>,
        types: Option<&[u32]>,
        cu_seqlens: &[u32],
        tiles: impl Iterator<Item = [u32; 2]>,
        rows: &[u32],
    ) -> Self {
        let mut words = Vec::with_capacity(capacity(ids.len(), cu_seqlens.len()) + rows.len());
        let mut part = |numbers: &mut dyn Iterator<Item = u32>| {
            let start = words.len();
            words.extend(numbers);
            let len = words.len() - start;
            words.resize(words.len().next_multiple_of(PART_ALIGNMENT_WORDS), 0);
            Part { start, len }
        };
        let ids = part(&mut ids.iter().copied());
        let positions = part(&mut { positions });
        let types = types.map(|types| part(&mut types.iter().copied()));
        let cu_seqlens = part(&mut cu_seqlens.iter().copied());
        let tiles = part(&mut tiles.flatten());
        let rows = part(&mut rows.iter().copied());
        Self { words, ids, positions, types, cu_seqlens, tiles, rows }
    }

    pub(super) fn tokens(&self) -> usize {
        self.ids.len
    }

    pub(super) fn sequences(&self) -> usize {
        self.cu_seqlens.len - 1
    }
}

/// The tiles of a sequence's query rows from `first` to `end`.
fn tiles(sequence: usize, first: usize, end: usize) -> impl Iterator<Item = [u32; 2]> {
    (first..end).step_by(ATTENTION_TILE_ROWS).map(move |row| [sequence as u32, row as u32])
}

fn check(config: &ModelConfig, batch: &PackedBatch, cu_seqlens: &CuSeqlens) -> Result<()> {
    let refuse = |sequence, message| Err(ModelError::Input { sequence, message });
    for (sequence, range) in cu_seqlens.ranges().enumerate() {
        if range.len() > config.max_tokens() {
            let message = format!("{} tokens, the model takes at most {}", range.len(), config.max_tokens());
            return refuse(sequence, message);
        }
        check_ids(config, sequence, &batch.input_ids[range.clone()])?;
        let Some(types) = batch.token_types.as_ref().filter(|_| config.type_vocab_size > 1) else { continue };
        let Some(types) = types.get(range) else {
            return refuse(sequence, format!("the batch has only {} token types", types.len()));
        };
        if let Some(other) = types.iter().find(|&&other| other as usize >= config.type_vocab_size) {
            return refuse(sequence, format!("token type {other}, the model has {}", config.type_vocab_size));
        }
    }
    Ok(())
}

fn check_ids(config: &ModelConfig, sequence: usize, ids: &[u32]) -> Result<()> {
    let Some(id) = ids.iter().find(|&&id| id as usize >= config.vocab_size) else { return Ok(()) };
    let message = format!("id {id} is not below the vocabulary of {}", config.vocab_size);
    Err(ModelError::Input { sequence, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ModelKind;

    fn words(block: &Block, part: Part) -> &[u32] {
        &block.words[part.start..part.start + part.len]
    }

    #[test]
    fn parts_are_aligned_and_tiles_cover_every_row() {
        let config = ModelConfig { max_position_embeddings: 200, pad_token_id: 1, ..ModelConfig::tiny() };
        let batch = PackedBatch::new(&[vec![1; 130], vec![2], vec![3; 64]]).unwrap();
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len()).unwrap();
        let block = Block::new(&config, &batch, &cu_seqlens, &[5, 7]).unwrap();
        assert_eq!(words(&block, block.ids), batch.input_ids);
        assert_eq!(words(&block, block.cu_seqlens), [0, 130, 131, 195]);
        assert_eq!(words(&block, block.tiles), [0, 0, 0, 64, 0, 128, 1, 0, 2, 0]);
        assert_eq!(words(&block, block.rows), [5, 7]);
        assert_eq!((block.tokens(), block.sequences(), block.types), (195, 3, None));
        for part in [block.ids, block.positions, block.cu_seqlens, block.tiles, block.rows] {
            assert_eq!(part.start % PART_ALIGNMENT_WORDS, 0);
        }
        assert!(block.words.len() <= capacity(195, 3));
    }

    #[test]
    fn padding_tokens_do_not_advance_positions() {
        let config = ModelConfig { kind: ModelKind::XlmRoberta, pad_token_id: 1, ..ModelConfig::tiny() };
        let batch = PackedBatch::new(&[vec![0, 1, 5, 2], vec![0, 2]]).unwrap();
        let cu_seqlens = CuSeqlens::new(batch.cu_seqlens.clone(), batch.input_ids.len()).unwrap();
        let block = Block::new(&config, &batch, &cu_seqlens, &[]).unwrap();
        assert_eq!(words(&block, block.positions), [2, 1, 3, 4, 2, 3]);
    }

    #[test]
    fn next_token_attends_to_all_earlier_ones() {
        let config = ModelConfig::tiny();
        let block = Block::next(&config, &[4], 9).unwrap();
        assert_eq!(words(&block, block.positions), [9]);
        assert_eq!(words(&block, block.cu_seqlens), [0, 10]);
        assert_eq!(words(&block, block.tiles), [0, 9]);
        assert_eq!(words(&block, block.rows), [0]);
        let error = Block::next(&config, &[32], 0).unwrap_err().to_string();
        assert_eq!(error, "sequence 0: id 32 is not below the vocabulary of 32");
    }
}
