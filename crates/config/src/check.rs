//! Checks a document against the format before it is deserialized, so that each message can name the line, the key, the
//! expected and the actual value.

use serde_json::Value as Schema;
use toml::Value;

use crate::{
    ByteSize, ConfigError,
    document::{Document, article, join},
    schema::schema,
};

pub(crate) struct Checker<'a> {
    document: &'a Document,
    schema: Schema,
}

impl<'a> Checker<'a> {
    pub(crate) fn new(document: &'a Document) -> Self {
        Self { document, schema: schema() }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.check_value("", &self.document.root, &self.schema)
    }

    fn check_value(&self, path: &str, value: &Value, schema: &Schema) -> Result<(), ConfigError> {
        let alternatives = self.alternatives(schema);
        let found = json_type(value);
        let of_type: Vec<&Schema> = alternatives.iter().copied().filter(|s| accepts(s, found)).collect();
        let Some(first) = of_type.first() else {
            let mut names: Vec<&str> =
                alternatives.iter().flat_map(|s| type_names(s)).filter(|n| *n != "null").collect();
            names.dedup();
            return Err(ConfigError::WrongType {
                location: self.document.location(path).into(),
                key: path.to_owned(),
                expected: names.into_iter().map(toml_name).collect::<Vec<_>>().join(" or "),
                found: article(value.type_str()),
            });
        };
        match value {
            Value::Table(table) => self.check_table(path, table, first),
            Value::Array(items) => self.check_array(path, items, first),
            Value::String(text) => self.check_text(path, text, &of_type),
            Value::Integer(number) => self.check_integer(path, *number, first),
            Value::Float(number) => self.check_float(path, *number, first),
            _ => Ok(()),
        }
    }

    fn check_table(&self, path: &str, table: &toml::Table, schema: &Schema) -> Result<(), ConfigError> {
        let properties = schema["properties"].as_object();
        let known: Vec<&String> = properties.into_iter().flat_map(serde_json::Map::keys).collect();
        for key in table.keys() {
            if !known.contains(&key) {
                return Err(ConfigError::UnknownKey {
                    location: self.document.location(&join(path, key)).into(),
                    key: join(path, key),
                    section: if path.is_empty() { "the file".to_owned() } else { format!("[{path}]") },
                    nearest: nearest(key, known.iter().map(|known| known.as_str())),
                    known: known.iter().map(ToString::to_string).collect(),
                });
            }
        }
        for (key, value) in table {
            self.check_value(&join(path, key), value, &schema["properties"][key])?;
        }
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Schema::as_str);
        for key in required {
            if !table.contains_key(key) {
                return Err(ConfigError::Missing {
                    location: self.document.location(&join(path, key)).into(),
                    key: join(path, key),
                    example: self.example(path, key, &schema["properties"][key]),
                });
            }
        }
        Ok(())
    }

    /// An example for a missing key; for a missing section, with its first required key.
    fn example(&self, path: &str, key: &str, schema: &Schema) -> String {
        let schema = self.alternatives(schema).first().copied().unwrap_or(schema);
        match schema["required"][0].as_str() {
            Some(inner) => format!("[{}]` with `{inner} = \"…\"", join(path, key)),
            None => format!("{key} = \"…\"` to `[{path}]"),
        }
    }

    fn check_array(&self, path: &str, items: &[Value], schema: &Schema) -> Result<(), ConfigError> {
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            return Err(self.wrong_value(path, "an array with at least one value", "an empty one", None));
        }
        for (index, item) in items.iter().enumerate() {
            self.check_value(&format!("{path}[{index}]"), item, &schema["items"])?;
        }
        Ok(())
    }

    fn check_text(&self, path: &str, text: &str, schemas: &[&Schema]) -> Result<(), ConfigError> {
        let choices: Vec<&str> = schemas.iter().flat_map(|schema| choices(schema)).collect();
        if !choices.is_empty() {
            if choices.contains(&text) {
                return Ok(());
            }
            let listed = choices.iter().map(|choice| format!("{choice:?}")).collect::<Vec<_>>().join(", ");
            let nearest = nearest(text, choices.iter().copied());
            return Err(self.wrong_value(path, &format!("one of {listed}"), &format!("{text:?}"), nearest));
        }
        let schema = schemas[0];
        if text.is_empty() && schema["minLength"].as_u64().is_some_and(|min| min > 0) {
            return Err(self.wrong_value(path, "a string that is not empty", "\"\"", None));
        }
        if schema["format"] == "byte-size" && text.parse::<ByteSize>().is_err() {
            return Err(self.wrong_value(path, "a size such as 16777216 or \"16 MiB\"", &format!("{text:?}"), None));
        }
        Ok(())
    }

    fn check_integer(&self, path: &str, number: i64, schema: &Schema) -> Result<(), ConfigError> {
        let min = schema["minimum"].as_f64().map_or(i64::MIN, |min| min as i64);
        if number < min {
            return Err(self.wrong_value(path, &format!("an integer of {min} or more"), &number.to_string(), None));
        }
        if schema["maximum"].is_number() {
            return self.check_float(path, number as f64, schema);
        }
        Ok(())
    }

    fn check_float(&self, path: &str, number: f64, schema: &Schema) -> Result<(), ConfigError> {
        let (Some(min), Some(max)) = (schema["minimum"].as_f64(), schema["maximum"].as_f64()) else { return Ok(()) };
        if (min..=max).contains(&number) {
            return Ok(());
        }
        Err(self.wrong_value(path, &format!("a number from {min} to {max}"), &number.to_string(), None))
    }

    fn wrong_value(&self, path: &str, expected: &str, found: &str, nearest: Option<String>) -> ConfigError {
        ConfigError::WrongValue {
            location: self.document.location(path).into(),
            key: path.to_owned(),
            expected: expected.to_owned(),
            found: found.to_owned(),
            nearest,
        }
    }

    /// The alternatives of `schema`, with references and `anyOf` resolved.
    fn alternatives<'s>(&'s self, schema: &'s Schema) -> Vec<&'s Schema> {
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.schema.pointer(reference.trim_start_matches('#'));
            return target.map(|target| self.alternatives(target)).unwrap_or_default();
        }
        let inner = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
        match inner {
            Some(inner) => inner.iter().flat_map(|schema| self.alternatives(schema)).collect(),
            None => vec![schema],
        }
    }
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Integer(_) => "integer",
        Value::Float(_) => "number",
        Value::Boolean(_) => "boolean",
        Value::Datetime(_) => "datetime",
        Value::Array(_) => "array",
        Value::Table(_) => "object",
    }
}

fn toml_name(name: &str) -> String {
    article(match name {
        "object" => "table",
        "number" => "float",
        other => other,
    })
}

fn type_names(schema: &Schema) -> impl Iterator<Item = &str> {
    let listed = schema["type"].as_array().into_iter().flatten().filter_map(Schema::as_str);
    schema["type"].as_str().into_iter().chain(listed)
}

fn accepts(schema: &Schema, found: &str) -> bool {
    type_names(schema).any(|name| name == found || (name == "number" && found == "integer"))
}

fn choices(schema: &Schema) -> impl Iterator<Item = &str> {
    let listed = schema["enum"].as_array().into_iter().flatten().filter_map(Schema::as_str);
    schema["const"].as_str().into_iter().chain(listed)
}

/// The candidate whose spelling is most similar to `word`, if it is similar enough.
fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<String> {
    candidates
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}
