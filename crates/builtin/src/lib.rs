//! The built-in model and corpus, carried by the binary.
