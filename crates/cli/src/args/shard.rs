//! The part of a source that a run embeds.

use std::{env, str::FromStr};

use polylance_engine::shard_of_environment;
use polylance_schema::{Shard, ShardError};

use crate::error::UsageError;

/// A value of `--shard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardArg {
    /// The shard that a launcher names in the environment.
    Auto,
    Given(Shard),
}

impl FromStr for ShardArg {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        if text == "auto" { Ok(Self::Auto) } else { Ok(Self::Given(text.parse()?)) }
    }
}

impl ShardArg {
    pub(crate) fn resolve(self) -> Result<Shard, UsageError> {
        match self {
            Self::Auto => shard_of_environment(|name| env::var(name).ok()),
            Self::Given(shard) => Ok(shard),
        }
    }
}
