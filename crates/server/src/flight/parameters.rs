//! Prepared statements with parameters: `$1`, `$2` …, or a `?` for each in order.
//!
//! Values replace parameters in the parsed statement, before planning. So a parameter may be used wherever a constant
//! may, such as the query of a search or a limit, and a statement with values is checked like any other. The server keeps
//! no state: the handle of a statement is its text, followed by the text with the values. Statements must be parsed on
//! the runtimes for statements, whose stacks are deep.

use std::ops::ControlFlow;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::DataType,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::sql::{
    parser::{DFParser, Statement},
    sqlparser::ast::{self, Expr, TypedString, UnaryOperator, Value, visit_expressions_mut},
};
use prost::bytes::Bytes;

use crate::{error::ApiError, limits::statement_size::check_size};

/// Parameters of a statement.
const MAX_PARAMETERS: usize = 1000;

/// Separates the two texts of a handle; no statement contains it.
const HANDLE_SEPARATOR: char = '\0';

/// A statement, and the same statement with values in place of its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PreparedStatement {
    text: String,
    bound: Option<String>,
}

impl PreparedStatement {
    pub(super) fn new(text: String) -> Self {
        Self { text, bound: None }
    }

    pub(super) fn from_handle(handle: Bytes) -> Result<Self, ApiError> {
        let foreign = || ApiError::bad("invalid_request", "the handle is not a statement of this server");
        let text = String::from_utf8(handle.into()).map_err(|_| foreign())?;
        Ok(match text.split_once(HANDLE_SEPARATOR) {
            Some((text, bound)) => Self { text: text.to_owned(), bound: Some(bound.to_owned()) },
            None => Self::new(text),
        })
    }

    pub(super) fn handle(&self) -> Bytes {
        match &self.bound {
            Some(bound) => format!("{}{HANDLE_SEPARATOR}{bound}", self.text).into(),
            None => self.text.clone().into(),
        }
    }

    /// The number of parameters, and the text with a number for each `?`. A statement that cannot be parsed has none: the
    /// planner returns the error. A text of more than `max_bytes` is refused.
    pub(super) fn numbered(&self, max_bytes: usize) -> Result<(usize, String), ApiError> {
        let Some(mut statement) = parse(&self.text, max_bytes)? else { return Ok((0, self.text.clone())) };
        let mut count = 0;
        replace_parameters(&mut statement, |at| {
            count = count.max(at + 1);
            Ok(Expr::value(Value::Placeholder(format!("${}", at + 1))))
        })?;
        Ok((count, if count == 0 { self.text.clone() } else { statement.to_string() }))
    }

    /// The statement to run.
    pub(super) fn sql(self, max_bytes: usize) -> Result<String, ApiError> {
        if let Some(bound) = self.bound {
            return Ok(bound);
        }
        match self.numbered(max_bytes)?.0 {
            0 => Ok(self.text),
            count => {
                let error = ApiError::bad("invalid_sql", format!("values for {count} parameters are missing"));
                Err(error.param("sql"))
            }
        }
    }

    /// The same statement with the values of one row: one column per parameter.
    pub(super) fn bind(self, values: &RecordBatch, max_bytes: usize) -> Result<Self, ApiError> {
        if values.num_rows() != 1 {
            let message = format!("the parameters have {} rows of values: one is expected", values.num_rows());
            return Err(ApiError::bad("invalid_request", message));
        }
        let Some(mut statement) = parse(&self.text, max_bytes)? else { return Ok(self) };
        let missing =
            |at: usize| ApiError::bad("invalid_request", format!("there is no value for the parameter ${}", at + 1));
        let mut bytes = self.text.len();
        replace_parameters(&mut statement, |at| {
            let constant = literal(values.columns().get(at).ok_or_else(|| missing(at))?)?;
            // A value may be large and used many times.
            bytes += constant.to_string().len();
            if bytes > max_bytes {
                let message = format!("with its values the statement has more than {max_bytes} bytes");
                return Err(ApiError::too_much("too_long", message).param("sql"));
            }
            Ok(constant)
        })?;
        Ok(Self { bound: Some(statement.to_string()), ..self })
    }
}

/// The statement, if the text is exactly one.
fn parse(text: &str, max_bytes: usize) -> Result<Option<Statement>, ApiError> {
    check_size(text, max_bytes, "sql")?;
    let statements = DFParser::parse_sql(text).unwrap_or_default();
    Ok(if statements.len() == 1 { statements.into_iter().next() } else { None })
}

/// Replaces each parameter by the result of `value`, which receives its number, from 0.
fn replace_parameters(
    statement: &mut Statement,
    mut value: impl FnMut(usize) -> Result<Expr, ApiError>,
) -> Result<(), ApiError> {
    let inner = match statement {
        Statement::Statement(inner) => inner,
        Statement::Explain(explained) => return replace_parameters(&mut explained.statement, value),
        // Other statements have no parameters, and are refused later.
        _ => return Ok(()),
    };
    let mut question_marks = 0;
    let mut replace = |expression: &mut Expr| -> Result<(), ApiError> {
        let Expr::Value(ast::ValueWithSpan { value: Value::Placeholder(name), .. }) = expression else {
            return Ok(());
        };
        let at = if name == "?" {
            question_marks += 1;
            Some(question_marks)
        } else {
            name.strip_prefix('$').and_then(|number| number.parse().ok())
        };
        let Some(at) = at.filter(|at| (1..=MAX_PARAMETERS).contains(at)) else {
            let message = format!("the parameter `{name}` has no number from 1 to {MAX_PARAMETERS}");
            return Err(ApiError::bad("invalid_sql", message).param("sql"));
        };
        *expression = value(at - 1)?;
        Ok(())
    };
    match visit_expressions_mut(inner.as_mut(), |expression| match replace(expression) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// The first of `values` as a constant.
fn literal(values: &ArrayRef) -> Result<Expr, ApiError> {
    let unfit = |why: &str| ApiError::bad("invalid_request", format!("a value of a parameter {why}"));
    if values.is_null(0) || values.data_type() == &DataType::Null {
        return Ok(Expr::value(Value::Null));
    }
    let text = || {
        let formatter = ArrayFormatter::try_new(values.as_ref(), &FormatOptions::default());
        formatter.and_then(|formatter| formatter.value(0).try_to_string()).map_err(|error| unfit(&error.to_string()))
    };
    let typed = |data_type| -> Result<Expr, ApiError> {
        let value = Value::SingleQuotedString(text()?).into();
        Ok(Expr::TypedString(TypedString { data_type, value, uses_odbc_syntax: false }))
    };
    let list = |items: ArrayRef| -> Result<Expr, ApiError> {
        let elem = (0..items.len()).map(|at| literal(&items.slice(at, 1))).collect::<Result<_, _>>()?;
        Ok(Expr::Array(ast::Array { elem, named: false }))
    };
    match values.data_type() {
        DataType::Boolean => Ok(Expr::value(Value::Boolean(values.as_boolean().value(0)))),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            Ok(Expr::value(Value::SingleQuotedString(text()?)))
        }
        number if number.is_numeric() => {
            let text = text()?;
            let digits = text.trim_start_matches('-');
            if !digits.starts_with(|first: char| first.is_ascii_digit()) {
                return Err(unfit(&format!("is {text}, which is not finite")));
            }
            let expr = Expr::value(Value::Number(digits.to_owned(), false));
            if digits.len() == text.len() {
                return Ok(expr);
            }
            // In brackets: after another minus it would begin a comment.
            Ok(Expr::Nested(Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(expr) })))
        }
        DataType::Date32 | DataType::Date64 => typed(ast::DataType::Date),
        DataType::Timestamp(..) => typed(ast::DataType::Timestamp(None, ast::TimezoneInfo::None)),
        DataType::Time32(_) | DataType::Time64(_) => typed(ast::DataType::Time(None, ast::TimezoneInfo::None)),
        DataType::List(_) => list(values.as_list::<i32>().value(0)),
        DataType::LargeList(_) => list(values.as_list::<i64>().value(0)),
        DataType::FixedSizeList(..) => list(values.as_fixed_size_list().value(0)),
        other => Err(unfit(&format!("is of the type {other}, which no constant has"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            BooleanArray, Date32Array, FixedSizeListArray, Float32Array, Float64Array, Int64Array, NullArray,
            StringArray, StructArray, TimestampMicrosecondArray,
        },
        datatypes::Float32Type,
    };

    use super::*;

    const MAX_BYTES: usize = 1 << 20;

    fn values(columns: Vec<ArrayRef>) -> RecordBatch {
        let names = (0..columns.len()).map(|at| at.to_string());
        RecordBatch::try_from_iter_with_nullable(names.zip(columns).map(|(name, column)| (name, column, true))).unwrap()
    }

    fn bound(sql: &str, columns: Vec<ArrayRef>) -> Result<String, ApiError> {
        let bound = PreparedStatement::new(sql.to_owned()).bind(&values(columns), MAX_BYTES)?;
        PreparedStatement::from_handle(bound.handle())?.sql(MAX_BYTES)
    }

    #[test]
    fn values_replace_parameters() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["it's '; DROP TABLE docs --"])),
            Arc::new(Int64Array::from(vec![-5])),
            Arc::new(Float64Array::from(vec![1e-7])),
            Arc::new(BooleanArray::from(vec![true])),
            Arc::new(NullArray::new(1)),
            Arc::new(Date32Array::from(vec![20_000])),
            Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_000])),
            Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>([Some([Some(0.5), Some(-1.0)])], 2)),
        ];
        let found = bound("SELECT $1, 1 - $2, $3, $4, $5, $6, $7, $8, $1 FROM f($1) LIMIT $2", columns).unwrap();
        let expected = "SELECT 'it''s ''; DROP TABLE docs --', 1 - (-5), 1e-7, true, NULL, DATE '2024-10-04', \
                        TIMESTAMP '2023-11-14T22:13:20', [0.5, (-1.0)], 'it''s ''; DROP TABLE docs --' \
                        FROM f('it''s ''; DROP TABLE docs --') LIMIT (-5)";
        assert_eq!(found, expected);
    }

    #[test]
    fn question_marks_outside_texts_are_parameters_in_order() {
        let two: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![2]))];
        assert_eq!(bound("EXPLAIN SELECT '?', ? + ?", two).unwrap(), "EXPLAIN SELECT '?', 1 + 2");
        let numbered = |sql: &str| PreparedStatement::new(sql.to_owned()).numbered(MAX_BYTES).unwrap();
        assert_eq!(numbered("SELECT ?, ?"), (2, "SELECT $1, $2".to_owned()));
        assert_eq!(numbered("select  1"), (0, "select  1".to_owned()));
        assert_eq!(numbered("SELECT ("), (0, "SELECT (".to_owned()));
    }

    #[test]
    fn a_bound_statement_can_be_bound_again() {
        let one = |number: i64| values(vec![Arc::new(Int64Array::from(vec![number]))]);
        let first = PreparedStatement::new("SELECT $1".to_owned()).bind(&one(1), MAX_BYTES).unwrap();
        let second = PreparedStatement::from_handle(first.handle()).unwrap().bind(&one(2), MAX_BYTES).unwrap();
        assert_eq!(second.sql(MAX_BYTES).unwrap(), "SELECT 2");
    }

    #[test]
    fn errors_name_the_wrong_value_or_parameter() {
        let number = |number: f32| -> Vec<ArrayRef> { vec![Arc::new(Float32Array::from(vec![number]))] };
        let large: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(MAX_BYTES / 50)]));
        let nested: ArrayRef = Arc::new(StructArray::new_empty_fields(1, None));
        let rows = PreparedStatement::new("SELECT $1".to_owned())
            .bind(&values(vec![Arc::new(Int64Array::from(vec![1, 2]))]), MAX_BYTES);
        for (error, text) in [
            (bound("SELECT $2", number(1.0)).unwrap_err(), "no value for the parameter $2"),
            (bound("SELECT $name", number(1.0)).unwrap_err(), "`$name` has no number"),
            (bound("SELECT $0", number(1.0)).unwrap_err(), "`$0` has no number"),
            (bound("SELECT $4000000000", number(1.0)).unwrap_err(), "`$4000000000` has no number from 1 to 1000"),
            (
                bound(&format!("SELECT 1{}", "+1".repeat(100_000)), number(1.0)).unwrap_err(),
                "words, operators and brackets: at most 1000 are allowed",
            ),
            (bound("SELECT $1", number(f32::NAN)).unwrap_err(), "is NaN, which is not finite"),
            (bound("SELECT $1", number(f32::NEG_INFINITY)).unwrap_err(), "is -inf, which is not finite"),
            (bound("SELECT $1", vec![nested]).unwrap_err(), "which no constant has"),
            (bound(&format!("SELECT $1{}", ", $1".repeat(99)), vec![large]).unwrap_err(), "with its values"),
            (rows.unwrap_err(), "have 2 rows of values: one is expected"),
            (
                PreparedStatement::new("SELECT ?".to_owned()).sql(MAX_BYTES).unwrap_err(),
                "values for 1 parameters are missing",
            ),
            (
                PreparedStatement::from_handle(Bytes::from_static(b"\xff")).unwrap_err(),
                "not a statement of this server",
            ),
        ] {
            assert!(error.message.contains(text), "{}", error.message);
        }
    }
}
