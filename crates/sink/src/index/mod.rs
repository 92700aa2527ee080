//! The indices of a table: of its vectors, of its text, and the parameters of searches.

mod full_text;
mod search_params;
mod staleness;
pub(crate) mod vector;

pub use full_text::{FullTextIndexOutcome, FullTextUpdate, update_full_text_index};
pub use search_params::set_search_params;
pub use staleness::Staleness;
pub use vector::{IndexAction, IndexOutcome, IndexSpec, merge_index, retrain_index, update_index};
