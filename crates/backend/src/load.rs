//! How much a backend has to do.

/// What a backend has to do at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Ids that wait for a device.
    pub queued_ids: usize,
    /// Ids that devices have in work.
    pub running_ids: usize,
    /// Ids that may wait or be in work: callers with more wait themselves. A single larger batch goes through alone.
    pub capacity_ids: usize,
    /// Bytes of text that wait for a tokenizer thread or are being cut.
    pub text_bytes: usize,
}

impl Load {
    /// Ids that wait or are in work.
    pub fn ids(&self) -> usize {
        self.queued_ids + self.running_ids
    }

    /// What these ids and the texts take in memory.
    pub fn bytes(&self) -> usize {
        self.ids() * size_of::<u32>() + self.text_bytes
    }
}
