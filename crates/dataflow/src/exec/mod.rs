//! The operators.

pub(crate) mod annotate;
pub(crate) mod anti_join;
pub(crate) mod distinct;
pub(crate) mod encode;
pub(crate) mod filter_rows;
pub mod operator;
pub(crate) mod scan;
pub(crate) mod tokenize;
