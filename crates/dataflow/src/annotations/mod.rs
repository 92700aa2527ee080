//! What heads return for the chunks of a document, as columns of the table.

pub(crate) mod column;
pub(crate) mod locate;
pub(crate) mod span_merge;
