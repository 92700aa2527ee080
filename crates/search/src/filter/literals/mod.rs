//! Casts the literals of a condition to the types of the columns that they are compared with.
//!
//! A value that its column cannot hold, such as half a cent, keeps its own type, and the column's values are widened: a
//! comparison never uses another value than the written one.

mod timestamps;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::{
        DFSchema,
        tree_node::{Transformed, TreeNode},
    },
    error::{DataFusionError, Result},
    logical_expr::{Between, BinaryExpr, Expr, ExprSchemable, Operator, expr::InList},
    scalar::ScalarValue,
};

/// The condition with its literals in the types of the columns that they are compared with.
pub(super) fn with_types(condition: Expr, columns: &DFSchema) -> std::result::Result<Expr, String> {
    let typed = condition.transform_up(|part| {
        Ok(match part {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let use_of = if is_comparison(op) { Use::Compared } else { Use::Computed };
                let literal = matches!(left.as_ref(), Expr::Literal(..)) || matches!(right.as_ref(), Expr::Literal(..));
                if !literal || (use_of == Use::Computed && !is_arithmetic(op)) {
                    return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
                }
                let (new_left, new_right) = (
                    coerce_literal(*left.clone(), &right, use_of, columns)?,
                    coerce_literal(*right, &left, use_of, columns)?,
                );
                Transformed::yes(timestamps::compare(new_left, op, new_right, columns)?)
            }
            Expr::Between(Between { expr, negated, low, high }) => {
                let low = coerce_literal(*low, &expr, Use::Compared, columns)?;
                let high = coerce_literal(*high, &expr, Use::Compared, columns)?;
                let from = timestamps::compare(expr.as_ref().clone(), Operator::GtEq, low, columns)?;
                let within = from.and(timestamps::compare(*expr, Operator::LtEq, high, columns)?);
                Transformed::yes(if negated { Expr::Not(Box::new(within)) } else { within })
            }
            Expr::InList(InList { expr, list, negated }) => {
                let list = list.into_iter().map(|value| coerce_literal(value, &expr, Use::Compared, columns));
                let list = list.collect::<Result<Vec<Expr>>>()?;
                Transformed::yes(timestamps::in_list(*expr, list, negated, columns)?)
            }
            // `DATE '…'` and similar casts are values.
            Expr::Cast(cast) if cast.field.data_type().is_temporal() => match cast.expr.as_ref() {
                Expr::Literal(scalar, metadata) => match scalar.cast_to(cast.field.data_type()) {
                    Ok(value) => Transformed::yes(Expr::Literal(value, metadata.clone())),
                    Err(_) => Transformed::no(Expr::Cast(cast)),
                },
                _ => Transformed::no(Expr::Cast(cast)),
            },
            other => Transformed::no(other),
        })
    });
    typed.map(|typed| typed.data).map_err(|error| match error {
        DataFusionError::Plan(reason) => reason,
        other => other.strip_backtrace(),
    })
}

/// How an operator uses a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Compared,
    Computed,
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_arithmetic(op: Operator) -> bool {
    matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply | Operator::Divide | Operator::Modulo)
}

/// A literal in the type of the other operand; any other expression unchanged.
fn coerce_literal(value: Expr, other: &Expr, use_of: Use, columns: &DFSchema) -> Result<Expr> {
    let Expr::Literal(scalar, metadata) = &value else { return Ok(value) };
    if scalar.is_null() || matches!(other, Expr::Literal(..)) {
        return Ok(value);
    }
    let mut to = other.get_type(columns)?;
    if let DataType::Dictionary(_, values) = to {
        to = *values;
    }
    let typed = match use_of {
        Use::Compared => cast_for_comparison(scalar, &to),
        // `+ 0.5` to a Float64 is computed in Float64.
        Use::Computed if to.is_floating() && scalar.data_type().is_decimal() => number(scalar, &to),
        Use::Computed => Ok(None),
    };
    match typed {
        Ok(None) => Ok(value),
        Ok(Some(typed)) => Ok(Expr::Literal(typed, metadata.clone())),
        Err(NotAValue) => {
            let (name, literal) = (other.to_string(), literal_text(scalar));
            Err(DataFusionError::Plan(format!("`{name}` has the type {to}, and {literal} is not a value of it")))
        }
    }
}

/// The literal is not a value of the type.
struct NotAValue;

fn literal_text(scalar: &ScalarValue) -> String {
    match scalar.try_as_str() {
        Some(Some(text)) => format!("'{text}'"),
        _ => scalar.to_string(),
    }
}

/// The value in another type; `None` where it is not converted, because the type cannot hold it or DataFusion converts it
/// itself.
fn cast_for_comparison(scalar: &ScalarValue, to: &DataType) -> std::result::Result<Option<ScalarValue>, NotAValue> {
    let from = scalar.data_type();
    if &from == to {
        return Ok(None);
    }
    if let Some(Some(text)) = scalar.try_as_str() {
        return match to {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                scalar.cast_to(to).map(Some).map_err(|_| NotAValue)
            }
            DataType::Date32 | DataType::Date64 => date(text, to).map(Some),
            DataType::Timestamp(unit, _) => timestamp(text, *unit, to).map(Some),
            _ if to.is_decimal() => decimal(text, to).map(Some),
            _ if to.is_numeric() || to.is_temporal() || to == &DataType::Boolean => parsed(text, to).map(Some),
            _ => Ok(None),
        };
    }
    if from.is_numeric() {
        return match to {
            _ if to.is_decimal() => Ok(exactly(scalar, to)),
            _ if to.is_floating() && from.is_decimal() => number(scalar, to),
            _ if to.is_numeric() => Ok(None),
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Boolean
            | DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..) => Err(NotAValue),
            _ => Ok(None),
        };
    }
    Ok(None)
}

fn parsed(text: &str, to: &DataType) -> std::result::Result<ScalarValue, NotAValue> {
    let value = ScalarValue::try_from_string(text.trim().to_owned(), to).map_err(|_| NotAValue)?;
    if value.is_null() { Err(NotAValue) } else { Ok(value) }
}

/// A date, or a timestamp when the text has a time.
fn date(text: &str, to: &DataType) -> std::result::Result<ScalarValue, NotAValue> {
    if !text.contains(':') {
        return parsed(text, to);
    }
    let timestamp = parsed(text, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    Ok(exactly(&timestamp, to).unwrap_or(timestamp))
}

/// A timestamp in the column's unit, or in nanoseconds where that unit cannot hold it.
fn timestamp(text: &str, unit: TimeUnit, to: &DataType) -> std::result::Result<ScalarValue, NotAValue> {
    let DataType::Timestamp(_, zone) = to else { return Err(NotAValue) };
    // Nanoseconds reach from 1677 to 2262; other years are read in the column's own unit.
    let Ok(timestamp) = parsed(text, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone())) else {
        return parsed(text, to);
    };
    if unit == TimeUnit::Nanosecond { Ok(timestamp) } else { Ok(exactly(&timestamp, to).unwrap_or(timestamp)) }
}

/// A decimal with all written digits.
fn decimal(text: &str, to: &DataType) -> std::result::Result<ScalarValue, NotAValue> {
    let scale = text.trim().split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = i8::try_from(scale).ok().filter(|scale| *scale <= 76).ok_or(NotAValue)?;
    let whole = parsed(text, &DataType::Decimal256(76, scale))?;
    Ok(exactly(&whole, to).unwrap_or(whole))
}

/// The nearest number of a floating type.
fn number(scalar: &ScalarValue, to: &DataType) -> std::result::Result<Option<ScalarValue>, NotAValue> {
    let text = scalar.cast_to(&DataType::Utf8).map_err(|_| NotAValue)?;
    match text.try_as_str() {
        Some(Some(text)) => parsed(text, to).map(Some),
        _ => Ok(None),
    }
}

/// The value in another type, if that is exact.
fn exactly(scalar: &ScalarValue, to: &DataType) -> Option<ScalarValue> {
    let cast = scalar.cast_to(to).ok().filter(|value| !value.is_null())?;
    let back = cast.cast_to(&scalar.data_type()).ok()?;
    (&back == scalar).then_some(cast)
}
