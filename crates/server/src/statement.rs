//! What a statement or a condition may be before anything is planned.
//!
//! A session reads and never writes, and its memory, its rows and its time are limited. What is refused here are those
//! that get around these limits: planners go down a call for each level of an expression, and some functions make a
//! value of any size out of nothing, which no memory pool counts.

use std::ops::ControlFlow;

use axum::http::StatusCode;
use datafusion::sql::{
    parser::{DFParser, Statement as AnyStatement},
    sqlparser::{
        ast::{
            BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Statement, Value,
            Visit, Visitor, visit_expressions_mut,
        },
        dialect::GenericDialect,
        tokenizer::{Token, Tokenizer},
    },
};
use polylance_search::parse_condition;

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

/// Calls that join texts or lists: each makes a value as many times as large as it has arguments.
const JOINING: [&str; 6] = ["array_cat", "array_concat", "concat", "concat_ws", "list_cat", "list_concat"];
/// Calls that put a text in the places of others.
const REPLACING: [&str; 3] = ["overlay", "regexp_replace", "replace"];
/// How many times as large a statement may make a value, if each of its calls feeds the next.
const GROWTH: usize = 4096;

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

/// Checks a condition on a table's columns.
pub(crate) fn check_condition(condition: &str, longest: usize) -> Result<Condition, ApiError> {
    check_parts(condition, longest, "where")?;
    let invalid = |error: String| {
        let error = ApiError::bad("invalid_filter", format!("the condition does not fit: {error}")).param("where");
        error.hint("`GET /v1/tables` lists the columns")
    };
    let expression = parse_condition(condition).map_err(invalid)?;
    check_functions(&expression)?;
    Ok(Condition(expression))
}

/// A condition that is one expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition(Expr);

impl Condition {
    /// The condition as SQL. In a condition as Lance reads it names are as they are written, backticks stand around
    /// those that are no plain words, and double quotes around texts.
    pub(crate) fn sql(&self) -> String {
        let mut expression = self.0.clone();
        let quote = |name: &mut Ident| name.quote_style = Some('"');
        let _whole: ControlFlow<()> = visit_expressions_mut(&mut expression, |part| {
            match part {
                Expr::Identifier(name) if name.quote_style == Some('"') => {
                    *part = Expr::value(Value::SingleQuotedString(std::mem::take(&mut name.value)));
                }
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

fn check_functions(tree: &impl Visit) -> Result<(), ApiError> {
    let mut functions = Functions { growth: 1 };
    match tree.visit(&mut functions) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Functions {
    growth: usize,
}

impl Functions {
    fn called(&mut self, function: &Function) -> ControlFlow<ApiError> {
        let name = function.name.to_string().to_lowercase();
        let name = name.trim_matches('"');
        if BOUNDLESS.contains(&name) {
            let message = format!("`{name}` is not allowed here: its values have no limit");
            return ControlFlow::Break(ApiError::new(StatusCode::FORBIDDEN, "not_allowed", message));
        }
        let arguments = arguments(function);
        if JOINING.contains(&name) {
            return self.grow(arguments.iter().filter(|argument| literal(argument).is_none()).count());
        }
        if REPLACING.contains(&name) {
            return self.grow(match arguments.as_slice() {
                [_, from, to, ..] => replaced(literal(from), literal(to)),
                _ => 1,
            });
        }
        ControlFlow::Continue(())
    }

    fn grow(&mut self, times: usize) -> ControlFlow<ApiError> {
        self.growth = self.growth.saturating_mul(times.max(1));
        if self.growth > GROWTH {
            let message = format!("the statement could make a value more than {GROWTH} times as large");
            return ControlFlow::Break(ApiError::too_much("too_large", message).hint("join or replace fewer texts"));
        }
        ControlFlow::Continue(())
    }
}

fn arguments(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    list.args
        .iter()
        .filter_map(|argument| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expression)) => Some(expression),
            _ => None,
        })
        .collect()
}

fn literal(expression: &Expr) -> Option<&str> {
    let Expr::Value(value) = expression else { return None };
    match &value.value {
        Value::SingleQuotedString(text) => Some(text),
        _ => None,
    }
}

/// How many times as large a text becomes: a pattern may stand for one character, or for none between any two.
fn replaced(from: Option<&str>, to: Option<&str>) -> usize {
    let Some(to) = to else { return GROWTH };
    let plain = from.filter(|from| !from.is_empty() && from.chars().all(char::is_alphanumeric));
    plain.map_or(to.len() + 1, |from| to.len().div_ceil(from.len()))
}

impl Visitor for Functions {
    type Break = ApiError;

    fn pre_visit_expr(&mut self, expression: &Expr) -> ControlFlow<ApiError> {
        match expression {
            Expr::Function(function) => self.called(function),
            Expr::BinaryOp { op: BinaryOperator::StringConcat, left, right } => {
                let constant = [left, right].into_iter().any(|side| literal(side).is_some());
                self.grow(if constant { 1 } else { 2 })
            }
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
        assert_eq!(code(&format!("SELECT v{} FROM t", "||v".repeat(20))), Some("too_large"));
        assert_eq!(code("SELECT 1; SELECT 2"), Some("invalid_sql"));
        assert_eq!(code(""), Some("invalid_sql"));
        assert_eq!(code(&format!("SELECT {}1{}", "(".repeat(400), ")".repeat(400))), Some("invalid_sql"));
    }

    #[test]
    fn what_grows_beyond_measure_is_refused() {
        let nested =
            |call: &str, end: &str, times| format!("SELECT {}text{} FROM t", call.repeat(times), end.repeat(times));
        assert_eq!(code(&nested("replace(", ", 'e', 'ee')", 12)), None);
        assert_eq!(code(&nested("replace(", ", 'e', 'ee')", 13)), Some("too_large"));
        assert_eq!(code(&nested("replace(", ", 'ab', 'c')", 16)), None);
        assert_eq!(code(&nested("regexp_replace(", ", '.', 'eeeeeee')", 5)), Some("too_large"));
        assert_eq!(code("SELECT replace(replace(text, 'e', text), 'x', text) FROM t"), Some("too_large"));
        assert_eq!(code("SELECT a || ', ' || b || ', ' || c || '.' FROM t"), None);
        assert_eq!(code(&nested("concat(text, ", ")", 13)), Some("too_large"));
    }

    #[test]
    fn a_condition_is_one_expression() {
        let sql = |condition: &str| check_condition(condition, 99).unwrap().sql();
        assert_eq!(sql("lang = 'it''s' and x>1"), "\"lang\" = 'it''s' AND \"x\" > 1");
        assert_eq!(sql("`a b` = \"it's\" or t.Label = 1"), "\"a b\" = 'it''s' OR \"t\".\"Label\" = 1");
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
