//! Comparisons of timestamps with moments between two of their units.
//!
//! DataFusion cuts such a moment to the column's unit, so that a row of 0 ms would be later than half a millisecond.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::DFSchema,
    error::Result,
    logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, expr::InList, lit},
    scalar::ScalarValue,
};

/// The comparison, with the unit before the moment in place of a moment that the column cannot hold.
pub(super) fn compare(left: Expr, op: Operator, right: Expr, columns: &DFSchema) -> Result<Expr> {
    if let Some(before) = unit_before(&right, &left, columns)? {
        return Ok(compare_with_unit(left, op, before));
    }
    if let (Some(before), Some(op)) = (unit_before(&left, &right, columns)?, op.swap()) {
        return Ok(compare_with_unit(right, op, before));
    }
    Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
}

/// The list without moments that the column cannot hold: no row is at one of them.
pub(super) fn in_list(value: Expr, list: Vec<Expr>, negated: bool, columns: &DFSchema) -> Result<Expr> {
    let mut held = Vec::with_capacity(list.len());
    for element in list {
        if unit_before(&element, &value, columns)?.is_none() {
            held.push(element);
        }
    }
    Ok(match (held.is_empty(), negated) {
        (false, _) => Expr::InList(InList::new(Box::new(value), held, negated)),
        (true, false) => value.clone().not_eq(value),
        (true, true) => value.clone().eq(value),
    })
}

/// What the comparison with a moment after `before` and before the next unit says of a timestamp of whole units.
fn compare_with_unit(value: Expr, op: Operator, before: ScalarValue) -> Expr {
    match op {
        Operator::Gt | Operator::GtEq => value.gt(lit(before)),
        Operator::Lt | Operator::LtEq => value.lt_eq(lit(before)),
        // Null where there is no timestamp, as the comparison is.
        Operator::Eq => value.clone().not_eq(value),
        Operator::NotEq => value.clone().eq(value),
        other => lit(other == Operator::IsDistinctFrom),
    }
}

/// The last moment before the literal that a timestamp of the other's type can be, if it cannot be the literal's.
fn unit_before(literal: &Expr, other: &Expr, columns: &DFSchema) -> Result<Option<ScalarValue>> {
    let Expr::Literal(scalar, _) = literal else { return Ok(None) };
    let (moment, from) = match scalar {
        ScalarValue::TimestampNanosecond(Some(moment), _) => (*moment, 1),
        ScalarValue::TimestampMicrosecond(Some(moment), _) => (*moment, 1_000),
        ScalarValue::TimestampMillisecond(Some(moment), _) => (*moment, 1_000_000),
        _ => return Ok(None),
    };
    let DataType::Timestamp(unit, zone) = other.get_type(columns)? else { return Ok(None) };
    let times = match unit {
        TimeUnit::Second => 1_000_000_000 / from,
        TimeUnit::Millisecond => 1_000_000 / from,
        TimeUnit::Microsecond => 1_000 / from,
        TimeUnit::Nanosecond => return Ok(None),
    };
    if times <= 1 || moment.rem_euclid(times) == 0 {
        return Ok(None);
    }
    let before = Some(moment.div_euclid(times));
    Ok(Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(before, zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(before, zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(before, zone),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(before, zone),
    }))
}
