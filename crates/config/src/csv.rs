//! The dialect of CSV files.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The dialect of CSV files. Settings that are left out are detected from the beginning of each file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Csv {
    /// Separates fields: `","`, `"\t"`, `";"`, `"|"` or another character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<CsvByte>,
    /// Encloses a field that contains delimiters or line breaks: `"\""` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quote: Option<CsvByte>,
    /// Precedes a quote inside quotes: `"\\"`, or the quote itself where quotes are doubled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escape: Option<CsvByte>,
}

impl Csv {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One ASCII character other than a line break.
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
            _ => Err(format!("expected one ASCII character other than a line break, found {text:?}")),
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
