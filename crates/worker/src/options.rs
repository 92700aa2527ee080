//! The options of a pool.

use std::time::Duration;

use polylance_schema::{Dtype, Pooling};

/// The default time limit of a batch: a large model on a few cores needs many minutes for one.
const DEFAULT_STALL: Duration = Duration::from_mins(30);

/// How a pool is opened. The defaults are derived from the model and the machine.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// Device names, see [`crate::DeviceSpec`]; empty is `auto`.
    pub devices: Vec<String>,
    /// The arithmetic; f32 unless given.
    pub dtype: Option<Dtype>,
    /// Overrides the model's pooling.
    pub pooling: Option<Pooling>,
    /// Overrides the model's normalization.
    pub normalize: Option<bool>,
    /// Keeps only this many leading dimensions.
    pub dims: Option<usize>,
    /// Tokenizer threads; one per core unless given.
    pub tokenizer_threads: Option<usize>,
    /// Maximum number of tokens in a batch; each device's default unless given.
    pub batch_tokens: Option<usize>,
    /// The most bytes that the weights may take on the CPU; three quarters of the available memory unless given. The
    /// layers of a larger model are streamed from their files.
    pub memory: Option<u64>,
    /// The time limit after which a batch stalls; half an hour unless given, zero for no limit.
    pub stall: Option<Duration>,
}

impl PoolOptions {
    /// The time limit of a batch, if there is one.
    pub(crate) fn stall(&self) -> Option<Duration> {
        Some(self.stall.unwrap_or(DEFAULT_STALL)).filter(|stall| !stall.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stall_has_a_default_and_zero_switches_it_off() {
        let stall = |stall| PoolOptions { stall, ..PoolOptions::default() }.stall();
        assert_eq!(stall(None), Some(DEFAULT_STALL));
        assert_eq!(stall(Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(stall(Some(Duration::ZERO)), None);
    }
}
