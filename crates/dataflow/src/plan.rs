//! The plan from a source to embeddings.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::{error::Result, physical_plan::ExecutionPlan};
use polylance_backend::{BackendInfo, TokenizeSpec};
use polylance_schema::ContentRule;

use crate::{
    exec::{
        anti_join::AntiJoinExec,
        distinct::DistinctIdExec,
        encode::EncodeExec,
        filter_rows::{OnlyRowsExec, RowSet},
        scan::SourceScanExec,
        tokenize::TokenizeExec,
    },
    source::open::Source,
};

/// Scan, drop what the table has already, tokenize, encode. `keys` yields `key_schema()`: the table's documents. With
/// `only`, other rows of the source are read and go no further.
///
/// The plan yields `encoded_schema(keep, dim)` in one partition, and behind it `heads`: the columns, with their
/// contracts, of the backend's heads. `rule` is that of the table's content hashes.
///
/// # Errors
/// When the parts do not fit together, which is a defect of the caller.
pub fn plan_embeddings(
    source: &Source,
    keys: Option<Arc<dyn ExecutionPlan>>,
    only: Option<Arc<RowSet>>,
    tokenize: TokenizeSpec,
    info: &BackendInfo,
    heads: &[FieldRef],
    rule: ContentRule,
) -> Result<Arc<dyn ExecutionPlan>> {
    let scan = Arc::new(SourceScanExec::new(source.clone()).with_rule(rule));
    let mut documents: Arc<dyn ExecutionPlan> = Arc::new(DistinctIdExec::new(scan));
    if let Some(only) = only {
        documents = Arc::new(OnlyRowsExec::new(documents, only));
    }
    if let Some(keys) = keys {
        documents = Arc::new(AntiJoinExec::try_new(keys, documents)?);
    }
    let chunks = Arc::new(TokenizeExec::try_new(documents, tokenize)?);
    Ok(Arc::new(EncodeExec::try_new(chunks, info, heads)?))
}
