//! The prefix of a head's inputs.

use polylance_encoder::ModelFiles;

/// The prefix with which the head was fitted; it is put before every text. Empty for a head without one.
pub(crate) fn fitted_prefix(files: &ModelFiles) -> String {
    files.head_config().fitted().map(|fitted| fitted.prefix.clone()).unwrap_or_default()
}
