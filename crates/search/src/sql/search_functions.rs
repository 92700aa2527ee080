//! The table functions that search: `vector_search`, `text_search`, `hybrid_search`, `neighbors`.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, FieldRef, Schema, SchemaRef, UInt32Type},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableFunctionArgs, TableFunctionImpl},
    common::plan_err,
    datasource::{TableProvider, TableType, memory::MemorySourceConfig},
    error::{DataFusionError, Result},
    logical_expr::{Expr, expr::Placeholder},
    physical_plan::ExecutionPlan,
    scalar::ScalarValue,
};
use polylance_schema::columns::CHUNK;

use super::{models::ModelSource, tables::TableRegistry};
use crate::{
    ColumnError, FusionKind, Models, Query, QueryError, SearchError, SearchMode, SearchRequest, SearchTable,
    scores::score_fields,
};

/// Number of hits when the call does not set `k`.
const DEFAULT_K: usize = 10;

/// The search of a table function, and its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) enum SearchKind {
    /// `(table, query [, k [, condition]])`; a hybrid search also takes `[, fusion [, weight]]`.
    Search(SearchMode),
    /// `(table, doc_id [, k [, condition]])`: the rows of other documents nearest to the document's first chunk.
    Neighbors,
}

impl SearchKind {
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("vector_search", Self::Search(SearchMode::Vector)),
        ("text_search", Self::Search(SearchMode::Text)),
        ("hybrid_search", Self::Search(SearchMode::Hybrid)),
        ("neighbors", Self::Neighbors),
    ];
}

/// A table function of a session.
#[derive(Debug)]
pub(super) struct SearchFunction {
    pub(super) name: &'static str,
    pub(super) kind: SearchKind,
    pub(super) tables: Arc<TableRegistry>,
}

impl TableFunctionImpl for SearchFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = args.exprs();
        let (query, more, max) = match self.kind {
            SearchKind::Search(SearchMode::Hybrid) => ("query", " [, 'fusion' [, weight]]", 5),
            SearchKind::Search(_) => ("query", "", 3),
            SearchKind::Neighbors => ("doc_id", "", 3),
        };
        let Some((table, rest)) = arguments.split_first().filter(|(_, rest)| (1..=max).contains(&rest.len())) else {
            return plan_err!("expected {}('table', '{query}' [, k [, 'condition'{more}]])", self.name);
        };
        let (table, models) = self.tables.get(&text(self.name, table)?)?;
        let query = text(self.name, &rest[0])?;
        let k = rest.get(1).map_or(Ok(DEFAULT_K), |k| number(self.name, k))?;
        let condition = rest.get(2).map(|condition| text(self.name, condition)).transpose()?;
        let condition = condition.filter(|condition| !condition.trim().is_empty());
        let fusion = rest
            .get(3)
            .map(|fusion| text(self.name, fusion)?.parse::<FusionKind>().or_else(|error| plan_err!("{error}")));
        let weight = rest.get(4).map(|weight| decimal(self.name, weight)).transpose()?;
        let external = |error| DataFusionError::External(Box::new(error));
        let fusion = fusion.transpose()?.unwrap_or_default().with_weight(weight).map_err(external)?;
        let (mode, query) = match self.kind {
            SearchKind::Search(mode) => (mode, Query::Text(query)),
            SearchKind::Neighbors => (SearchMode::Vector, Query::Like { doc_id: query, chunk: 0 }),
        };
        let defaults = SearchRequest::text(String::new(), k);
        let request = SearchRequest { query, mode: Some(mode), filter: condition, fusion, ..defaults };
        Ok(Arc::new(HitsTable { schema: hits_schema(&table, mode), table, models, request }))
    }
}

/// A constant text among the arguments of a table function.
pub(super) fn text(function: &str, argument: &Expr) -> Result<String> {
    match argument {
        Expr::Literal(
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
            _,
        ) => Ok(text.clone()),
        Expr::Placeholder(parameter) => Err(without_value(parameter)),
        // People first try the name of a table without quotes.
        Expr::Column(column) if column.relation.is_none() => Ok(column.name.clone()),
        other => plan_err!("{function} takes constant texts, not {other}"),
    }
}

fn number(function: &str, argument: &Expr) -> Result<usize> {
    match argument {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) if *number > 0 => Ok(*number as usize),
        Expr::Placeholder(parameter) => Err(without_value(parameter)),
        other => plan_err!("{function} takes a number of hits from 1, not {other}"),
    }
}

fn decimal(function: &str, argument: &Expr) -> Result<f32> {
    match argument {
        Expr::Literal(ScalarValue::Int64(Some(number)), _) => Ok(*number as f32),
        Expr::Literal(ScalarValue::Float64(Some(number)), _) => Ok(*number as f32),
        Expr::Placeholder(parameter) => Err(without_value(parameter)),
        other => plan_err!("{function} takes a number as its weight, not {other}"),
    }
}

fn without_value(parameter: &Placeholder) -> DataFusionError {
    DataFusionError::External(Box::new(SearchError::Parameter(parameter.id.clone())))
}

fn hits_schema(table: &SearchTable, mode: SearchMode) -> SchemaRef {
    let schema = table.schema();
    let hit_columns = table.hit_columns();
    let kept = schema.fields().iter().filter(|field| hit_columns.contains(field.name())).cloned();
    Arc::new(Schema::new(kept.chain(score_fields(mode, false)).collect::<Vec<FieldRef>>()))
}

/// The hits of one search, which runs when the table is read.
#[derive(Debug)]
struct HitsTable {
    table: Arc<SearchTable>,
    models: Arc<dyn ModelSource>,
    request: SearchRequest,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for HitsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let external = |error| DataFusionError::External(Box::new(error));
        let models = match self.table.contract() {
            Some(contract) => self.models.models(contract).await.map_err(external)?,
            None => Models::default(),
        };
        let mut request = self.request.clone();
        if let Query::Like { doc_id, chunk } = &mut request.query {
            *chunk = first_chunk(&self.table, doc_id).await.map_err(external)?;
        }
        // Only the columns that the statement uses are read; the scores follow them.
        let hit_columns = self.table.hit_columns();
        let used = |at: &usize| projection.is_none_or(|used| used.contains(at));
        let own: Vec<usize> = (0..hit_columns.len()).filter(used).collect();
        request.columns = Some(own.iter().map(|at| hit_columns[*at].clone()).collect());
        let hits = Box::pin(self.table.search(&request, &models)).await.map_err(external)?.into_batch()?;
        let read: Vec<usize> = own.into_iter().chain(hit_columns.len()..self.schema.fields().len()).collect();
        // The function's schema lacks the table's metadata.
        let hits = RecordBatch::try_new(Arc::new(self.schema.project(&read)?), hits.columns().to_vec())?;
        let projection =
            projection.map(|used| used.iter().filter_map(|at| read.iter().position(|column| column == at)).collect());
        let schema = hits.schema();
        Ok(MemorySourceConfig::try_new_exec(&[vec![hits]], schema, projection)?)
    }
}

async fn first_chunk(table: &SearchTable, doc_id: &str) -> std::result::Result<u32, SearchError> {
    let chunks = table.document(doc_id).await?;
    let first = chunks.column_by_name(CHUNK).filter(|chunks| !chunks.is_empty());
    let first = first.ok_or_else(|| QueryError::NoDocument { doc_id: doc_id.to_owned() })?;
    let found = first.data_type().to_string();
    let wrong_type = || ColumnError::WrongType { column: CHUNK.to_owned(), found, expected: "a number from 0" };
    let number = cast(&first.slice(0, 1), &DataType::UInt32).ok();
    let number = number.and_then(|number| number.as_primitive::<UInt32Type>().iter().next().flatten());
    Ok(number.ok_or_else(wrong_type)?)
}
