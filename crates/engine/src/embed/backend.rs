//! The model of a pipeline with its heads, on selected devices.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use polylance_backend::BackendHandle;
use polylance_config::Pipeline;
use polylance_schema::Contract;
use polylance_worker::Selection;

use crate::{AnnotateRequest, EngineError, ResolvedColumn, lazy_pool::LazyPool, resolve};

/// The model of a pipeline, which is loaded at the first text.
pub(super) struct PipelineBackend {
    pub(super) backend: BackendHandle,
    pub(super) contract: Contract,
    /// The columns that the pipeline annotates.
    pub(super) columns: Vec<ResolvedColumn>,
    /// Those of them that the embedding's pass fills, with their contracts.
    pub(super) fields: Vec<FieldRef>,
}

impl PipelineBackend {
    /// Finds the files of the model and of its heads.
    pub(super) async fn open(pipeline: &Pipeline, selection: &Selection) -> Result<Self, EngineError> {
        let files = resolve::files_in_table(&pipeline.model.id, &pipeline.table.uri).await?;
        let pool = resolve::pool_options(pipeline, selection);
        let contract = resolve::contract(pipeline, &files, &pool)?;
        let mut columns = AnnotateRequest::new(pipeline, selection).resolve().await?;
        for column in &mut columns {
            column.fuse(&files, &contract).await?;
        }
        let (fused, fields): (Vec<_>, Vec<_>) = columns.iter().filter_map(ResolvedColumn::fused_head).unzip();
        let backend = BackendHandle(Arc::new(LazyPool::new(files, fused, pool, &selection.devices)));
        Ok(Self { backend, contract, columns, fields })
    }
}
