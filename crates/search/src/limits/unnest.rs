//! `unnest` repeats the other columns of a row for each element of its list: a check below it limits the output.

use std::sync::Arc;

use datafusion::{
    common::Column,
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Unnest, expr::ScalarFunction},
};

use super::checked::{Check, Checked};

/// The node over rows whose lists pass the check.
pub(super) fn with_check(unnest: Unnest) -> Result<LogicalPlan> {
    let function = Arc::new(Checked::function(Check::Unnest));
    let columns: Vec<(Expr, bool)> = unnest
        .input
        .schema()
        .iter()
        .enumerate()
        .map(|(at, (table, field))| {
            let lists = unnest.list_type_columns.iter().any(|(list, _)| *list == at);
            (Expr::Column(Column::new(table.cloned(), field.name())), lists)
        })
        .collect();
    let all: Vec<Expr> = columns.iter().map(|(column, _)| column.clone()).collect();
    let checked = columns.into_iter().enumerate().map(|(at, (column, lists))| {
        if !lists {
            return column;
        }
        let others = all.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, column)| column.clone());
        let args = std::iter::once(column).chain(others).collect();
        let (table, field) = unnest.input.schema().qualified_field(at);
        let call = Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&function), args });
        call.alias_qualified(table.cloned(), field.name())
    });
    let input = LogicalPlanBuilder::from(unnest.input.as_ref().clone()).project(checked)?.build()?;
    Ok(LogicalPlan::Unnest(Unnest { input: Arc::new(input), ..unnest }))
}
