//! Comparisons of timestamps with literals that lie between two of the column's units.
//!
//! DataFusion truncates such a literal to the column's unit: a row at 0 ms would not be earlier than 0.5 ms.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::{
    common::DFSchema,
    error::Result,
    logical_expr::{BinaryExpr, Expr, ExprSchemable, Operator, expr::InList, lit},
    scalar::ScalarValue,
};

/// The comparison, with the preceding unit in place of a literal that the column cannot hold.
pub(super) fn compare(left: Expr, op: Operator, right: Expr, columns: &DFSchema) -> Result<Expr> {
    if let Some(before) = unit_before(&right, &left, columns)? {
        return Ok(compare_with_unit(left, op, before));
    }
    if let (Some(before), Some(op)) = (unit_before(&left, &right, columns)?, op.swap()) {
        return Ok(compare_with_unit(right, op, before));
    }
    Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right))))
}

/// The list without literals that the column cannot hold: no row has one of them.
pub(super) fn in_list(value: Expr, list: Vec<Expr>, negated: bool, columns: &DFSchema) -> Result<Expr> {
    let mut possible = Vec::with_capacity(list.len());
    for element in list {
        if unit_before(&element, &value, columns)?.is_none() {
            possible.push(element);
        }
    }
    Ok(match (possible.is_empty(), negated) {
        (false, _) => Expr::InList(InList::new(Box::new(value), possible, negated)),
        (true, false) => value.clone().not_eq(value),
        (true, true) => value.clone().eq(value),
    })
}

/// The comparison of a timestamp of whole units with a literal between `before` and the next unit.
fn compare_with_unit(value: Expr, op: Operator, before: ScalarValue) -> Expr {
    match op {
        Operator::Gt | Operator::GtEq => value.gt(lit(before)),
        Operator::Lt | Operator::LtEq => value.lt_eq(lit(before)),
        // Null where the timestamp is null, as the comparison would be.
        Operator::Eq => value.clone().not_eq(value),
        Operator::NotEq => value.clone().eq(value),
        other => lit(other == Operator::IsDistinctFrom),
    }
}

/// The last value of the other operand's type before the literal, if that type cannot hold the literal itself.
fn unit_before(literal: &Expr, other: &Expr, columns: &DFSchema) -> Result<Option<ScalarValue>> {
    let Expr::Literal(scalar, _) = literal else { return Ok(None) };
    let (ticks, tick_nanos) = match scalar {
        ScalarValue::TimestampNanosecond(Some(ticks), _) => (*ticks, 1),
        ScalarValue::TimestampMicrosecond(Some(ticks), _) => (*ticks, 1_000),
        ScalarValue::TimestampMillisecond(Some(ticks), _) => (*ticks, 1_000_000),
        _ => return Ok(None),
    };
    let DataType::Timestamp(unit, zone) = other.get_type(columns)? else { return Ok(None) };
    let ticks_per_unit = match unit {
        TimeUnit::Second => 1_000_000_000 / tick_nanos,
        TimeUnit::Millisecond => 1_000_000 / tick_nanos,
        TimeUnit::Microsecond => 1_000 / tick_nanos,
        TimeUnit::Nanosecond => return Ok(None),
    };
    if ticks_per_unit <= 1 || ticks.rem_euclid(ticks_per_unit) == 0 {
        return Ok(None);
    }
    let before = Some(ticks.div_euclid(ticks_per_unit));
    Ok(Some(match unit {
        TimeUnit::Second => ScalarValue::TimestampSecond(before, zone),
        TimeUnit::Millisecond => ScalarValue::TimestampMillisecond(before, zone),
        TimeUnit::Microsecond => ScalarValue::TimestampMicrosecond(before, zone),
        TimeUnit::Nanosecond => ScalarValue::TimestampNanosecond(before, zone),
    }))
}
