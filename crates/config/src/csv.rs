//! How CSV files are written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// How CSV files are written. What is not given is found in the beginning of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Csv {
    /// What separates fields: `","`, `"\t"`, `";"`, `"|"` or another character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<CsvByte>,
    /// What stands around a field that has delimiters or line breaks in it: `"\""` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<CsvByte>,
    /// What stands before a quote inside of quotes: `"\\"`, or the quote itself where quotes are doubled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<CsvByte>,
}

impl Csv {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One ASCII character that is no line break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CsvByte(u8);

impl CsvByte {
    /// The character's byte.
    pub fn byte(self) -> u8 {
        self.0
    }
}

impl TryFrom<String> for CsvByte {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match *text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'\r' | b'\n' | 0) => Ok(Self(byte)),
            _ => Err(format!("expected one ASCII character that is no line break, found {text:?}")),
        }
    }
}

impl From<CsvByte> for String {
    fn from(byte: CsvByte) -> Self {
        Self::from(byte.0 as char)
    }
}

impl JsonSchema for CsvByte {
    fn schema_name() -> Cow<'static, str> {
        "CsvByte".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": 1 })
    }
}
