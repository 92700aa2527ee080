//! Searches as tables: `vector_search`, `text_search`, `hybrid_search`, `neighbors`.

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

use super::{models::ModelSource, tables::Tables};
use crate::{FusionKind, Query, SearchMode, SearchRequest, SearchTable, hits::score_fields};

/// Hits of a search that does not say how many it wants.
const HITS: usize = 10;

/// A table function and its arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    /// `(table, query, [k], [condition])`; in a hybrid search also `[fusion], [weight]`
    Search(SearchMode),
    /// `(table, doc_id, [k], [condition])`: the rows nearest to the document's first chunk, other documents' only.
    Neighbors,
}

impl Function {
    pub(crate) const ALL: [(&'static str, Self); 4] = [
        ("vector_search", Self::Search(SearchMode::Vector)),
        ("text_search", Self::Search(SearchMode::Text)),
        ("hybrid_search", Self::Search(SearchMode::Hybrid)),
        ("neighbors", Self::Neighbors),
    ];
}

/// [`Function`] in a session.
#[derive(Debug)]
pub(crate) struct SearchFunction {
    pub(crate) name: &'static str,
    pub(crate) function: Function,
    pub(crate) tables: Arc<Tables>,
}

impl TableFunctionImpl for SearchFunction {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let arguments = args.exprs();
        let (query, more, most) = match self.function {
            Function::Search(SearchMode::Hybrid) => ("query", " [, 'fusion' [, weight]]", 5),
            Function::Search(_) => ("query", "", 3),
            Function::Neighbors => ("doc_id", "", 3),
        };
        let Some((of, rest)) = arguments.split_first().filter(|(_, rest)| (1..=most).contains(&rest.len())) else {
            return plan_err!("expected {}('table', '{query}' [, k [, 'condition'{more}]])", self.name);
        };
        let (table, models) = self.tables.get(&text(self.name, of)?)?;
        let query = text(self.name, &rest[0])?;
        let k = rest.get(1).map_or(Ok(HITS), |k| number(self.name, k))?;
        let condition = rest.get(2).map(|condition| text(self.name, condition)).transpose()?;
        let condition = condition.filter(|condition| !condition.trim().is_empty());
        let fusion = rest
            .get(3)
            .map(|fusion| text(self.name, fusion)?.parse::<FusionKind>().or_else(|error| plan_err!("{error}")));
        let weight = rest.get(4).map(|weight| decimal(self.name, weight)).transpose()?;
        let external = |error| DataFusionError::External(Box::new(error));
        let fusion = fusion.transpose()?.unwrap_or_default().with_weight(weight).map_err(external)?;
        let (mode, query) = match self.function {
            Function::Search(mode) => (mode, Query::Text(query)),
            Function::Neighbors => (SearchMode::Vector, Query::Like { doc_id: query, chunk: 0 }),
        };
        let defaults = SearchRequest::words(String::new(), k);
        let request = SearchRequest { query, mode: Some(mode), filter: condition, fusion, ..defaults };
        Ok(Arc::new(Hits { schema: hits_schema(&table, mode), table, models, request }))
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
        // An unquoted name is what one writes for a table first.
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
    DataFusionError::External(Box::new(crate::SearchError::Parameter(parameter.id.clone())))
}

fn hits_schema(table: &SearchTable, mode: SearchMode) -> SchemaRef {
    let schema = table.schema();
    let shown = table.hit_columns();
    let kept = schema.fields().iter().filter(|field| shown.contains(field.name())).cloned();
    Arc::new(Schema::new(kept.chain(score_fields(mode, false)).collect::<Vec<FieldRef>>()))
}

/// The hits of one search; it runs when the table is read.
#[derive(Debug)]
struct Hits {
    table: Arc<SearchTable>,
    models: Arc<dyn ModelSource>,
    request: SearchRequest,
    schema: SchemaRef,
}

#[async_trait]
impl TableProvider for Hits {
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
            None => crate::Models::default(),
        };
        let mut request = self.request.clone();
        if let Query::Like { doc_id, chunk } = &mut request.query {
            *chunk = first_chunk(&self.table, doc_id).await.map_err(external)?;
        }
        // Of the rows only what the statement uses is read; the places stand behind it.
        let all = self.table.hit_columns();
        let wanted = |at: &usize| projection.is_none_or(|wanted| wanted.contains(at));
        let own: Vec<usize> = (0..all.len()).filter(wanted).collect();
        request.columns = Some(own.iter().map(|at| all[*at].clone()).collect());
        let hits = Box::pin(self.table.search(&request, &models)).await.map_err(external)?.into_batch()?;
        let read: Vec<usize> = own.into_iter().chain(all.len()..self.schema.fields().len()).collect();
        // Without the table's metadata, which the function's schema has not.
        let hits = RecordBatch::try_new(Arc::new(self.schema.project(&read)?), hits.columns().to_vec())?;
        let shown =
            projection.map(|wanted| wanted.iter().filter_map(|at| read.iter().position(|of| of == at)).collect());
        let schema = hits.schema();
        Ok(MemorySourceConfig::try_new_exec(&[vec![hits]], schema, shown)?)
    }
}

async fn first_chunk(table: &SearchTable, doc_id: &str) -> std::result::Result<u32, crate::SearchError> {
    let chunks = table.document(doc_id).await?;
    let first = chunks.column_by_name(CHUNK).filter(|chunks| !chunks.is_empty());
    let missing = || crate::SearchError::Query(format!("the table has no document `{doc_id}`"));
    let first = first.ok_or_else(missing)?;
    let unfit = || crate::SearchError::Column(format!("the column `{CHUNK}` has no whole number of the document"));
    let first = cast(&first.slice(0, 1), &DataType::UInt32).map_err(|_| unfit())?;
    let first = first.as_primitive::<UInt32Type>();
    if first.is_null(0) { Err(unfit()) } else { Ok(first.value(0)) }
}
