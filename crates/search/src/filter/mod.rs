//! SQL conditions on a table's columns.

mod literals;

use std::{
    ops::ControlFlow,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{DataType, Schema};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    error::DataFusionError,
    execution::{SessionStateBuilder, context::SessionConfig, session_state::SessionState},
    logical_expr::{Expr, ExprSchemable, ident, lit, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    sql::sqlparser::{
        ast::{self as sql, ExprWithAlias, Ident, Value, ValueWithSpan, Visit, Visitor, visit_expressions_mut},
        dialect::GenericDialect,
        parser::Parser,
        tokenizer::Token,
    },
};

use crate::{SearchError, limits};

/// The condition as the filter of a scan of a table with this schema.
///
/// A name is a column as it is written, in double quotes or backticks when it is not a plain word; a plain word also finds
/// the only column that differs from it in case. A value takes the type of the column that it is compared with.
///
/// # Errors
/// [`SearchError::Filter`], with the column and the value.
pub fn plan_condition(condition: &str, schema: &Schema) -> Result<Expr, SearchError> {
    plan(condition, schema, false)
}

/// As [`plan_condition`]. A limited condition calls only functions that neither take long nor make large values; this is
/// checked before any part of it is computed.
pub(crate) fn plan(condition: &str, schema: &Schema, limited: bool) -> Result<Expr, SearchError> {
    let refused = |reason| SearchError::Filter { filter: condition.to_owned(), reason };
    let planned = as_written(condition, schema).map_err(refused)?;
    if limited {
        limits::check_condition(&planned)?;
    }
    simplified(planned, schema).map_err(refused)
}

/// The condition with its values in the types of the columns, as a scan needs it.
///
/// # Errors
/// [`SearchError::Filter`] when a value does not fit its column's type.
pub(crate) fn typed(condition: Expr, schema: &Schema) -> Result<Expr, SearchError> {
    let filter = condition.to_string();
    simplified(condition, schema).map_err(|reason| SearchError::Filter { filter, reason })
}

/// The condition as a logical expression, before anything is computed.
fn as_written(condition: &str, schema: &Schema) -> Result<Expr, String> {
    let mut parsed = parse_condition(condition)?;
    resolve_names(&mut parsed, schema)?;
    let text = |error: DataFusionError| error.strip_backtrace();
    let columns = DFSchema::try_from(schema.clone()).map_err(text)?;
    let parsed = ExprWithAlias { expr: parsed, alias: None };
    let planned = PLANNER.create_logical_expr_from_sql_expr(parsed, &columns).map_err(text)?;
    check_parts(&planned, schema)?;
    Ok(planned)
}

/// The condition with its values in the types of the columns and its constants computed.
fn simplified(planned: Expr, schema: &Schema) -> Result<Expr, String> {
    let text = |error: DataFusionError| error.strip_backtrace();
    let columns = DFSchema::try_from(schema.clone()).map_err(text)?;
    let typed = literals::with_types(planned, &columns)?;
    let context = SimplifyContext::builder()
        .with_schema(Arc::new(columns.clone()))
        .with_query_execution_start_time(Some(chrono::Utc::now()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let coerced = simplifier.coerce(typed, &columns).map_err(text)?;
    match coerced.get_type(&columns).map_err(text)? {
        DataType::Boolean | DataType::Null => {}
        other => return Err(format!("it has the type {other}, expected true or false")),
    }
    simplifier.simplify(coerced).map_err(text)
}

/// DataFusion's planner of SQL. Numbers with a fraction keep all their digits, and names keep their case.
static PLANNER: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new();
    let parser = &mut config.options_mut().sql_parser;
    parser.parse_float_as_decimal = true;
    parser.enable_ident_normalization = false;
    parser.map_string_types_to_utf8view = false;
    SessionStateBuilder::new().with_config(config).with_default_features().build()
});

/// Replaces each name by the one in the schema.
fn resolve_names(condition: &mut sql::Expr, schema: &Schema) -> Result<(), String> {
    let resolve = |name: &mut Ident| {
        let fields = schema.fields();
        if name.quote_style.is_none() && fields.find(&name.value).is_none() {
            let mut alike = fields.iter().filter(|field| field.name().eq_ignore_ascii_case(&name.value));
            if let (Some(field), None) = (alike.next(), alike.next()) {
                name.value.clone_from(field.name());
            }
        }
        name.quote_style = Some('"');
        match fields.find(&name.value) {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(no_column(&name.value)),
        }
    };
    let resolved: ControlFlow<String> = visit_expressions_mut(condition, |part| {
        match part {
            sql::Expr::Identifier(name) => resolve(name)?,
            sql::Expr::CompoundIdentifier(names) => {
                if let Some(column) = names.first_mut() {
                    resolve(column)?;
                }
                for name in names.iter_mut() {
                    name.quote_style = Some('"');
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    });
    match resolved {
        ControlFlow::Break(missing) => Err(missing),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn no_column(name: &str) -> String {
    format!("there is no column `{name}` (texts are in single quotes)")
}

/// Checks that the condition is computed from the columns of one row.
fn check_parts(condition: &Expr, schema: &Schema) -> Result<(), String> {
    let mut wrong = None;
    let walked = condition.apply(|part| {
        wrong = match part {
            Expr::Column(column) if schema.fields().find(&column.name).is_none() || column.relation.is_some() => {
                Some(no_column(&column.flat_name()))
            }
            Expr::AggregateFunction(_) | Expr::WindowFunction(_) => {
                Some(format!("`{part}` is computed from many rows, a condition from one"))
            }
            _ => None,
        };
        Ok(if wrong.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| error.strip_backtrace())?;
    wrong.map_or(Ok(()), Err)
}

/// Parses a condition on a table's columns: one expression with nothing after it, without parameters such as `$1` and
/// without queries.
///
/// # Errors
/// The reason, as a text.
pub fn parse_condition(condition: &str) -> Result<sql::Expr, String> {
    let wrong = |error: datafusion::sql::sqlparser::parser::ParserError| error.to_string();
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(condition).map_err(wrong)?;
    let expression = parser.parse_expr().map_err(wrong)?;
    match parser.peek_token().token {
        Token::EOF => {}
        rest => return Err(format!("unexpected `{rest}` after the condition")),
    }
    match expression.visit(&mut PlainValues) {
        ControlFlow::Break(value) => Err(format!("`{value}` cannot be used in a condition")),
        ControlFlow::Continue(()) => Ok(expression),
    }
}

/// Stops at a query and at a value that is not a plain literal.
struct PlainValues;

impl Visitor for PlainValues {
    type Break = String;

    fn pre_visit_query(&mut self, query: &sql::Query) -> ControlFlow<String> {
        ControlFlow::Break(query.to_string())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        match &value.value {
            Value::Number(..)
            | Value::SingleQuotedString(_)
            | Value::HexStringLiteral(_)
            | Value::Boolean(_)
            | Value::Null => ControlFlow::Continue(()),
            other => ControlFlow::Break(other.to_string()),
        }
    }
}

/// The condition that a column has this text.
pub(crate) fn equals(column: &str, text: &str) -> Expr {
    ident(column).eq(lit(text))
}

/// The conjunction of both conditions.
pub(crate) fn and(one: Option<Expr>, other: Expr) -> Expr {
    match one {
        Some(one) => one.and(other),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn condition_is_one_expression_of_plain_values() {
        for right in ["a = 1", "a IN ('x', 'y') AND NOT b", "`odd name` IS NULL OR c > -1.5e3", "x LIKE '%y'"] {
            assert_eq!(parse_condition(right).map(drop), Ok(()), "{right}");
        }
        for wrong in ["", "a =", "1 = 1) OR (1 = 1", "a = $1", "a = ?", "a = N'x'", "a = $$x$$", "a = 1; DROP TABLE t"]
        {
            assert!(parse_condition(wrong).is_err(), "{wrong}");
        }
    }
}
