//! The indices of a table: of its vectors, of its text, and how searches use them.

pub(crate) mod full_text;
mod search_params;
mod staleness;
pub(crate) mod vector;

pub use full_text::{Words, WordsOutcome, index_words};
pub use search_params::set_search_effort;
pub use staleness::Retrain;
pub use vector::{IndexAction, IndexOutcome, IndexSpec, merge_index, retrain_index, update_index};
