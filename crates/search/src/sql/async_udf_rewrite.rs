//! Moves calls of models to places where DataFusion awaits asynchronous functions.
//!
//! DataFusion awaits them in SELECT and WHERE. A call in GROUP BY, in ORDER BY or inside an aggregate becomes a column of a
//! projection below it.

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Sort, expr_rewriter::NamePreserver, ident},
};

use super::model_calls::is_model_call;

/// The plan with its calls of models where they are awaited.
pub(super) fn hoist_async_calls(plan: LogicalPlan) -> Result<LogicalPlan> {
    let hoisted = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => hoist_from_aggregate(aggregate),
        LogicalPlan::Sort(sort) => hoist_from_sort(sort),
        other => Ok(Transformed::no(other)),
    });
    Ok(hoisted?.data)
}

fn hoist_from_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut calls = HoistedCalls::default();
    let group = calls.take_all(aggregate.group_expr.clone())?;
    let aggregates = calls.take_all(aggregate.aggr_expr.clone())?;
    if calls.0.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let input = calls.project_below(aggregate.input.as_ref().clone())?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input.into(), group, aggregates)?)))
}

fn hoist_from_sort(sort: Sort) -> Result<Transformed<LogicalPlan>> {
    let mut calls = HoistedCalls::default();
    let mut order = sort.expr.clone();
    for by in &mut order {
        by.expr = calls.take(by.expr.clone())?;
    }
    if calls.0.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let original = columns(&sort.input);
    let input = calls.project_below(sort.input.as_ref().clone())?;
    let sorted = LogicalPlan::Sort(Sort { expr: order, input: input.into(), fetch: sort.fetch });
    Ok(Transformed::yes(LogicalPlanBuilder::from(sorted).project(original)?.build()?))
}

/// The distinct calls of models in a node.
#[derive(Debug, Default)]
struct HoistedCalls(Vec<Expr>);

impl HoistedCalls {
    fn column_name(at: usize) -> String {
        format!("__call_{at}")
    }

    /// The expressions under their old names, with columns in place of their calls.
    fn take_all(&mut self, expressions: Vec<Expr>) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let take = |expression: Expr| {
            let name = names.save(&expression);
            Ok(name.restore(self.take(expression)?))
        };
        expressions.into_iter().map(take).collect()
    }

    fn take(&mut self, expression: Expr) -> Result<Expr> {
        let replaced = expression.transform_down(|part| {
            if !is_model_call(&part) {
                return Ok(Transformed::no(part));
            }
            let at = self.0.iter().position(|call| call == &part).unwrap_or(self.0.len());
            if at == self.0.len() {
                self.0.push(part);
            }
            Ok(Transformed::new(ident(Self::column_name(at)), true, TreeNodeRecursion::Jump))
        });
        Ok(replaced?.data)
    }

    /// A projection of `rows` with a column for each call.
    fn project_below(self, rows: LogicalPlan) -> Result<LogicalPlan> {
        let calls = self.0.into_iter().enumerate().map(|(at, call)| call.alias(Self::column_name(at)));
        let all: Vec<Expr> = columns(&rows).into_iter().chain(calls).collect();
        LogicalPlanBuilder::from(rows).project(all)?.build()
    }
}

fn columns(rows: &LogicalPlan) -> Vec<Expr> {
    rows.schema().iter().map(|(table, field)| Expr::Column(Column::new(table.cloned(), field.name()))).collect()
}
