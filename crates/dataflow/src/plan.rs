//! The plan from a source to embeddings.

use std::sync::Arc;

use datafusion::{
    common::{JoinType, NullEquality},
    error::Result,
    physical_plan::{
        ExecutionPlan,
        expressions::col,
        joins::{HashJoinExec, PartitionMode},
    },
};
use polylance_backend::{BackendInfo, TokenizeSpec};
use polylance_schema::columns::{CONTENT_HASH, DOC_ID};

use crate::{DistinctIdExec, EncodeExec, Source, SourceScanExec, TokenizeExec};

/// Scan, drop what the table has already, tokenize, encode. `keys` yields `key_schema()`: the table's documents.
///
/// The plan yields `encoded_schema(keep, dim)` in one partition.
///
/// # Errors
/// When the parts do not fit together, which is a defect of the caller.
pub fn plan_embeddings(
    source: &Source,
    keys: Option<Arc<dyn ExecutionPlan>>,
    tokenize: TokenizeSpec,
    info: &BackendInfo,
) -> Result<Arc<dyn ExecutionPlan>> {
    let scan = Arc::new(SourceScanExec::new(source.clone()));
    let mut documents: Arc<dyn ExecutionPlan> = Arc::new(DistinctIdExec::new(scan));
    if let Some(keys) = keys {
        documents = anti_join(keys, documents)?;
    }
    let chunks = Arc::new(TokenizeExec::try_new(documents, tokenize)?);
    Ok(Arc::new(EncodeExec::try_new(chunks, info)?))
}

/// The documents whose id and content hash are not among the keys. Refused rows have no hash and so remain.
fn anti_join(keys: Arc<dyn ExecutionPlan>, documents: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let on = [DOC_ID, CONTENT_HASH]
        .into_iter()
        .map(|name| Ok((col(name, &keys.schema())?, col(name, &documents.schema())?)))
        .collect::<Result<Vec<_>>>()?;
    // The keys are the side that is kept in memory; the documents stream past it in their order.
    let (mode, nulls) = (PartitionMode::CollectLeft, NullEquality::NullEqualsNothing);
    Ok(Arc::new(HashJoinExec::try_new(keys, documents, on, None, &JoinType::RightAnti, None, mode, nulls, false)?))
}
