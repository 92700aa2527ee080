//! Which maintenance a table gets, and how long its versions and files stay.

use std::time::Duration;

use polylance_schema::MaintenancePolicy;

/// Small fragments that a run leaves alone.
pub const SMALL_FRAGMENTS: usize = 16;

/// How long versions and files stay. The latest version stays always, and so do tagged ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Versions older than this go.
    pub older_than: Duration,
    /// So many of the newest stay whatever their age; 0 counts as 1.
    pub keep_versions: usize,
    /// Files that no version names go from this age on; never before [`Self::SAFE_AGE`].
    pub unnamed: Duration,
}

impl Retention {
    /// A file that no version names is never removed before it has this age: a run may be about to commit it.
    pub const SAFE_AGE: Duration = Duration::from_hours(1);
    /// After this time nobody is about to commit a file: Lance's own limit, and the latest one here.
    pub const WEEK: Duration = Duration::from_hours(7 * 24);
}

impl Default for Retention {
    fn default() -> Self {
        Self { older_than: Self::WEEK, keep_versions: 10, unnamed: Self::WEEK }
    }
}

impl From<&MaintenancePolicy> for Retention {
    fn from(policy: &MaintenancePolicy) -> Self {
        Self {
            older_than: Duration::from_secs(policy.keep_days.saturating_mul(24 * 3600)),
            keep_versions: usize::try_from(policy.keep_versions).unwrap_or(usize::MAX),
            unnamed: Self::WEEK,
        }
    }
}

/// Whether to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Remove.
    Remove,
    /// Only say what would be removed.
    Explain,
}
