//! Reading and checking a [`Pipeline`].

use std::path::Path;

use serde::{Deserialize, Serialize};
use toml::Value;

use crate::{ConfigError, Location, Pipeline, check::Checker, document::Document, document::article, validate};

impl Pipeline {
    /// Reads a pipeline file and applies `overrides` (`key=value`, the value TOML or a bare string).
    ///
    /// # Errors
    /// Every [`ConfigError`].
    pub fn read(path: &Path, overrides: &[impl AsRef<str>]) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        let bytes = std::fs::read(path).map_err(read)?;
        let name = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|byte| *byte == b'\n').count();
            let location = Box::new(Location::File { name: name.clone(), line: Some(line) });
            ConfigError::Syntax { location, message: "the text is not UTF-8".to_owned() }
        })?;
        Self::parse(&name, &text, overrides)
    }

    /// Like [`Pipeline::read`] for a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// Every [`ConfigError`] but [`ConfigError::Read`].
    pub fn parse(name: &str, text: &str, overrides: &[impl AsRef<str>]) -> Result<Self, ConfigError> {
        let mut document = Document::parse(text, name)?;
        for text in overrides {
            document.set(text.as_ref())?;
        }
        Self::from_document(&document)
    }

    /// Reads the keys and values of a pipeline that is in no file; `name` stands for the file in errors.
    ///
    /// # Errors
    /// Every [`ConfigError`] but [`ConfigError::Read`].
    pub fn from_values(name: &str, values: &impl Serialize) -> Result<Self, ConfigError> {
        let location = || Box::new(Location::File { name: name.to_owned(), line: None });
        let root = Value::try_from(values)
            .map_err(|error| ConfigError::Invalid { location: location(), message: error.to_string() })?;
        Self::from_document(&Document::from_values(root, name))
    }

    fn from_document(document: &Document) -> Result<Self, ConfigError> {
        check_version(document)?;
        Checker::new(document).check()?;
        let file = Self::deserialize(document.root.clone()).map_err(|error| ConfigError::Invalid {
            location: document.location("").into(),
            message: error.message().replace('\n', ", "),
        })?;
        validate::validate(&file, |key| document.location(key))?;
        Ok(file)
    }

    /// Checks a pipeline that was built from arguments.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] when values contradict each other.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate::validate(self, |_| Location::Arguments)
    }
}

/// Checks the version before anything else: for a file of another version every other message would be misleading.
fn check_version(document: &Document) -> Result<(), ConfigError> {
    let location = Box::new(document.location("version"));
    match document.root.get("version") {
        Some(Value::Integer(1)) => Ok(()),
        Some(Value::Integer(found)) => Err(ConfigError::Version { location, found: found.to_string() }),
        Some(other) => Err(ConfigError::WrongType {
            location,
            key: "version".to_owned(),
            expected: "the integer 1".to_owned(),
            found: article(other.type_str()),
        }),
        None => Err(ConfigError::Missing { location, key: "version".to_owned(), example: "version = 1".to_owned() }),
    }
}
