//! Conditions on columns of every type.

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use polylance_search::{SearchError, plan_condition};

fn planned(condition: &str) -> Result<String, String> {
    let field = |name: &str, of: DataType| Field::new(name, of, true);
    let schema = Schema::new(vec![
        field("lang", DataType::Utf8),
        field("Year", DataType::Int32),
        field("my column", DataType::Int64),
        field("ratio", DataType::Float32),
        field("share", DataType::Float64),
        field("price", DataType::Decimal128(12, 2)),
        field("day", DataType::Date32),
        field("seen", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("sent", DataType::Timestamp(TimeUnit::Second, Some("+00:00".into()))),
        field("good", DataType::Boolean),
        field("at", DataType::Struct(vec![field("city", DataType::Utf8)].into())),
        field("labels", DataType::new_list(DataType::Utf8, true)),
    ]);
    match plan_condition(condition, &schema) {
        Ok(planned) => Ok(planned.to_string()),
        Err(SearchError::Filter { reason, .. }) => Err(reason),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn literal_takes_the_type_of_its_column() {
    for (condition, expected) in [
        ("lang = 'it''s'", r#"lang = Utf8("it's")"#),
        ("YEAR > 2019", "Year > Int32(2019)"),
        ("year = '2019'", "Year = Int32(2019)"),
        (r#""my column" = 1 AND `my column` < 3"#, "my column = Int64(1) AND my column < Int64(3)"),
        ("ratio = 0.1", "ratio = Float32(0.1)"),
        ("0.1 < share", "share > Float64(0.1)"),
        ("price > 1000.5", "price > Decimal128(Some(100050),12,2)"),
        ("price IN (1, 2.50)", "price = Decimal128(Some(100),12,2) OR price = Decimal128(Some(250),12,2)"),
        ("day >= '2024-02-29'", r#"day >= Date32("2024-02-29")"#),
        ("day = DATE '2024-02-29'", r#"day = Date32("2024-02-29")"#),
        ("day BETWEEN '2024-02-28' AND '2024-03-01'", r#"day >= Date32("2024-02-28") AND day <= Date32("2024-03-01")"#),
        ("seen >= '2024-01-01T00:00:00Z'", "seen >= TimestampMillisecond(1704067200000, None)"),
        ("seen < '2024-01-01 00:00:00.250'", "seen < TimestampMillisecond(1704067200250, None)"),
        ("sent = '2024-01-01T01:00:00+01:00'", r#"sent = TimestampSecond(1704067200, Some("+00:00"))"#),
        ("good = 'true'", "good"),
        ("NOT good", "NOT good"),
        ("lang LIKE 'd%' OR lang IS NULL", r#"lang LIKE Utf8("d%") OR lang IS NULL"#),
        ("at.city = 'Ulm'", r#"get_field(at, Utf8("city")) = Utf8("Ulm")"#),
    ] {
        assert_eq!(planned(condition), Ok(expected.to_owned()), "{condition}");
    }
}

#[test]
fn literal_between_column_values_is_not_rounded() {
    // Neither is cut to the column's unit, scale or day.
    for (condition, value) in [
        ("price < 10.005", "Some(10005)"),
        ("day < '2024-02-29T12:00:00'", "TimestampNanosecond(1709208000000000000, None)"),
    ] {
        let planned = planned(condition).unwrap();
        assert!(planned.contains(value), "{condition}: {planned}");
    }
}

#[test]
fn literal_between_two_units_compares_exactly() {
    let (unit, after) = ("TimestampMillisecond(1704067200000, None)", "'2024-01-01T00:00:00.0005'");
    for (condition, expected) in [
        (format!("seen > {after}"), format!("seen > {unit}")),
        (format!("seen >= {after}"), format!("seen > {unit}")),
        (format!("seen < {after}"), format!("seen <= {unit}")),
        (format!("{after} >= seen"), format!("seen <= {unit}")),
        (format!("seen < TIMESTAMP {after}"), format!("seen <= {unit}")),
        (format!("seen = {after}"), "seen != seen".to_owned()),
        (format!("seen IN ({after}, '2024-01-01')"), format!("seen = {unit}")),
        (
            format!("seen BETWEEN {after} AND '2024-01-02'"),
            format!("seen > {unit} AND seen <= {}", unit.replace("1704067200000", "1704153600000")),
        ),
        ("seen <= '1969-12-31T23:59:59.9995'".to_owned(), "seen <= TimestampMillisecond(-1, None)".to_owned()),
    ] {
        assert_eq!(planned(&condition), Ok(expected), "{condition}");
    }
}

#[test]
fn error_names_the_column_and_the_value() {
    for (condition, names) in [
        ("language = 'de'", vec!["there is no column `language`"]),
        (r#"lang = "de""#, vec!["there is no column `de`", "single quotes"]),
        ("day >= 'yesterday'", vec!["`day`", "Date32", "'yesterday'"]),
        ("seen = 'noon'", vec!["`seen`", "'noon'"]),
        ("price = 'cheap'", vec!["`price`", "'cheap'"]),
        ("year IN (1, 'x')", vec!["`Year`", "Int32", "'x'"]),
        ("lang = 5", vec!["`lang`", "Utf8", "5"]),
        ("good = 1", vec!["`good`", "Boolean", "1"]),
        ("year", vec!["Int32", "true or false"]),
        ("count(*) > 1", vec!["count", "many rows"]),
        ("year IN (SELECT 1)", vec!["SELECT 1"]),
    ] {
        let reason = planned(condition).unwrap_err();
        assert!(names.iter().all(|name| reason.contains(name)), "{condition}: {reason}");
    }
}
