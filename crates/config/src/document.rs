//! A TOML document with the location of each value.

use std::collections::BTreeMap;

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use crate::{ConfigError, Location};

/// The values, and the location of each by its dotted path.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Value,
    name: String,
    locations: BTreeMap<String, Location>,
}

impl Document {
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let syntax = |error: &toml::de::Error| ConfigError::Syntax {
            location: Box::new(Location::File {
                name: name.to_owned(),
                line: error.span().map(|span| line_of(text, span.start)),
            }),
            message: error.message().replace('\n', ", "),
        };
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let root: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        let mut document = Self { root: Value::Table(root), name: name.to_owned(), locations: BTreeMap::new() };
        document.record_table(text, "", spans.get_ref());
        Ok(document)
    }

    /// Values without locations: errors name the document alone.
    pub(crate) fn from_values(root: Value, name: &str) -> Self {
        Self { root, name: name.to_owned(), locations: BTreeMap::new() }
    }

    /// Sets one key from `key=value`. A value that is not TOML is a string.
    pub(crate) fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let refused = || ConfigError::Override { text: text.to_owned() };
        let (path, value) = text.split_once('=').ok_or_else(refused)?;
        let path = path.trim();
        let keys: Vec<&str> = path.split('.').map(str::trim).collect();
        let (last, parents) = keys.split_last().ok_or_else(refused)?;
        if keys.iter().any(|key| key.is_empty()) {
            return Err(refused());
        }
        let Some(mut table) = self.root.as_table_mut() else { return Err(refused()) };
        for (depth, key) in parents.iter().enumerate() {
            let entry = table.entry((*key).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            let found = article(entry.type_str());
            table = entry.as_table_mut().ok_or_else(|| ConfigError::WrongType {
                location: Box::new(Location::Override(text.to_owned())),
                key: keys[..=depth].join("."),
                expected: "a table".to_owned(),
                found,
            })?;
        }
        table.insert((*last).to_owned(), bare_value(value.trim()));
        let location = Location::Override(text.to_owned());
        let below = format!("{path}.");
        self.locations.retain(|known, _| !known.starts_with(&below));
        for depth in 1..keys.len() {
            self.locations.entry(keys[..depth].join(".")).or_insert_with(|| location.clone());
        }
        self.locations.insert(keys.join("."), location);
        Ok(())
    }

    /// The location of the value at `path`, or of the innermost table around it.
    pub(crate) fn location(&self, path: &str) -> Location {
        let mut path = path;
        loop {
            if let Some(location) = self.locations.get(path) {
                return location.clone();
            }
            let Some(parent) = path.rfind(['.', '[']) else {
                return Location::File { name: self.name.clone(), line: None };
            };
            path = &path[..parent];
        }
    }

    fn record_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            let line = Some(line_of(text, key.span().start));
            self.locations.insert(path.clone(), Location::File { name: self.name.clone(), line });
            self.record_value(text, &path, value);
        }
    }

    fn record_value(&mut self, text: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.record_table(text, path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let line = Some(line_of(text, item.span().start));
                    self.locations.insert(path.clone(), Location::File { name: self.name.clone(), line });
                    self.record_value(text, &path, item);
                }
            }
            _ => {}
        }
    }
}

/// `source` and `uri` as `source.uri`.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A type's name with its article.
pub(crate) fn article(kind: &str) -> String {
    let an = kind.starts_with(['a', 'e', 'i', 'o', 'u']);
    format!("{} {kind}", if an { "an" } else { "a" })
}

/// The text as a TOML value, or as a string if it is not TOML: shells remove quotes.
fn bare_value(text: &str) -> Value {
    let parsed = toml::from_str::<Table>(&format!("value = {text}"));
    let value = parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn line_of(text: &str, offset: usize) -> usize {
    text.get(..offset).unwrap_or(text).matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_value_is_toml_or_a_string() {
        assert_eq!(bare_value("3"), Value::Integer(3));
        assert_eq!(bare_value("[\"cpu\"]"), Value::Array(vec!["cpu".into()]));
        assert_eq!(bare_value("body"), Value::String("body".into()));
        assert_eq!(bare_value("s3://bucket/a b"), Value::String("s3://bucket/a b".into()));
        assert_eq!(bare_value("1\nother = 2"), Value::String("1\nother = 2".into()));
        assert_eq!(bare_value(""), Value::String(String::new()));
    }

    #[test]
    fn location_is_a_line_or_an_override() {
        let mut document =
            Document::parse("version = 1\n[source]\nuri = 'a'\nkeep = [\n 'b',\n 3]\n", "p.toml").unwrap();
        assert_eq!(document.location("source.uri").to_string(), "p.toml:3");
        assert_eq!(document.location("source.keep[1]").to_string(), "p.toml:6");
        assert_eq!(document.location("source.text").to_string(), "p.toml:2");
        assert_eq!(document.location("table.uri").to_string(), "p.toml");
        document.set("source.uri = b").unwrap();
        assert_eq!(document.location("source.uri").to_string(), "--set source.uri = b");
    }
}
