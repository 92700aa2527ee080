//! Limits of the maintenance: small fragments, and the retention of versions and files.

use std::time::Duration;

use polylance_schema::MaintenancePolicy;

/// A run merges small fragments when there are more than this many.
pub const MAX_SMALL_FRAGMENTS: usize = 16;

/// How long versions and files are kept. The latest version and tagged versions are always kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Versions older than this are removed.
    pub older_than: Duration,
    /// This many of the newest versions are kept whatever their age; 0 counts as 1.
    pub keep_versions: usize,
    /// Orphaned files of at least this age are removed; never before [`Self::MIN_ORPHAN_AGE`].
    pub orphan_age: Duration,
}

impl Retention {
    /// An orphaned file is never removed before this age: a run may be about to commit it.
    pub const MIN_ORPHAN_AGE: Duration = Duration::from_hours(1);
    /// After a week no run is about to commit a file. This is Lance's own limit, and the maximum here.
    pub const WEEK: Duration = Duration::from_hours(7 * 24);
}

impl Default for Retention {
    fn default() -> Self {
        Self { older_than: Self::WEEK, keep_versions: 10, orphan_age: Self::WEEK }
    }
}

impl From<&MaintenancePolicy> for Retention {
    fn from(policy: &MaintenancePolicy) -> Self {
        Self {
            older_than: Duration::from_secs(policy.keep_days.saturating_mul(24 * 3600)),
            keep_versions: usize::try_from(policy.keep_versions).unwrap_or(usize::MAX),
            orphan_age: Self::WEEK,
        }
    }
}

/// Whether a cleanup removes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanupMode {
    /// Remove.
    Remove,
    /// Only report what would be removed.
    DryRun,
}
