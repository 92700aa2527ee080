//! Calls that wait for a model, where DataFusion does not wait.
//!
//! It waits for those in SELECT and WHERE. A call in GROUP BY, in ORDER BY or inside an aggregate becomes a column of the
//! rows below it, where it is waited for.

use datafusion::{
    common::{
        Column,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    error::Result,
    logical_expr::{Aggregate, Expr, LogicalPlan, LogicalPlanBuilder, Sort, expr_rewriter::NamePreserver, ident},
};

use super::{embed, heads};

/// Whether an expression is a call that waits.
pub(crate) fn is_call(expression: &Expr) -> bool {
    embed::is_call(expression) || heads::is_call(expression)
}

/// The plan with its calls where they are waited for.
pub(crate) fn move_calls(plan: LogicalPlan) -> Result<LogicalPlan> {
    let moved = plan.transform_down_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => below_aggregate(aggregate),
        LogicalPlan::Sort(sort) => below_sort(sort),
        other => Ok(Transformed::no(other)),
    });
    Ok(moved?.data)
}

fn below_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut calls = Calls::default();
    let group = calls.take_all(aggregate.group_expr.clone())?;
    let aggregates = calls.take_all(aggregate.aggr_expr.clone())?;
    if calls.0.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let input = calls.columns(aggregate.input.as_ref().clone())?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(Aggregate::try_new(input.into(), group, aggregates)?)))
}

fn below_sort(sort: Sort) -> Result<Transformed<LogicalPlan>> {
    let mut calls = Calls::default();
    let mut order = sort.expr.clone();
    for by in &mut order {
        by.expr = calls.take(by.expr.clone())?;
    }
    if calls.0.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let shown = columns(&sort.input);
    let input = calls.columns(sort.input.as_ref().clone())?;
    let sorted = LogicalPlan::Sort(Sort { expr: order, input: input.into(), fetch: sort.fetch });
    Ok(Transformed::yes(LogicalPlanBuilder::from(sorted).project(shown)?.build()?))
}

/// The calls of a node, each once.
#[derive(Debug, Default)]
struct Calls(Vec<Expr>);

impl Calls {
    fn name(at: usize) -> String {
        format!("__call_{at}")
    }

    /// The expressions under their old names, with columns for their calls.
    fn take_all(&mut self, expressions: Vec<Expr>) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let take = |expression: Expr| {
            let name = names.save(&expression);
            Ok(name.restore(self.take(expression)?))
        };
        expressions.into_iter().map(take).collect()
    }

    fn take(&mut self, expression: Expr) -> Result<Expr> {
        let taken = expression.transform_down(|part| {
            if !is_call(&part) {
                return Ok(Transformed::no(part));
            }
            let at = self.0.iter().position(|call| call == &part).unwrap_or(self.0.len());
            if at == self.0.len() {
                self.0.push(part);
            }
            Ok(Transformed::new(ident(Self::name(at)), true, TreeNodeRecursion::Jump))
        });
        Ok(taken?.data)
    }

    /// The rows with a column for each call.
    fn columns(self, rows: LogicalPlan) -> Result<LogicalPlan> {
        let calls = self.0.into_iter().enumerate().map(|(at, call)| call.alias(Self::name(at)));
        let all: Vec<Expr> = columns(&rows).into_iter().chain(calls).collect();
        LogicalPlanBuilder::from(rows).project(all)?.build()
    }
}

fn columns(rows: &LogicalPlan) -> Vec<Expr> {
    rows.schema().iter().map(|(table, field)| Expr::Column(Column::new(table.cloned(), field.name()))).collect()
}
