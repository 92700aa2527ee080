//! The operators.

pub(crate) mod annotate;
pub(crate) mod anti_join;
mod bisect;
pub(crate) mod distinct;
pub(crate) mod encode;
pub(crate) mod filter_rows;
pub mod operator;
pub(crate) mod scan;
#[cfg(test)]
pub(crate) mod testing;
mod timing;
pub(crate) mod tokenize;
mod window;
