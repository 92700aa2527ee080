//! SQL conditions on a table's columns.

use std::{ops::ControlFlow, sync::Arc};

use arrow::datatypes::Schema;
use datafusion::sql::sqlparser::{
    ast::{Expr, Value, ValueWithSpan, Visit, Visitor},
    dialect::GenericDialect,
    parser::Parser,
    tokenizer::Token,
};
use lance::{Dataset, io::exec::Planner};

use crate::{SearchError, sql::limits};

/// Plans the condition alone, to tell its errors from others. With `limited` it computes nothing that takes long or makes
/// large values.
pub(crate) async fn check(dataset: &Dataset, condition: &str, limited: bool) -> Result<(), SearchError> {
    let refused = |source| SearchError::Filter { filter: condition.to_owned(), source: Box::new(source) };
    parse_condition(condition).map_err(|message| refused(lance::Error::invalid_input(message)))?;
    if limited {
        let planner = Planner::new(Arc::new(Schema::from(dataset.schema())));
        limits::check_condition(&planner.parse_filter(condition).map_err(refused)?)?;
    }
    let mut scanner = dataset.scan();
    scanner.filter(condition).map_err(refused)?;
    Box::pin(scanner.create_plan()).await.map_err(refused)?;
    Ok(())
}

/// A condition on a table's columns as the one expression of plain values that it must be: Lance's planner would leave out
/// what stands behind it, and would end the process at a parameter such as `$1`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_condition(condition: &str) -> Result<Expr, String> {
    let wrong = |error: datafusion::sql::sqlparser::parser::ParserError| error.to_string();
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(condition).map_err(wrong)?;
    let expression = parser.parse_expr().map_err(wrong)?;
    match parser.peek_token().token {
        Token::EOF => {}
        behind => return Err(format!("`{behind}` stands behind the condition")),
    }
    match expression.visit(&mut PlainValues) {
        ControlFlow::Break(value) => Err(format!("`{value}` is no value that a condition can have")),
        ControlFlow::Continue(()) => Ok(expression),
    }
}

/// Stops at a value that Lance's planner cannot read.
struct PlainValues;

impl Visitor for PlainValues {
    type Break = String;

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> ControlFlow<String> {
        match &value.value {
            Value::Number(..)
            | Value::SingleQuotedString(_)
            | Value::DoubleQuotedString(_)
            | Value::HexStringLiteral(_)
            | Value::Boolean(_)
            | Value::Null => ControlFlow::Continue(()),
            other => ControlFlow::Break(other.to_string()),
        }
    }
}

/// `column = 'value'`, whatever the value holds.
pub(crate) fn equals(column: &str, value: &str) -> String {
    format!("{column} = '{}'", value.replace('\'', "''"))
}

/// Both conditions.
pub(crate) fn and(one: Option<String>, other: String) -> String {
    match one {
        Some(one) => format!("({one}) AND ({other})"),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_one_expression_of_plain_values() {
        for right in ["a = 1", "a IN ('x', 'y') AND NOT b", "`odd name` IS NULL OR c > -1.5e3", "x LIKE '%y'"] {
            assert_eq!(parse_condition(right).map(drop), Ok(()), "{right}");
        }
        for wrong in ["", "a =", "1 = 1) OR (1 = 1", "a = $1", "a = ?", "a = N'x'", "a = $$x$$", "a = 1; DROP TABLE t"]
        {
            assert!(parse_condition(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_quote_stays_inside_the_value() {
        assert_eq!(equals("doc_id", "it's' OR 1=1"), "doc_id = 'it''s'' OR 1=1'");
        assert_eq!(and(Some("a = 1 OR b = 2".to_owned()), "c".to_owned()), "(a = 1 OR b = 2) AND (c)");
    }
}
