//! Every reader of untrusted bytes in polylance, as a function of bytes.
//!
//! Each [`Target`] writes its input where the product would find it and calls what the product calls. An error is as
//! good as success; a panic, an abort or memory out of proportion to the input is a fault. The test of this crate and the
//! fuzzers in `tests/fuzz` run the same targets over the same corpus.

mod mutate;
mod targets;

pub use mutate::mutations;
pub use targets::Target;
