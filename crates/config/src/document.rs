//! A TOML document that remembers where each value was written.

use std::collections::BTreeMap;

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use crate::{ConfigError, Place};

/// Values, and the place of each by its dotted path.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) root: Value,
    name: String,
    places: BTreeMap<String, Place>,
}

impl Document {
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let syntax = |error: &toml::de::Error| ConfigError::Syntax {
            place: Box::new(Place::File {
                name: name.to_owned(),
                line: error.span().map(|span| line_of(text, span.start)),
            }),
            message: error.message().replace('\n', ", "),
        };
        let spans = DeTable::parse(text).map_err(|error| syntax(&error))?;
        let root: Table = toml::from_str(text).map_err(|error| syntax(&error))?;
        let mut document = Self { root: Value::Table(root), name: name.to_owned(), places: BTreeMap::new() };
        document.note_table(text, "", spans.get_ref());
        Ok(document)
    }

    /// Sets one key from `key=value`, where the value is TOML or else a string.
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
                place: Box::new(Place::Override(text.to_owned())),
                key: keys[..=depth].join("."),
                expected: "a table".to_owned(),
                found,
            })?;
        }
        table.insert((*last).to_owned(), bare_value(value.trim()));
        let place = Place::Override(text.to_owned());
        let below = format!("{path}.");
        self.places.retain(|known, _| !known.starts_with(&below));
        for depth in 1..keys.len() {
            self.places.entry(keys[..depth].join(".")).or_insert_with(|| place.clone());
        }
        self.places.insert(keys.join("."), place);
        Ok(())
    }

    /// Where the value at `path` was written, or the nearest table around it.
    pub(crate) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            let Some(parent) = path.rfind(['.', '[']) else {
                return Place::File { name: self.name.clone(), line: None };
            };
            path = &path[..parent];
        }
    }

    fn note_table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = join(path, key.get_ref());
            let line = Some(line_of(text, key.span().start));
            self.places.insert(path.clone(), Place::File { name: self.name.clone(), line });
            self.note_value(text, &path, value);
        }
    }

    fn note_value(&mut self, text: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.note_table(text, path, table),
            DeValue::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let line = Some(line_of(text, item.span().start));
                    self.places.insert(path.clone(), Place::File { name: self.name.clone(), line });
                    self.note_value(text, &path, item);
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

/// The value as TOML when it is, else as the string that it is: shells eat quotes.
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
    fn a_value_is_toml_or_else_a_string() {
        assert_eq!(bare_value("3"), Value::Integer(3));
        assert_eq!(bare_value("[\"cpu\"]"), Value::Array(vec!["cpu".into()]));
        assert_eq!(bare_value("body"), Value::String("body".into()));
        assert_eq!(bare_value("s3://bucket/a b"), Value::String("s3://bucket/a b".into()));
        assert_eq!(bare_value("1\nother = 2"), Value::String("1\nother = 2".into()));
        assert_eq!(bare_value(""), Value::String(String::new()));
    }

    #[test]
    fn places_name_line_or_override() {
        let mut document =
            Document::parse("version = 1\n[source]\nuri = 'a'\nkeep = [\n 'b',\n 3]\n", "p.toml").unwrap();
        assert_eq!(document.place("source.uri").to_string(), "p.toml:3");
        assert_eq!(document.place("source.keep[1]").to_string(), "p.toml:6");
        assert_eq!(document.place("source.text").to_string(), "p.toml:2");
        assert_eq!(document.place("table.uri").to_string(), "p.toml");
        document.set("source.uri = b").unwrap();
        assert_eq!(document.place("source.uri").to_string(), "--set source.uri = b");
    }
}
