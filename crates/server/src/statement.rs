//! What a statement or a condition may be before anything is planned.
//!
//! A session reads and never writes, and its memory, its rows, its time and its functions are limited. What is refused here
//! are statements that the planner itself would not survive: it goes down a call for each level of an expression.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{DFParser, Statement as AnyStatement},
    sqlparser::{
        ast::{Expr, Ident, Statement, visit_expressions_mut},
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use polylance_search::parse_condition;

use crate::error::ApiError;

/// Words, operators and brackets of a statement; values and the commas between them are not counted. No expression
/// nests deeper than it has of these.
const PARTS: usize = 1000;

/// What an answer may tell of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tells {
    /// The tables' rows.
    Rows,
    /// Plans or settings, in which there are addresses.
    Plans,
}

/// Checks a statement; the planner then has its own say.
pub(crate) fn check(sql: &str, longest: usize) -> Result<Tells, ApiError> {
    check_parts(sql, longest, "sql")?;
    let invalid = |error: String| ApiError::bad("invalid_sql", error).param("sql");
    let mut statements = DFParser::parse_sql(sql).map_err(|error| invalid(error.to_string()))?;
    if statements.len() != 1 {
        return Err(invalid(format!("one statement is expected, not {}", statements.len())));
    }
    let Some(statement) = statements.pop_front() else { return Err(invalid("there is no statement".to_owned())) };
    let mut tells = Tells::Rows;
    let mut inner = &statement;
    while let AnyStatement::Explain(explained) = inner {
        tells = Tells::Plans;
        inner = &explained.statement;
    }
    // Other statements are refused by the session.
    if let AnyStatement::Statement(statement) = inner
        && (!matches!(statement.as_ref(), Statement::Query(_)) || sql.to_lowercase().contains("information_schema"))
    {
        tells = Tells::Plans;
    }
    Ok(tells)
}

/// Checks a condition on a table's columns.
pub(crate) fn check_condition(condition: &str, longest: usize) -> Result<Condition, ApiError> {
    check_parts(condition, longest, "where")?;
    let invalid = |error: String| {
        let error = ApiError::bad("invalid_filter", format!("the condition does not fit: {error}")).param("where");
        error.hint("`GET /v1/tables` lists the columns")
    };
    let expression = parse_condition(condition).map_err(invalid)?;
    Ok(Condition(expression))
}

/// A condition that is one expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition(Expr);

impl Condition {
    /// The condition as SQL, in which names are as they are written.
    pub(crate) fn sql(&self) -> String {
        let mut expression = self.0.clone();
        let quote = |name: &mut Ident| name.quote_style = Some('"');
        let _whole: ControlFlow<()> = visit_expressions_mut(&mut expression, |part| {
            match part {
                Expr::Identifier(name) => quote(name),
                Expr::CompoundIdentifier(names) => names.iter_mut().for_each(quote),
                _ => {}
            }
            ControlFlow::Continue(())
        });
        expression.to_string()
    }
}

/// Checks how much there is of a statement: what is parsed nests no deeper.
pub(crate) fn check_parts(sql: &str, longest: usize, param: &'static str) -> Result<(), ApiError> {
    let too_long = |message: String| Err(ApiError::too_much("too_long", message).param(param));
    if sql.len() > longest {
        return too_long(format!("it has {} bytes, and may have {longest}", sql.len()));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| ApiError::bad("invalid_sql", error.to_string()).param(param))?;
    let value = |token: &Token| {
        matches!(token, Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_))
    };
    let parts = tokens.iter().filter(|token| !value(token)).count();
    if parts > PARTS {
        return too_long(format!("it has {parts} words, operators and brackets, and may have {PARTS}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sql: &str) -> Option<&'static str> {
        check(sql, 16 << 10).err().map(|error| error.code)
    }

    #[test]
    fn a_query_passes_and_a_plan_is_known() {
        let many: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        let long_list = format!("SELECT * FROM t WHERE x IN ({})", many.join(","));
        for sql in ["SELECT a FROM t WHERE b = 'x' ORDER BY c LIMIT 3", long_list.as_str()] {
            assert_eq!(check(sql, 16 << 10), Ok(Tells::Rows));
        }
        for sql in
            ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "SHOW TABLES", "SELECT * FROM Information_Schema.tables"]
        {
            assert_eq!(check(sql, 16 << 10), Ok(Tells::Plans), "{sql}");
        }
        // A table of numbers is streamed.
        assert_eq!(code("SELECT count(*) FROM generate_series(1, 10)"), None);
    }

    #[test]
    fn what_is_too_long_or_no_single_statement_is_refused() {
        assert_eq!(code(&format!("SELECT 1{}", "+x".repeat(600))), Some("too_long"));
        assert_eq!(code(&format!("SELECT '{}'", "x".repeat(20_000))), Some("too_long"));
        assert_eq!(code("SELECT 1; SELECT 2"), Some("invalid_sql"));
        assert_eq!(code(""), Some("invalid_sql"));
        assert_eq!(code(&format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400))), Some("invalid_sql"));
    }

    #[test]
    fn a_condition_is_one_expression() {
        let sql = |condition: &str| check_condition(condition, 99).unwrap().sql();
        assert_eq!(sql("lang = 'it''s' and x>1"), "\"lang\" = 'it''s' AND \"x\" > 1");
        assert_eq!(sql("`a b` = \"it's\" or t.Label = 1"), "\"a b\" = \"it's\" OR \"t\".\"Label\" = 1");
        for wrong in [
            "",
            "a = 1 ORDER BY b",
            "a = 1; DROP TABLE t",
            "1 = 1) GROUP BY (1",
            "a = ",
            "SELECT 1",
            "a = $1",
            "a IN (1, ?)",
            "a = $$x$$",
        ] {
            assert_eq!(check_condition(wrong, 99).unwrap_err().code, "invalid_filter", "{wrong}");
        }
    }
}
