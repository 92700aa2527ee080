//! Limits on the computations of untrusted statements and conditions.
//!
//! A session's memory, disk and time are limited, and some functions get around that: scalar functions make values that no
//! memory pool counts, and compute without a pause. So a plan is checked before it runs: each function in it is either on a
//! list of functions that are known to be harmless, or is wrapped with a bound on its output. In a plan a function has one
//! name, however it was written.

mod aggregates;
mod bounded;
mod checked;
mod join_rows;
mod names;
mod patterns;
mod refusal;
mod sizes;
mod syntax;
#[cfg(test)]
mod tests;
mod unnest;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::Result,
    logical_expr::{
        Expr, LogicalPlan, Operator, WindowFunctionDefinition,
        expr::{AggregateFunction, ScalarFunction, WindowFunction},
        expr_rewriter::NamePreserver,
    },
    sql::parser::Statement,
};

use crate::SearchError;
use aggregates::BoundedAggregate;
use bounded::{Bounded, SizeRule};
use checked::{Check, Checked};
pub(crate) use join_rows::CheckJoins;
use refusal::{not_allowed, unlisted_function};

/// Maximum number of elements or bytes of a fixed-size type: a cast of null makes that many out of nothing.
const MAX_FIXED_SIZE: i32 = 1 << 16;

/// Maximum number of `||` in a condition: each adds the sizes of its operands.
const MAX_CONCATENATIONS: usize = 16;

/// Checks a statement before it is planned.
pub(crate) fn check_syntax(statement: &Statement) -> std::result::Result<(), SearchError> {
    syntax::check(statement)
}

/// The plan with bounds on the output of its functions.
///
/// # Errors
/// [`SearchError::NotAllowed`] for a function that is on no list.
pub(crate) fn bound(plan: LogicalPlan) -> std::result::Result<LogicalPlan, SearchError> {
    let bounded = plan.transform_down_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::RecursiveQuery(_) => {
                return Err(not_allowed("a recursive query is not allowed here".to_owned()));
            }
            LogicalPlan::Unnest(unnest) => unnest::with_check(unnest)?,
            other => other,
        };
        let names = NamePreserver::new(&node);
        let expressions = node.map_expressions(|expression| {
            let name = names.save(&expression);
            let expression = expression.transform_up(bound_expression)?;
            Ok(expression.update_data(|expression| name.restore(expression)))
        })?;
        Ok(Transformed::yes(expressions.data))
    });
    Ok(bounded?.data)
}

fn bound_expression(expression: Expr) -> Result<Transformed<Expr>> {
    match expression {
        Expr::ScalarFunction(function) => bound_function(function),
        Expr::AggregateFunction(function) => bound_aggregate(function),
        Expr::WindowFunction(function) => {
            check_window(&function)?;
            Ok(Transformed::no(Expr::WindowFunction(function)))
        }
        Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
            let args = vec![Expr::BinaryExpr(binary)];
            let call = ScalarFunction { func: Arc::new(Checked::function(Check::Concatenation)), args };
            Ok(Transformed::yes(Expr::ScalarFunction(call)))
        }
        other => {
            check_expression(&other)?;
            Ok(Transformed::no(other))
        }
    }
}

fn bound_function(function: ScalarFunction) -> Result<Transformed<Expr>> {
    let name = function.func.name();
    patterns::check_call(name, &function.args)?;
    if names::SCALAR.contains(&name) || name == checked::CHECKED {
        return Ok(Transformed::no(Expr::ScalarFunction(function)));
    }
    if names::CASTS.contains(&name) {
        check_cast(&function.args)?;
        return Ok(Transformed::no(Expr::ScalarFunction(function)));
    }
    let Some(rule) = rule(name) else { return Err(not_allowed(unlisted_function(name))) };
    let func = Arc::new(Bounded::function(function.func, rule));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: function.args })))
}

fn rule(name: &str) -> Option<SizeRule> {
    names::BOUNDED.iter().find(|(bounded, _)| *bounded == name).map(|(_, rule)| *rule)
}

fn bound_aggregate(function: AggregateFunction) -> Result<Transformed<Expr>> {
    let name = function.func.name();
    if names::AGGREGATES.contains(&name) {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    }
    if !names::COLLECTING.contains(&name) {
        return Err(not_allowed(unlisted_function(name)));
    }
    let func = Arc::new(BoundedAggregate::function(function.func));
    Ok(Transformed::yes(Expr::AggregateFunction(AggregateFunction { func, ..function })))
}

fn check_window(function: &WindowFunction) -> Result<()> {
    let name = function.fun.name();
    let allowed = match &function.fun {
        WindowFunctionDefinition::WindowUDF(_) => names::WINDOW.contains(&name),
        WindowFunctionDefinition::AggregateUDF(_) => {
            names::AGGREGATES.contains(&name) && !names::NOT_IN_WINDOWS.contains(&name) && !function.params.distinct
        }
    };
    if allowed { Ok(()) } else { Err(not_allowed(format!("`{name}` is not allowed over a window here"))) }
}

/// Checks an expression other than a function call.
fn check_expression(expression: &Expr) -> Result<()> {
    match expression {
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => {
            Err(not_allowed("a higher-order function is not allowed here".to_owned()))
        }
        Expr::Cast(cast) if !is_small(cast.field.data_type()) => Err(not_allowed(too_wide())),
        Expr::TryCast(cast) if !is_small(cast.field.data_type()) => Err(not_allowed(too_wide())),
        other => patterns::check_operator(other),
    }
}

/// Checks the type that a call of a cast function names.
fn check_cast(args: &[Expr]) -> Result<()> {
    let named = match args.get(1) {
        Some(Expr::Literal(name, _)) => name.try_as_str().flatten().and_then(|name| name.parse::<DataType>().ok()),
        _ => None,
    };
    match named {
        Some(data_type) if is_small(&data_type) => Ok(()),
        Some(_) => Err(not_allowed(too_wide())),
        None => Err(not_allowed("a cast needs the name of a type, such as 'Int64'".to_owned())),
    }
}

fn too_wide() -> String {
    format!("a list of a fixed size has at most {MAX_FIXED_SIZE} elements here")
}

/// Whether a null of the type takes little memory.
fn is_small(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(field, elements) => *elements <= MAX_FIXED_SIZE && is_flat(field.data_type()),
        DataType::FixedSizeBinary(bytes) => *bytes <= MAX_FIXED_SIZE,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::ListView(field)
        | DataType::LargeListView(field) => is_small(field.data_type()),
        DataType::Dictionary(_, values) => is_small(values),
        DataType::RunEndEncoded(_, values) | DataType::Map(values, _) => is_small(values.data_type()),
        DataType::Struct(fields) => fields.iter().all(|field| is_small(field.data_type())),
        _ => true,
    }
}

fn is_flat(data_type: &DataType) -> bool {
    !matches!(data_type, DataType::FixedSizeList(..) | DataType::FixedSizeBinary(_)) && is_small(data_type)
}

/// Checks the condition of a search, which is evaluated while a table is read: it may not call functions whose output is
/// larger than their input.
///
/// # Errors
/// [`SearchError::NotAllowed`].
pub(crate) fn check_condition(condition: &Expr) -> std::result::Result<(), SearchError> {
    let mut concatenations = 0;
    let checked = condition.apply(|expression| {
        match expression {
            Expr::ScalarFunction(function) => {
                let name = function.func.name();
                patterns::check_call(name, &function.args)?;
                if !names::SCALAR.contains(&name) {
                    return Err(not_allowed(format!("`{name}` is not allowed in a condition here")));
                }
            }
            Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => concatenations += 1,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                return Err(not_allowed("a query is not allowed in a condition".to_owned()));
            }
            other => check_expression(other)?,
        }
        if concatenations > MAX_CONCATENATIONS {
            return Err(not_allowed(format!("a condition has at most {MAX_CONCATENATIONS} concatenations here")));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    checked?;
    Ok(())
}
