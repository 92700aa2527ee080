//! Tables: searches and SQL.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::error::DataFusionError;
use futures::TryStreamExt;
use polylance_backend::BackendHandle;
use polylance_engine::models::{TableModelPolicy, TableModels};
use polylance_schema::Contract;
use polylance_search::{
    Effort, FusionKind, ModelSource, Models, Query, QueryError, SearchError, SearchMode, SearchRequest, SearchTable,
    SqlSession, describe, table_contract,
};
use pyo3::prelude::*;
use pyo3_arrow::PyTable;

use crate::{
    error::{as_json, raise, wrong},
    wait::wait,
};

/// A table, and the models that its searches have loaded.
#[pyclass(frozen, module = "polylance._polylance")]
pub(crate) struct Table {
    uri: String,
    models: Arc<TableModels>,
}

#[pymethods]
impl Table {
    /// `model` is the present place of the table's model, `reranker` a cross-encoder for searches with `rerank`.
    #[new]
    fn new(
        uri: String,
        model: Option<String>,
        trust_table_model: bool,
        reranker: Option<String>,
        devices: Vec<String>,
    ) -> Self {
        let policy = TableModelPolicy { model, trust: trust_table_model };
        Self { uri, models: Arc::new(TableModels::new(policy, reranker, devices)) }
    }

    /// The best rows for a query, best first, with a column for each score.
    #[expect(clippy::too_many_arguments, reason = "the keywords of a Python method")]
    fn search(
        &self,
        py: Python<'_>,
        query: Option<String>,
        vector: Option<Vec<f32>>,
        like: Option<(String, u32)>,
        k: usize,
        filter: Option<String>,
        mode: Option<&str>,
        by_document: bool,
        fusion: Option<&str>,
        weight: Option<f32>,
        rerank: bool,
        columns: Option<Vec<String>>,
    ) -> PyResult<PyTable> {
        let query = match (query, vector, like) {
            (Some(text), None, None) => Query::Text(text),
            (None, Some(vector), None) => Query::Vector(vector),
            (None, None, Some((doc_id, chunk))) => Query::Like { doc_id, chunk },
            _ => return Err(wrong("a search needs exactly one of query, vector and like")),
        };
        let mode = mode.map(str::parse::<SearchMode>).transpose().map_err(wrong)?;
        let fusion = fusion.map(str::parse::<FusionKind>).transpose().map_err(wrong)?.unwrap_or_default();
        let fusion = fusion.with_weight(weight).map_err(raise)?;
        let effort = Effort::default();
        let request = SearchRequest { query, mode, k, filter, by_document, fusion, effort, rerank, columns };
        let found = wait(py, async {
            let table = Box::pin(SearchTable::open(&self.uri)).await?;
            let full_text_only = table.mode_of(&request) == SearchMode::Text && !rerank;
            let models = match table.contract() {
                Some(contract) if !full_text_only => self.models.models(contract).await?,
                _ => Models::default(),
            };
            let hits = Box::pin(table.search(&request, &models)).await?;
            let batch = hits.into_batch().map_err(DataFusionError::from)?;
            Ok::<_, SearchError>((vec![batch.clone()], batch.schema()))
        })?;
        rows(found)
    }

    /// The rows of a query over tables by name; this table is one of them.
    fn sql(&self, py: Python<'_>, statement: &str, tables: Vec<(String, String)>) -> PyResult<PyTable> {
        let models: Arc<dyn ModelSource> = Arc::<TableModels>::clone(&self.models);
        let found = wait(py, async {
            let session = Box::pin(SqlSession::open(&tables, Some(models))).await?;
            let stream = Box::pin(session.query(statement)).await?;
            let schema = stream.schema();
            let batches: Vec<RecordBatch> = stream.try_collect().await.map_err(SearchError::from)?;
            Ok::<_, SearchError>((batches, schema))
        })?;
        rows(found)
    }

    /// Columns, contract, indices and versions as JSON; no row is read.
    fn describe(&self, py: Python<'_>) -> PyResult<String> {
        let described = wait(py, Box::pin(describe(&self.uri)))?;
        as_json(&described)
    }
}

impl Table {
    /// The table's contract, and the model that it names.
    pub(crate) fn embedder(&self, py: Python<'_>) -> PyResult<(Contract, BackendHandle)> {
        wait(py, async {
            let contract = Box::pin(table_contract(&self.uri)).await?;
            let models = self.models.models(&contract).await?;
            let embedder = models.embedder.ok_or(SearchError::Query(QueryError::NoEmbedder))?;
            Ok::<_, SearchError>((contract, embedder))
        })
    }
}

fn rows((batches, schema): (Vec<RecordBatch>, SchemaRef)) -> PyResult<PyTable> {
    PyTable::try_new(batches, schema)
}
