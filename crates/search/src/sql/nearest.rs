//! `ORDER BY cosine_similarity(embedding, …) DESC LIMIT k` reads only the k nearest rows, from the index where there is
//! one.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, Float32Array},
    datatypes::{Float32Type, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::tree_node::{Transformed, TreeNode},
    datasource::{TableProvider, TableType, provider_as_source, source_as_provider},
    error::{DataFusionError, Result},
    logical_expr::{
        Expr, LogicalPlan, Projection, Sort, SubqueryAlias, TableProviderFilterPushDown, TableScan,
        expr::ScalarFunction, utils::conjunction,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
    physical_plan::ExecutionPlan,
    scalar::ScalarValue,
};
use lance_linalg::distance::DistanceType;
use polylance_schema::columns::EMBEDDING;

use super::{at_least::AtLeastExec, tables::LanceReadTable, vectors::Measure};
use crate::{
    Effort, SearchTable,
    search::candidates::{IndexUse, plan_nearest},
};

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct ReadNearest;

impl OptimizerRule for ReadNearest {
    fn name(&self) -> &'static str {
        "read_nearest"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Sort(sort) = plan else { return Ok(Transformed::no(plan)) };
        let Some(nearest) = NearestOrder::of(&sort).and_then(|order| order.nearest(&sort.input)) else {
            return Ok(Transformed::no(LogicalPlan::Sort(sort)));
        };
        let source = provider_as_source(Arc::new(nearest));
        let input = Arc::unwrap_or_clone(sort.input).transform_down(|node| match node {
            LogicalPlan::TableScan(scan) => {
                let scan = TableScan { source: Arc::clone(&source), ..scan };
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(Transformed::yes(LogicalPlan::Sort(Sort { input: Arc::new(input.data), ..sort })))
    }
}

/// `ORDER BY` one expression with a limit.
struct NearestOrder<'a> {
    by: &'a Expr,
    ascending: bool,
    k: usize,
}

impl<'a> NearestOrder<'a> {
    fn of(sort: &'a Sort) -> Option<Self> {
        let ([by], Some(k)) = (sort.expr.as_slice(), sort.fetch) else { return None };
        (k > 0).then_some(Self { by: &by.expr, ascending: by.asc, k })
    }

    /// The table to read instead, if the input consists only of projections of one table and the order is that of a vector
    /// search of it.
    fn nearest(&self, input: &LogicalPlan) -> Option<NearestTable> {
        let mut by = self.by.clone().unalias_nested().data;
        let mut node = input;
        let scan = loop {
            match node {
                LogicalPlan::Projection(projection) => {
                    by = below(by, projection)?;
                    node = &projection.input;
                }
                LogicalPlan::SubqueryAlias(SubqueryAlias { input, .. }) => node = input,
                LogicalPlan::TableScan(scan) if scan.fetch.is_none() => break scan,
                _ => return None,
            }
        };
        let provider = source_as_provider(&scan.source).ok()?;
        let provider: &dyn std::any::Any = provider.as_ref();
        let table = &provider.downcast_ref::<LanceReadTable>()?.table;
        let (measure, vector) = comparison(&by)?;
        let metric = match (measure, self.ascending) {
            (Measure::Cosine, false) => DistanceType::Cosine,
            (Measure::Dot, false) => DistanceType::Dot,
            (Measure::L2, true) => DistanceType::L2,
            _ => return None,
        };
        let is_supported = table.metric().is_none_or(|index| index == metric);
        is_supported.then(|| NearestTable { table: Arc::clone(table), vector, metric, k: self.k })
    }
}

/// The expression in terms of the projection's input.
fn below(expression: Expr, projection: &Projection) -> Option<Expr> {
    let projected = |name: &str| {
        let at = projection.schema.fields().iter().position(|field| field.name() == name)?;
        Some(projection.expr[at].clone().unalias_nested().data)
    };
    let mut unknown = false;
    let expression = expression.transform_up(|expression| {
        let Expr::Column(column) = &expression else { return Ok(Transformed::no(expression)) };
        let Some(below) = projected(&column.name) else {
            unknown = true;
            return Ok(Transformed::no(expression));
        };
        Ok(Transformed::yes(below))
    });
    expression.ok().map(|expression| expression.data.unalias_nested().data).filter(|_| !unknown)
}

/// The measure and the constant vector, for a comparison with `embedding`.
fn comparison(expression: &Expr) -> Option<(Measure, Float32Array)> {
    let Expr::ScalarFunction(ScalarFunction { func, args }) = expression else { return None };
    let measure = Measure::named(func.name())?;
    let ([Expr::Column(column), Expr::Literal(vector, _)] | [Expr::Literal(vector, _), Expr::Column(column)]) =
        args.as_slice()
    else {
        return None;
    };
    let vector = constant(vector).filter(|_| column.name == EMBEDDING)?;
    Some((measure, vector))
}

fn constant(vector: &ScalarValue) -> Option<Float32Array> {
    let values = match vector {
        ScalarValue::FixedSizeList(list) if !list.is_null(0) => list.value(0),
        ScalarValue::List(list) if !list.is_null(0) => list.value(0),
        _ => return None,
    };
    let values = arrow::compute::cast(&values, &arrow::datatypes::DataType::Float32).ok()?;
    (values.null_count() == 0).then(|| values.as_primitive::<Float32Type>().clone())
}

/// The rows of a table that are nearest to a vector.
#[derive(Debug)]
struct NearestTable {
    table: Arc<SearchTable>,
    vector: Float32Array,
    metric: DistanceType,
    k: usize,
}

#[async_trait]
impl TableProvider for NearestTable {
    fn schema(&self) -> SchemaRef {
        Arc::new(self.table.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.schema();
        let all = || (0..schema.fields().len()).collect();
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(all);
        let columns: Vec<&str> = columns.iter().map(|at| schema.field(*at).name().as_str()).collect();
        let plan = async |index| {
            let mut scanner = self.table.scan();
            if let Some(condition) = conjunction(filters.iter().cloned()) {
                scanner.prefilter(true).filter_expr(condition);
            }
            plan_nearest(&mut scanner, &self.table, &self.vector, self.k, self.metric, index)?;
            scanner.disable_scoring_autoprojection().project(&columns)?;
            scanner.create_plan().await.map_err(DataFusionError::from)
        };
        let searched = Box::pin(plan(IndexUse::Search(Effort::default()))).await?;
        if self.table.is_index_exhaustive() {
            return Ok(searched);
        }
        let every_row = Box::pin(plan(IndexUse::Bypass)).await?;
        Ok(Arc::new(AtLeastExec::new(self.k, searched, every_row)))
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Exact; filters.len()])
    }
}
