//! `unnest` repeats the other columns of a row for each element of its list: here that is counted before.

use std::sync::Arc;

use datafusion::{
    common::Column,
    error::Result,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, Unnest, expr::ScalarFunction},
};

use super::{
    bounded::{BATCH, too_large},
    checked::{Check, Checked},
    sizes::Rows,
};

/// The node over rows whose lists are counted.
pub(super) fn counted(unnest: Unnest) -> Result<LogicalPlan> {
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

/// Checks a row for each element of the first argument, a list, with all other arguments.
pub(super) fn check(args: &ScalarFunctionArgs) -> Result<()> {
    let lists = Rows::lengths(&args.args[0])?;
    let others = args.args[1..].iter().map(Rows::bytes).collect::<Result<Vec<_>>>()?;
    let row = |row: usize| {
        let repeated: u64 = others.iter().map(|sizes| sizes.at(row)).sum();
        lists.at(row).saturating_mul(repeated.saturating_add(8))
    };
    if (0..args.number_rows).map(row).fold(0, u64::saturating_add) > BATCH {
        return Err(too_large(format!("`unnest` would make more than {} MiB: select fewer columns", BATCH >> 20)));
    }
    Ok(())
}
