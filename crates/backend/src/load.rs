//! The load of a backend.

/// The queued and running work of a backend at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Tokens that wait for a device.
    pub queued_tokens: usize,
    /// Tokens that devices are computing.
    pub running_tokens: usize,
    /// Maximum number of tokens that wait or run: callers with more wait themselves. A single larger batch is admitted
    /// alone.
    pub capacity_tokens: usize,
    /// Bytes of text that wait for a tokenizer thread or are being tokenized.
    pub text_bytes: usize,
}

impl Load {
    /// Tokens that wait or run.
    pub fn tokens(&self) -> usize {
        self.queued_tokens + self.running_tokens
    }

    /// The memory of these tokens and of the texts, in bytes.
    pub fn bytes(&self) -> usize {
        self.tokens() * size_of::<u32>() + self.text_bytes
    }
}
