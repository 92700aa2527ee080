//! What a statement or a condition may be before anything is planned.
//!
//! A session reads and never writes, and its memory, its rows and its time are limited. What is refused here are those
//! that get around these limits: planners go down a call for each level of an expression, and some functions make a
//! value of any size out of nothing, which no memory pool counts.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{DFParser, Statement as AnyStatement},
    sqlparser::{
        ast::{BinaryOperator, Expr, Function, Statement, Visit, Visitor},
        dialect::GenericDialect,
        parser::Parser,
        tokenizer::{Token, Tokenizer},
    },
};

use crate::error::ApiError;

/// Words, operators and brackets of a statement; values and the commas between them are not counted. No expression
/// nests deeper than it has of these.
const PARTS: usize = 1000;

/// Functions that make values as large as one likes.
const BOUNDLESS: [&str; 11] = [
    "array_repeat",
    "array_resize",
    "generate_series",
    "list_repeat",
    "list_resize",
    "lpad",
    "range",
    "repeat",
    "rpad",
    "space",
    "string_to_list",
];

/// Calls that join texts or lists, of which one may feed the next: each can double what it is given.
const GROWING: [&str; 9] = [
    "array_cat",
    "array_concat",
    "concat",
    "concat_ws",
    "list_cat",
    "list_concat",
    "overlay",
    "regexp_replace",
    "replace",
];
const GROWING_CALLS: usize = 16;

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
    if let AnyStatement::Statement(statement) = inner {
        check_functions(statement.as_ref())?;
        if !matches!(statement.as_ref(), Statement::Query(_)) || sql.to_lowercase().contains("information_schema") {
            tells = Tells::Plans;
        }
    }
    Ok(tells)
}

/// Checks a condition on a table's columns, and gives it back as the one expression that it is.
pub(crate) fn check_condition(condition: &str, longest: usize) -> Result<String, ApiError> {
    check_parts(condition, longest, "where")?;
    let invalid = |error: String| {
        let error = ApiError::bad("invalid_filter", format!("the condition does not fit: {error}")).param("where");
        error.hint("`GET /v1/tables` lists the columns")
    };
    let mut parser =
        Parser::new(&GenericDialect {}).try_with_sql(condition).map_err(|error| invalid(error.to_string()))?;
    let expression = parser.parse_expr().map_err(|error| invalid(error.to_string()))?;
    let behind = parser.peek_token().token;
    if behind != Token::EOF {
        return Err(invalid(format!("`{behind}` stands behind it")));
    }
    check_functions(&expression)?;
    Ok(expression.to_string())
}

fn check_parts(sql: &str, longest: usize, param: &'static str) -> Result<(), ApiError> {
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

fn check_functions(tree: &impl Visit) -> Result<(), ApiError> {
    let mut functions = Functions { growing: 0 };
    match tree.visit(&mut functions) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Functions {
    growing: usize,
}

impl Functions {
    fn called(&mut self, function: &Function) -> ControlFlow<ApiError> {
        let name = function.name.to_string().to_lowercase();
        if BOUNDLESS.contains(&name.as_str()) {
            let message = format!("`{name}` is not allowed here: its values have no limit");
            return ControlFlow::Break(ApiError::new(axum::http::StatusCode::FORBIDDEN, "not_allowed", message));
        }
        if GROWING.contains(&name.as_str()) { self.grown() } else { ControlFlow::Continue(()) }
    }

    fn grown(&mut self) -> ControlFlow<ApiError> {
        self.growing += 1;
        if self.growing > GROWING_CALLS {
            let message = format!("texts and lists may be joined {GROWING_CALLS} times in a statement");
            return ControlFlow::Break(ApiError::too_much("too_long", message));
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Functions {
    type Break = ApiError;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<ApiError> {
        match expression {
            Expr::Function(function) => self.called(function),
            Expr::BinaryOp { op: BinaryOperator::StringConcat, .. } | Expr::Overlay { .. } => self.grown(),
            _ => ControlFlow::Continue(()),
        }
    }
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
    fn what_has_no_limit_is_refused() {
        assert_eq!(code("SELECT repeat('x', 1000000000)"), Some("not_allowed"));
        assert_eq!(code("EXPLAIN SELECT a FROM (SELECT LPAD('x', 9) a)"), Some("not_allowed"));
        assert_eq!(code(&format!("SELECT 1{}", "+x".repeat(600))), Some("too_long"));
        assert_eq!(code(&format!("SELECT '{}'", "x".repeat(20_000))), Some("too_long"));
        assert_eq!(code(&format!("SELECT v{} FROM t", "||v".repeat(20))), Some("too_long"));
        assert_eq!(code("SELECT 1; SELECT 2"), Some("invalid_sql"));
        assert_eq!(code(""), Some("invalid_sql"));
        assert_eq!(code(&format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400))), Some("invalid_sql"));
    }

    #[test]
    fn a_condition_is_one_expression() {
        assert_eq!(check_condition("lang = 'it''s' and x>1", 99), Ok("lang = 'it''s' AND x > 1".to_owned()));
        for wrong in ["", "a = 1; DROP TABLE t", "1 = 1) GROUP BY (1", "a = ", "SELECT 1"] {
            assert_eq!(check_condition(wrong, 99).unwrap_err().code, "invalid_filter", "{wrong}");
        }
    }
}
