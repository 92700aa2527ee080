//! SQL conditions on a table's columns.

use lance::Dataset;

use crate::SearchError;

/// Plans the condition alone, to tell its errors from others.
pub(crate) async fn check(dataset: &Dataset, condition: &str) -> Result<(), SearchError> {
    let refused = |source| SearchError::Filter { filter: condition.to_owned(), source: Box::new(source) };
    let mut scanner = dataset.scan();
    scanner.filter(condition).map_err(refused)?;
    Box::pin(scanner.create_plan()).await.map_err(refused)?;
    Ok(())
}

/// `column = 'value'`, whatever the value holds.
pub(crate) fn equals(column: &str, value: &str) -> String {
    format!("{column} = '{}'", value.replace('\'', "''"))
}

/// Both conditions.
pub(crate) fn and(one: Option<String>, other: String) -> String {
    match one {
        Some(one) => format!("({one}) AND ({other})"),
        None => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_stays_inside_the_value() {
        assert_eq!(equals("doc_id", "it's' OR 1=1"), "doc_id = 'it''s'' OR 1=1'");
        assert_eq!(and(Some("a = 1 OR b = 2".to_owned()), "c".to_owned()), "(a = 1 OR b = 2) AND (c)");
    }
}
