//! Checks of a statement or a condition before it is planned.
//!
//! A session only reads, and its memory, rows, time and functions are limited. The checks here refuse statements that the
//! planner itself would not survive.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{DFParser, Statement as AnyStatement},
    sqlparser::ast::{Expr, Ident, Statement, visit_expressions_mut},
};
use polylance_search::parse_condition;

use crate::{error::ApiError, limits::statement_size::check_size};

/// Whether the rows of a statement may reveal where the tables are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sensitivity {
    /// The rows are values of the tables.
    Values,
    /// The rows are plans or settings, which contain addresses: they must be redacted.
    Addresses,
}

/// Checks a statement. The planner checks it further.
pub(crate) fn check_statement(sql: &str, max_bytes: usize) -> Result<Sensitivity, ApiError> {
    check_size(sql, max_bytes, "sql")?;
    let invalid = |error: String| ApiError::bad("invalid_sql", error).param("sql");
    let mut statements = DFParser::parse_sql(sql).map_err(|error| invalid(error.to_string()))?;
    if statements.len() != 1 {
        return Err(invalid(format!("expected one statement, found {}", statements.len())));
    }
    let Some(statement) = statements.pop_front() else { return Err(invalid("there is no statement".to_owned())) };
    let mut sensitivity = Sensitivity::Values;
    let mut inner = &statement;
    while let AnyStatement::Explain(explained) = inner {
        sensitivity = Sensitivity::Addresses;
        inner = &explained.statement;
    }
    // Other kinds of statements are refused by the session.
    if let AnyStatement::Statement(statement) = inner
        && (!matches!(statement.as_ref(), Statement::Query(_)) || sql.to_lowercase().contains("information_schema"))
    {
        sensitivity = Sensitivity::Addresses;
    }
    Ok(sensitivity)
}

/// Checks a condition on a table's columns.
pub(crate) fn check_condition(condition: &str, max_bytes: usize) -> Result<Condition, ApiError> {
    check_size(condition, max_bytes, "where")?;
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
    /// The condition as SQL with all names quoted, so that their case is kept.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn code(sql: &str) -> Option<&'static str> {
        check_statement(sql, 16 << 10).err().map(|error| error.code)
    }

    #[test]
    fn queries_return_values_and_plans_return_addresses() {
        let many: Vec<String> = (0..2000).map(|number| number.to_string()).collect();
        let long_list = format!("SELECT * FROM t WHERE x IN ({})", many.join(","));
        for sql in ["SELECT a FROM t WHERE b = 'x' ORDER BY c LIMIT 3", long_list.as_str()] {
            assert_eq!(check_statement(sql, 16 << 10), Ok(Sensitivity::Values));
        }
        for sql in
            ["EXPLAIN SELECT 1", "EXPLAIN ANALYZE SELECT 1", "SHOW TABLES", "SELECT * FROM Information_Schema.tables"]
        {
            assert_eq!(check_statement(sql, 16 << 10), Ok(Sensitivity::Addresses), "{sql}");
        }
        // Series are streamed, so their size is not checked.
        assert_eq!(code("SELECT count(*) FROM generate_series(1, 10)"), None);
    }

    #[test]
    fn long_deep_and_multiple_statements_are_refused() {
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
