//! How a document's content hash is made, kept in the table's metadata.

use std::{collections::HashMap, fmt};

/// The rule by which a table's `content_hash` column is made. All rows of a table have one rule: a hash by another would
/// make every document look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ContentRule {
    /// Kept values as Arrow prints them, in the order in which the run names them. Of tables that name no rule. Two
    /// lists of texts may have one hash.
    Printed,
    /// Kept values by an encoding of their own, in the order of their columns' names.
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

    /// The rule as metadata; nothing for that of tables that name none.
    pub fn to_metadata(self) -> Option<(String, String)> {
        match self {
            Self::Printed => None,
            Self::Encoded => Some((Self::METADATA_KEY.to_owned(), "2".to_owned())),
        }
    }

    /// The rule of a table with this metadata.
    ///
    /// # Errors
    /// When a later version made the table by another rule.
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
    fn a_rule_comes_back_from_metadata() {
        for rule in [ContentRule::Printed, ContentRule::Encoded] {
            let metadata = HashMap::from_iter(rule.to_metadata());
            assert_eq!(ContentRule::from_metadata(&metadata).unwrap(), rule);
        }
        let later = HashMap::from([(ContentRule::METADATA_KEY.to_owned(), "3".to_owned())]);
        assert!(ContentRule::from_metadata(&later).is_err());
    }
}
