//! The errors of commands.

pub(crate) use polylance_engine::UsageError;
use polylance_engine::damage_behind;

pub(crate) type Result<T, E = anyhow::Error> = std::result::Result<T, E>;

/// Replaces the error of a table that cannot be opened by the damage of its newest version, if that is the cause.
pub(crate) async fn with_damage(error: anyhow::Error) -> anyhow::Error {
    damage_behind(error.as_ref()).await.map_or(error, Into::into)
}
