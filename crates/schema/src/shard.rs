//! Shards: parts of a source that several processes embed into one table.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Serialize, Serializer};

/// One of the parts into which a source is cut, `3/8` as text. The index counts from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: u32,
    of: u32,
}

/// A text or a pair of numbers that is no shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The text is not two whole numbers with a slash between them.
    #[error("expected INDEX/COUNT such as 0/8, found {found:?}")]
    Syntax {
        /// The text.
        found: String,
    },
    /// There is no such shard.
    #[error("there is no shard {index}/{of}: the index counts from 0 and is less than the number of shards")]
    Index {
        /// The index.
        index: u32,
        /// The number of shards.
        of: u32,
    },
}

impl Shard {
    /// Shard `index` of `of` shards.
    ///
    /// # Errors
    /// [`ShardError::Index`] unless `index` is less than `of`.
    pub fn new(index: u32, of: u32) -> Result<Self, ShardError> {
        if index < of { Ok(Self { index, of }) } else { Err(ShardError::Index { index, of }) }
    }

    /// The shard's share of `total` bytes. The shares of all shards follow one another without a gap.
    pub fn share(self, total: u64) -> Range<u64> {
        let begin = |index: u32| (u128::from(total) * u128::from(index) / u128::from(self.of)) as u64;
        begin(self.index)..begin(self.index + 1)
    }
}

impl FromStr for Shard {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        // `u32` parses `+3` too.
        let number = |digits: &str| digits.starts_with(|c: char| c.is_ascii_digit()).then(|| digits.parse().ok());
        let numbers = text.split_once('/').and_then(|(index, of)| Some((number(index)??, number(of)??)));
        let (index, of) = numbers.ok_or_else(|| ShardError::Syntax { found: text.to_owned() })?;
        Self::new(index, of)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl Serialize for Shard {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shard_is_read_and_written_as_a_fraction() {
        for text in ["0/1", "3/8", "4294967294/4294967295"] {
            let shard: Shard = text.parse().unwrap();
            assert_eq!(shard.to_string(), text);
            assert_eq!(serde_json::to_value(shard).unwrap(), text);
        }
    }

    #[test]
    fn text_that_is_no_shard_is_refused() {
        for text in ["", "3", "/", "3/", "/8", "a/8", "-1/8", "+1/8", "1/8/2", "1 / 8", "1.0/8", "0/4294967296"] {
            assert_eq!(text.parse::<Shard>(), Err(ShardError::Syntax { found: text.to_owned() }), "{text}");
        }
        for text in ["8/8", "9/8", "0/0"] {
            let error = text.parse::<Shard>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("there is no shard {text}: ")), "{error}");
        }
    }

    #[test]
    fn shares_follow_one_another_without_a_gap() {
        for (total, of) in [(0, 3), (1, 3), (10, 3), (u64::MAX, 7), (u64::MAX, u32::MAX)] {
            let share = |index| Shard::new(index, of).unwrap().share(total);
            assert_eq!((share(0).start, share(of - 1).end), (0, total));
            for index in 1..of.min(10) {
                assert_eq!(share(index - 1).end, share(index).start, "{index}/{of} of {total}");
            }
        }
    }
}
