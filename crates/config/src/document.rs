//! Reads a pipeline file: TOML, then overrides, then unknown keys, then types.

use std::{fs, path::Path};

use schemars::schema_for;
use serde_json::Value as Json;
use toml::{Table as Toml, Value};

use crate::{ConfigError, Pipeline};

/// The version of the format that this program reads.
const VERSION: i64 = 1;

/// The JSON Schema of a pipeline file.
///
/// # Panics
/// Never: the schema is derived from plain types.
pub fn json_schema() -> Json {
    serde_json::to_value(schema_for!(Pipeline)).expect("a schema is JSON")
}

/// The JSON Schema as it is kept in `schemas/pipeline.schema.json`.
pub fn json_schema_text() -> String {
    format!("{:#}\n", json_schema())
}

impl Pipeline {
    /// Reads a file and applies `key=value` overrides.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text, overrides)
    }

    /// Reads a file's text; `file` is its name in errors.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut table: Toml = toml::from_str(text)
            .map_err(|error| ConfigError::Syntax { file: file.to_owned(), message: error.to_string().trim_end().to_owned() })?;
        for argument in overrides {
            apply(&mut table, argument)?;
        }
        check_version(file, &table)?;
        let schema = json_schema();
        check_keys(file, &schema, &schema, "", &Value::Table(table.clone()))?;
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| ConfigError::Value {
            file: file.to_owned(),
            key: error.path().to_string(),
            message: error.inner().message().to_owned(),
        })
    }
}

/// Sets `a.b=value` in the table; a value that is not TOML is a string.
fn apply(table: &mut Toml, argument: &str) -> Result<(), ConfigError> {
    let malformed = || ConfigError::Override { argument: argument.to_owned() };
    let (key, value) = argument.split_once('=').ok_or_else(malformed)?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts.pop().filter(|last| !last.is_empty()).ok_or_else(malformed)?;
    let mut section = table;
    for part in parts {
        let entry = section.entry(part).or_insert_with(|| Value::Table(Toml::new()));
        section = entry.as_table_mut().ok_or_else(malformed)?;
    }
    let parsed = toml::from_str::<Toml>(&format!("value = {value}")).ok().and_then(|mut table| table.remove("value"));
    section.insert(last.to_owned(), parsed.unwrap_or_else(|| Value::String(value.to_owned())));
    Ok(())
}

/// A file of another version is not blamed for the keys of that version.
fn check_version(file: &str, table: &Toml) -> Result<(), ConfigError> {
    let found = match table.get("version") {
        Some(Value::Integer(VERSION)) => return Ok(()),
        Some(other) => other.to_string(),
        None => "(none)".to_owned(),
    };
    Err(ConfigError::Version { file: file.to_owned(), found })
}

/// Walks the file beside its schema and refuses the first key the schema does not have.
fn check_keys(file: &str, root: &Json, schema: &Json, path: &str, value: &Value) -> Result<(), ConfigError> {
    let schema = resolve(root, schema);
    let (Some(table), Some(known)) = (value.as_table(), schema["properties"].as_object()) else { return Ok(()) };
    for (key, value) in table {
        let whole = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(schema) = known.get(key) else {
            let nearest = known.keys().map(|name| (strsim::damerau_levenshtein(name, key), name)).min();
            let nearest = nearest.filter(|(distance, name)| *distance <= name.len().div_ceil(2)).map(|(_, name)| name.clone());
            let known = known.keys().cloned().collect();
            return Err(ConfigError::UnknownKey { file: file.to_owned(), key: whole, nearest, known });
        };
        check_keys(file, root, schema, &whole, value)?;
    }
    Ok(())
}

/// Follows `$ref`, also inside the `anyOf` of an optional section.
fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    if let Some(pointer) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        return root.pointer(pointer).unwrap_or(schema);
    }
    match schema["anyOf"].as_array().and_then(|any| any.first()) {
        Some(first) if first.get("$ref").is_some() => resolve(root, first),
        _ => schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteSize, IndexKind};

    const SHORTEST: &str = "version = 1\n[source]\nuri = \"docs\"\n[table]\nuri = \"docs.lance\"\n";

    fn parse(text: &str, overrides: &[&str]) -> Result<Pipeline, ConfigError> {
        let overrides: Vec<String> = overrides.iter().map(|&argument| argument.to_owned()).collect();
        Pipeline::parse("job.toml", text, &overrides)
    }

    #[test]
    fn the_shortest_useful_file_has_five_lines() {
        assert_eq!(SHORTEST.lines().count(), 5);
        let pipeline = parse(SHORTEST, &[]).unwrap();
        assert_eq!((pipeline.source.id.as_str(), pipeline.source.text.as_str()), ("id", "text"));
        assert_eq!(pipeline.source.max_bytes, ByteSize(16 << 20));
        assert!(pipeline.table.text);
    }

    #[test]
    fn a_misspelled_key_is_refused_with_the_nearest_known_one() {
        for (text, key, nearest) in [
            ("version = 1\n[source]\nuri = \"a\"\ntxet = \"b\"\n[table]\nuri = \"c\"\n", "source.txet", "text"),
            ("version = 1\n[sorce]\nuri = \"a\"\n[table]\nuri = \"c\"\n", "sorce", "source"),
            (
                "version = 1\n[source]\nuri = \"a\"\n[table]\nuri = \"c\"\ncommit = { row = 5 }\n",
                "table.commit.row",
                "rows",
            ),
            (
                "version = 1\n[source]\nuri = \"a\"\n[model]\nprompts = { pasage = \"\" }\n[table]\nuri = \"c\"\n",
                "model.prompts.pasage",
                "passage",
            ),
        ] {
            let error = parse(text, &[]).unwrap_err();
            let ConfigError::UnknownKey { key: found, nearest: named, .. } = &error else { panic!("{error:?}") };
            assert_eq!((found.as_str(), named.as_deref()), (key, Some(nearest)));
            assert!(error.hint().unwrap().contains(nearest));
        }
    }

    #[test]
    fn a_wrong_type_names_key_expected_and_found() {
        let error = parse(SHORTEST, &["source.uri=7"]).unwrap_err().to_string();
        assert_eq!(error, "job.toml: source.uri: invalid type: integer `7`, expected a string");
        let error = parse(SHORTEST, &["index.kind=ivfpq"]).unwrap_err().to_string();
        assert!(error.contains("index.kind") && error.contains("ivf_pq"), "{error}");
    }

    #[test]
    fn overrides_are_checked_like_the_file() {
        let pipeline = parse(SHORTEST, &["table.uri=s3://b/t.lance", "index.kind=none", "source.keep=[\"lang\"]"]).unwrap();
        assert_eq!(pipeline.table.uri, "s3://b/t.lance");
        assert_eq!(pipeline.index.kind, IndexKind::None);
        assert_eq!(pipeline.source.keep, ["lang"]);
        assert!(matches!(parse(SHORTEST, &["table.url=x"]), Err(ConfigError::UnknownKey { .. })));
        assert!(matches!(parse(SHORTEST, &["table"]), Err(ConfigError::Override { .. })));
    }

    #[test]
    fn another_version_is_refused_before_its_keys() {
        let error = parse("version = 2\n[sauce]\n", &[]).unwrap_err();
        assert!(matches!(&error, ConfigError::Version { found, .. } if found == "2"), "{error}");
        assert!(matches!(parse("[source]\n", &[]), Err(ConfigError::Version { .. })));
    }

    #[test]
    fn a_file_that_is_not_toml_says_where() {
        let error = parse("version = 1\n[source\n", &[]).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
