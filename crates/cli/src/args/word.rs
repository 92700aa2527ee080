//! Enums of the vocabulary as arguments: names and help are those of the pipeline file.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A clap parser for an enum of the vocabulary.
pub(crate) fn word<T>() -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(words::<T>()).try_map(|name| serde_json::from_value(Value::String(name)))
}

/// Parses a value of an enum of the vocabulary outside of clap.
pub(crate) fn read_word<T: DeserializeOwned + JsonSchema>(name: &str) -> Result<T, String> {
    serde_json::from_value(Value::from(name)).map_err(|_| {
        let known: Vec<String> = words::<T>().iter().map(|word| word.get_name().to_owned()).collect();
        format!("expected one of {}, found {name:?}", known.join(", "))
    })
}

/// The enum's values with their documentation, from its JSON Schema.
fn words<T: JsonSchema>() -> Vec<PossibleValue> {
    let schema = T::json_schema(&mut SchemaGenerator::default());
    let documented = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten().filter_map(|word| {
        let help = word["description"].as_str().unwrap_or_default();
        Some(PossibleValue::new(word["const"].as_str()?.to_owned()).help(help.trim_end_matches('.').to_owned()))
    });
    let plain = schema.get("enum").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    documented.chain(plain.map(|name| PossibleValue::new(name.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use polylance_schema::{IndexKind, TaskName};

    use super::*;

    #[test]
    fn values_are_those_of_the_pipeline_file() {
        let names: Vec<String> = words::<IndexKind>().iter().map(|word| word.get_name().to_owned()).collect();
        assert_eq!(names[..4], ["auto", "none", "ivf_flat", "ivf_sq"]);
        assert!(words::<IndexKind>().iter().all(|word| word.get_help().is_some()));
        assert_eq!(read_word("zero-shot"), Ok(TaskName::ZeroShot));
        let error = read_word::<TaskName>("magic").unwrap_err();
        assert!(error.starts_with("expected one of classify, zero-shot, ") && error.ends_with("found \"magic\""));
    }
}
