//! Tokenizer threads, token-budget batches, one thread a device.
