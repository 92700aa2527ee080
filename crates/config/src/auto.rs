//! `"auto"` in place of a word of the vocabulary.

use polylance_schema::{Dtype, SourceFormat};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error, IntoDeserializer},
};
use serde_json::{Value, json};

const AUTO: &str = "auto";

#[expect(clippy::ref_option, reason = "serde passes a reference")]
pub(crate) fn serialize<T: Serialize, S: Serializer>(word: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    match word {
        Some(word) => word.serialize(serializer),
        None => serializer.serialize_str(AUTO),
    }
}

pub(crate) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == AUTO {
        return Ok(None);
    }
    let word = IntoDeserializer::<serde::de::value::Error>::into_deserializer(text);
    T::deserialize(word).map(Some).map_err(D::Error::custom)
}

pub(crate) fn format(generator: &mut SchemaGenerator) -> Schema {
    or_auto::<SourceFormat>("Detected from the content.", generator)
}

pub(crate) fn dtype(generator: &mut SchemaGenerator) -> Schema {
    let auto = "The table's dtype when the table exists; else `bf16` on GPUs and on CPUs that multiply it faster, and \
                `f32` elsewhere.";
    or_auto::<Dtype>(auto, generator)
}

/// The schema of the words, preceded by `auto`.
fn or_auto<T: JsonSchema>(description: &str, generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(Value::Array(words)) = schema.get_mut("oneOf") {
        words.insert(0, json!({ "description": description, "type": "string", "const": AUTO }));
    }
    schema.remove("description");
    schema
}
