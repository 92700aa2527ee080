//! Everything of polylance that reads foreign bytes, as functions of bytes.
//!
//! Each [`Target`] writes its input where the product would find it and calls what the product calls. An error is as
//! good as success; a panic, an abort or memory out of proportion is not. The test beside this crate and the fuzzer
//! in `tests/fuzz` run the same targets over the same corpus.

mod mutate;
mod targets;

pub use mutate::mutations;
pub use targets::Target;
