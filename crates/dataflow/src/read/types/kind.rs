//! The type of a column of a text format, inferred from all of its values.
//!
//! A column is numeric only where no digit is lost: values that a number type would change stay text.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};

/// The largest number of names in an object; one with more counts as a map, which stays JSON text.
const MAX_MEMBERS: usize = 256;
/// Integers up to this one are exact in `Float64`.
const MAX_EXACT_INTEGER: u64 = 1 << 53;

/// The kind of the values of a column seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ValueKind {
    /// Only nulls.
    #[default]
    Null,
    Bool,
    Number(Numbers),
    Text,
    List(Box<Self>),
    Object(Vec<(String, Self)>),
    /// Several kinds, or a number with more digits than any type holds.
    Mixed,
}

/// Which numbers a column has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own of the values seen")]
pub(crate) struct Numbers {
    whole: bool,
    negative: bool,
    /// Above `i64::MAX`.
    unsigned: bool,
    /// Above 2^53.
    large: bool,
    fraction: bool,
    /// Like `2.0`, which is a different text than `2`.
    point_zero: bool,
}

impl Numbers {
    fn join(self, other: Self) -> Self {
        Self {
            whole: self.whole | other.whole,
            negative: self.negative | other.negative,
            unsigned: self.unsigned | other.unsigned,
            large: self.large | other.large,
            fraction: self.fraction | other.fraction,
            point_zero: self.point_zero | other.point_zero,
        }
    }

    fn data_type(self) -> Option<DataType> {
        match self {
            Self { fraction: true, large: true, .. } | Self { unsigned: true, negative: true, .. } => None,
            Self { fraction: true, .. } => Some(DataType::Float64),
            Self { unsigned: true, .. } => Some(DataType::UInt64),
            _ => Some(DataType::Int64),
        }
    }

    fn integer(text: &str) -> Option<Self> {
        if let Ok(value) = text.parse::<i64>() {
            let canonical = value.to_string() == text;
            let (negative, large) = (value < 0, value.unsigned_abs() > MAX_EXACT_INTEGER);
            return canonical.then(|| Self { whole: true, negative, large, ..Self::default() });
        }
        let value = text.parse::<u64>().ok()?;
        (value.to_string() == text).then(|| Self { whole: true, unsigned: true, large: true, ..Self::default() })
    }
}

impl ValueKind {
    /// The kind of a field of a CSV file; an empty field is null.
    pub(crate) fn of_csv_field(text: &str) -> Self {
        match text {
            "" => Self::Null,
            "true" | "false" => Self::Bool,
            _ => match Numbers::integer(text).or_else(|| float_numbers(text)) {
                Some(numbers) => Self::Number(numbers),
                None => Self::Text,
            },
        }
    }

    /// The kind of a JSON number as written.
    pub(crate) fn of_json_number(text: &str) -> Self {
        match Numbers::integer(text) {
            Some(numbers) => Self::Number(numbers),
            None if exact_number(text).is_some() => Self::Number(Numbers { fraction: true, ..Numbers::default() }),
            None => Self::Mixed,
        }
    }

    /// The kind of a column that has values of both kinds.
    pub(crate) fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Null, kind) | (kind, Self::Null) => kind,
            (Self::Bool, Self::Bool) => Self::Bool,
            (Self::Text, Self::Text) => Self::Text,
            (Self::Number(a), Self::Number(b)) => Self::Number(a.join(b)),
            (Self::List(a), Self::List(b)) => Self::List(Box::new(a.join(*b))),
            (Self::Object(mut a), Self::Object(b)) => {
                for (name, kind) in b {
                    match a.iter_mut().find(|(known, _)| *known == name) {
                        Some((_, known)) => *known = std::mem::take(known).join(kind),
                        None => a.push((name, kind)),
                    }
                }
                if a.len() > MAX_MEMBERS { Self::Mixed } else { Self::Object(a) }
            }
            _ => Self::Mixed,
        }
    }

    /// The type in the table.
    pub(crate) fn data_type(&self) -> DataType {
        self.own_type().unwrap_or(DataType::Utf8)
    }

    /// The type in the table for a CSV file, where `2` and `2.0` are different texts.
    pub(crate) fn csv_data_type(&self) -> DataType {
        match self {
            Self::Number(Numbers { whole: true, point_zero: true, .. }) => DataType::Utf8,
            kind => kind.data_type(),
        }
    }

    /// `None` where only text holds all values.
    fn own_type(&self) -> Option<DataType> {
        match self {
            Self::Null | Self::Text => Some(DataType::Utf8),
            Self::Bool => Some(DataType::Boolean),
            Self::Number(numbers) => numbers.data_type(),
            Self::List(items) => Some(DataType::List(Arc::new(Field::new_list_field(items.own_type()?, true)))),
            Self::Object(members) => {
                // Lance allows no dot in a name, and no struct without members.
                if members.is_empty() || members.iter().any(|(name, _)| name.is_empty() || name.contains('.')) {
                    return None;
                }
                let field = |(name, kind): &(String, Self)| Some(Field::new(name, kind.own_type()?, true));
                Some(DataType::Struct(members.iter().map(field).collect::<Option<Vec<_>>>()?.into()))
            }
            Self::Mixed => None,
        }
    }
}

/// The number in a CSV field with a fraction, if printing the number gives the same field.
pub(crate) fn exact_float(text: &str) -> Option<f64> {
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-'));
    let same = if plain {
        let printed = value.to_string();
        text != "-0" && (printed == text || text.strip_suffix(".0") == Some(printed.as_str()))
    } else {
        // Exponents as Python and C print them: `1e-05`, `2.5e+20`. A short commit hash such as `7654e21` has no sign.
        let printed = format!("{value:e}");
        let (mantissa, exponent) = printed.split_once('e')?;
        let exponent: i32 = exponent.parse().ok()?;
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs()) == text
    };
    same.then_some(value)
}

fn float_numbers(text: &str) -> Option<Numbers> {
    let value = exact_float(text)?;
    let point_zero = text.ends_with(".0");
    Some(Numbers {
        fraction: true,
        point_zero,
        large: value.fract() == 0.0 && value.abs() > MAX_EXACT_INTEGER as f64,
        ..Numbers::default()
    })
}

/// A JSON number as `f64`, if that has all its digits. Python's `NaN` and `Infinity` are numbers too.
pub(crate) fn exact_number(text: &str) -> Option<f64> {
    match text {
        "NaN" => return Some(f64::NAN),
        "Infinity" => return Some(f64::INFINITY),
        "-Infinity" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    let value = text.parse::<f64>().ok().filter(|value| value.is_finite())?;
    (decimal(text)? == decimal(&format!("{value:e}"))?).then_some(value)
}

/// The digits without leading and trailing zeros, and the exponent of the last one.
fn decimal(text: &str) -> Option<(String, i64)> {
    let text = text.trim_start_matches('-');
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.parse::<i64>().ok()?.checked_sub(fraction.len() as i64)?;
    let digits = format!("{whole}{fraction}");
    let trimmed = digits.trim_end_matches('0');
    if trimmed.is_empty() {
        return Some((String::new(), 0));
    }
    let exponent = exponent.checked_add((digits.len() - trimmed.len()) as i64)?;
    Some((trimmed.trim_start_matches('0').to_owned(), exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(values: &[&str]) -> DataType {
        values.iter().fold(ValueKind::Null, |kind, value| kind.join(ValueKind::of_csv_field(value))).csv_data_type()
    }

    #[test]
    fn a_csv_column_is_numeric_only_if_no_value_changes() {
        for (values, expected) in [
            (&["1", "", "-2"][..], DataType::Int64),
            (&["9223372036854775808", "1"], DataType::UInt64),
            (&["9223372036854775808", "-1"], DataType::Utf8),
            (&["18446744073709551616"], DataType::Utf8),
            (&["1", "2.5", "-0.5"], DataType::Float64),
            (&["0", "0.5", "1e-05"], DataType::Float64),
            (&["2.0", "2.5"], DataType::Float64),
            (&["2.0", "2"], DataType::Utf8),
            (&["9007199254740993", "0.5"], DataType::Utf8),
            (&["true", "false"], DataType::Boolean),
            (&["1", "true"], DataType::Utf8),
            (&["007", "1"], DataType::Utf8),
            (&["+1"], DataType::Utf8),
            (&["-0"], DataType::Utf8),
            (&["1.10", "1.2"], DataType::Utf8),
            (&["2301.00010"], DataType::Utf8),
            (&["12e4567", "7654e21", "1e5", "1e21"], DataType::Utf8),
            (&["0.12345678901234567890"], DataType::Utf8),
            (&[".5"], DataType::Utf8),
            (&["nan", "inf"], DataType::Utf8),
            (&[" 1"], DataType::Utf8),
            (&["", ""], DataType::Utf8),
        ] {
            assert_eq!(fields(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_json_number_keeps_all_its_digits() {
        for (text, expected) in [
            ("0.75", DataType::Float64),
            ("1.10", DataType::Float64),
            ("2e3", DataType::Float64),
            ("NaN", DataType::Float64),
            ("-7", DataType::Int64),
            ("11898508762506083287", DataType::UInt64),
            ("36893488147419103233", DataType::Utf8),
            ("0.1234567890123456789", DataType::Utf8),
            ("1e400", DataType::Utf8),
        ] {
            assert_eq!(ValueKind::of_json_number(text).data_type(), expected, "{text}");
        }
    }
}
