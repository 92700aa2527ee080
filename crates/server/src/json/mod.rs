//! Rows and results of models as JSON.

mod annotations;
mod query_rows;
mod rows;

pub(crate) use annotations::annotation;
pub(crate) use query_rows::read_rows;
pub(crate) use rows::rows;
