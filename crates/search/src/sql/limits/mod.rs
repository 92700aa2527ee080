//! What statements of a limited session may compute.
//!
//! A session's memory, disk and time are limited, and some functions get around that: scalar functions make values that no
//! memory pool counts, and compute without a pause. So a plan is checked before it runs: each function in it is on a list
//! of functions that are known to be harmless, or is replaced by itself with a bound on what it makes. In a plan a
//! function has one name, however it was written.

mod aggregates;
mod bounded;
mod checked;
mod names;
mod patterns;
mod rows;
mod sizes;
mod syntax;
#[cfg(test)]
mod tests;
mod unnest;

use std::{collections::HashMap, sync::Arc};

use arrow::datatypes::DataType;
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::{DataFusionError, Result},
    logical_expr::{
        Expr, LogicalPlan, Operator, WindowFunctionDefinition,
        expr::{AggregateFunction, ScalarFunction, WindowFunction},
        expr_rewriter::NamePreserver,
    },
    sql::parser::Statement,
};

use crate::SearchError;
use aggregates::BoundedAggregate;
use bounded::{Bounded, Rule};
use checked::{Check, Checked};
pub(crate) use rows::CheckJoins;

/// Elements of a list of a fixed size, which a cast makes out of nothing.
const FIXED: i32 = 1 << 16;

/// `||`s of a condition: it is one expression, and each adds the sizes of two.
const JOINS: usize = 16;

/// Checks a statement before it is planned.
pub(crate) fn check_syntax(statement: &Statement) -> std::result::Result<(), SearchError> {
    syntax::check(statement)
}

/// The plan with bounds on what its functions make.
///
/// # Errors
/// [`SearchError::NotAllowed`] for a function that is on no list.
pub(crate) fn bound(plan: LogicalPlan) -> std::result::Result<LogicalPlan, SearchError> {
    let bounded = plan.transform_down_with_subqueries(|node| {
        let node = match node {
            LogicalPlan::RecursiveQuery(_) => return Err(refused("a recursive query is not allowed here".to_owned())),
            LogicalPlan::Unnest(unnest) => unnest::counted(unnest)?,
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
    if names::SCALAR.contains(&name) || name == checked::NAME {
        return Ok(Transformed::no(Expr::ScalarFunction(function)));
    }
    if names::CASTS.contains(&name) {
        check_cast(&function.args)?;
        return Ok(Transformed::no(Expr::ScalarFunction(function)));
    }
    let Some(rule) = rule(name) else { return Err(refused(not_allowed(name))) };
    let func = Arc::new(Bounded::function(function.func, rule));
    Ok(Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: function.args })))
}

fn rule(name: &str) -> Option<Rule> {
    names::BOUNDED.iter().find(|(bounded, _)| *bounded == name).map(|(_, rule)| *rule)
}

fn bound_aggregate(function: AggregateFunction) -> Result<Transformed<Expr>> {
    let name = function.func.name();
    if names::AGGREGATES.contains(&name) {
        return Ok(Transformed::no(Expr::AggregateFunction(function)));
    }
    if !names::COLLECTING.contains(&name) {
        return Err(refused(not_allowed(name)));
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
    if allowed { Ok(()) } else { Err(refused(format!("`{name}` is not allowed over a window here"))) }
}

/// Checks an expression that is not a call.
fn check_expression(expression: &Expr) -> Result<()> {
    match expression {
        Expr::HigherOrderFunction(_) | Expr::Lambda(_) | Expr::LambdaVariable(_) => {
            Err(refused("a function of functions is not allowed here".to_owned()))
        }
        Expr::Cast(cast) if !is_small(cast.field.data_type()) => Err(refused(too_wide())),
        Expr::TryCast(cast) if !is_small(cast.field.data_type()) => Err(refused(too_wide())),
        other => patterns::check_operator(other),
    }
}

/// Checks the type that a call names.
fn check_cast(args: &[Expr]) -> Result<()> {
    let named = match args.get(1) {
        Some(Expr::Literal(name, _)) => name.try_as_str().flatten().and_then(|name| name.parse::<DataType>().ok()),
        _ => None,
    };
    match named {
        Some(data_type) if is_small(&data_type) => Ok(()),
        Some(_) => Err(refused(too_wide())),
        None => Err(refused("a cast needs the name of a type, such as 'Int64'".to_owned())),
    }
}

fn too_wide() -> String {
    format!("a list of a fixed size has at most {FIXED} elements here")
}

/// Whether a value of the type takes little when it is null.
fn is_small(data_type: &DataType) -> bool {
    match data_type {
        DataType::FixedSizeList(field, elements) => *elements <= FIXED && is_flat(field.data_type()),
        DataType::FixedSizeBinary(bytes) => *bytes <= FIXED,
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

/// Checks a condition of a search, which is evaluated while a table is read: it calls no function that makes larger values
/// than it is given.
///
/// # Errors
/// [`SearchError::NotAllowed`].
pub(crate) fn check_condition(condition: &Expr) -> std::result::Result<(), SearchError> {
    let mut joins = 0;
    let checked = condition.apply(|expression| {
        match expression {
            Expr::ScalarFunction(function) => {
                let name = function.func.name();
                patterns::check_call(name, &function.args)?;
                if !names::SCALAR.contains(&name) {
                    return Err(refused(format!("`{name}` is not allowed in a condition here")));
                }
            }
            Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => joins += 1,
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
                return Err(refused("a query is not allowed in a condition".to_owned()));
            }
            other => check_expression(other)?,
        }
        if joins > JOINS {
            return Err(refused(format!("a condition joins texts at most {JOINS} times here")));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    checked?;
    Ok(())
}

fn not_allowed(name: &str) -> String {
    let instead: HashMap<&str, &str> =
        [("named_struct", "select the columns one by one"), ("struct", "select the columns one by one")].into();
    match instead.get(name) {
        Some(instead) => format!("`{name}` is not allowed here: {instead}"),
        None => format!("`{name}` is not one of the functions that are allowed here"),
    }
}

fn refused(message: String) -> DataFusionError {
    DataFusionError::External(Box::new(SearchError::NotAllowed(message)))
}
