//! The rule of a table's content hashes, stored in its metadata.

use std::{collections::HashMap, fmt};

/// How a table's content hashes are computed. All rows of a table follow one rule: under another rule every document would
/// look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentRule {
    /// Kept values as Arrow prints them, in the order in which the run names them: the rule of tables that name none. Two
    /// different lists of texts may have the same hash.
    Printed,
    /// Kept values in an unambiguous encoding, in the order of their columns' names.
    #[default]
    Encoded,
}

/// A rule that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("the table's `{key}` metadata is {0:?}, which this version does not know", key = ContentRule::METADATA_KEY)]
pub struct UnknownRule(String);

impl ContentRule {
    /// The key in the table's schema metadata.
    pub const METADATA_KEY: &'static str = "polylance.content_hash";

    /// The rule as metadata; `None` for [`ContentRule::Printed`], which is not written down.
    pub fn to_metadata(self) -> Option<(String, String)> {
        match self {
            Self::Printed => None,
            Self::Encoded => Some((Self::METADATA_KEY.to_owned(), "2".to_owned())),
        }
    }

    /// The rule of a table with this metadata.
    ///
    /// # Errors
    /// When the table follows a rule of a later version.
    pub fn from_metadata(metadata: &HashMap<String, String>) -> Result<Self, UnknownRule> {
        match metadata.get(Self::METADATA_KEY).map(String::as_str) {
            None => Ok(Self::Printed),
            Some("2") => Ok(Self::Encoded),
            Some(other) => Err(UnknownRule(other.to_owned())),
        }
    }
}

impl fmt::Display for ContentRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Printed => "1",
            Self::Encoded => "2",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_survives_metadata() {
        for rule in [ContentRule::Printed, ContentRule::Encoded] {
            let metadata = HashMap::from_iter(rule.to_metadata());
            assert_eq!(ContentRule::from_metadata(&metadata).unwrap(), rule);
        }
        let later = HashMap::from([(ContentRule::METADATA_KEY.to_owned(), "3".to_owned())]);
        assert!(ContentRule::from_metadata(&later).is_err());
    }
}
