//! Checks before planning, because planning itself would compute the refused parts or never end.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement,
    sqlparser::ast::{BinaryOperator, Expr, ObjectName, Query, TableFactor, Visit, Visitor},
};

use super::{names, refusal::unlisted_function};
use crate::SearchError;

/// Checks a parsed statement.
pub(super) fn check(statement: &Statement) -> Result<(), SearchError> {
    let inner = match statement {
        Statement::Statement(inner) => inner.as_ref(),
        Statement::Explain(explained) => return check(&explained.statement),
        // Planning refuses other statements.
        _ => return Ok(()),
    };
    outcome(inner.visit(&mut Syntax))
}

fn outcome(visited: ControlFlow<SearchError>) -> Result<(), SearchError> {
    match visited {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn refuse(message: String) -> ControlFlow<SearchError> {
    ControlFlow::Break(SearchError::NotAllowed(message))
}

struct Syntax;

impl Visitor for Syntax {
    type Break = SearchError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SearchError> {
        if query.with.as_ref().is_some_and(|with| with.recursive) {
            return refuse("a recursive query is not allowed here: it has no end of its own".to_owned());
        }
        ControlFlow::Continue(())
    }

    /// The planner computes the arguments of a table function.
    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<SearchError> {
        match table {
            TableFactor::Table { args: Some(args), .. } => args.visit(&mut Constants),
            TableFactor::Function { args, .. } => args.visit(&mut Constants),
            TableFactor::TableFunction { expr, .. } => expr.visit(&mut Constants),
            _ => ControlFlow::Continue(()),
        }
    }

    /// The type of a struct of structs can double with each level.
    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<SearchError> {
        match expression {
            Expr::Function(function) => match function_name(&function.name) {
                Some(name) if names::REFUSED.contains(&name.as_str()) => refuse(unlisted_function(&name)),
                _ => ControlFlow::Continue(()),
            },
            Expr::Struct { .. } | Expr::Dictionary(_) | Expr::Map(_) | Expr::Tuple(_) => {
                refuse("a struct or a map cannot be made here".to_owned())
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The last part of a name, without quotes and in lower case.
fn function_name(name: &ObjectName) -> Option<String> {
    let ident = name.0.last()?.as_ident()?;
    Some(ident.value.to_lowercase())
}

/// Stops at an expression that is not a constant.
struct Constants;

impl Visitor for Constants {
    type Break = SearchError;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<SearchError> {
        let constant = match expression {
            Expr::Value(_)
            | Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::UnaryOp { .. }
            | Expr::Nested(_)
            | Expr::TypedString(_)
            | Expr::Interval(_)
            | Expr::Cast { .. } => true,
            Expr::BinaryOp { op, .. } => *op != BinaryOperator::StringConcat,
            _ => false,
        };
        if constant {
            return ControlFlow::Continue(());
        }
        refuse(format!("the arguments of a table function are constants, not `{expression}`"))
    }
}
