//! The state of a cluster, as its scheduler returns it.

use serde::{Deserialize, Serialize};

/// The path of the state on the scheduler's port.
pub(crate) const PATH: &str = "/cluster";

/// The state of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The version of the scheduler.
    pub version: String,
    /// The executors, by host and port.
    pub executors: Vec<ExecutorStatus>,
    /// Splits that are embedded at the same time on all executors.
    pub slots: usize,
    /// Splits in work, or waiting for a slot.
    pub splits: usize,
}

/// An executor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecutorStatus {
    /// The name or address under which the scheduler reaches it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Splits that it embeds at the same time.
    pub slots: usize,
    /// Seconds since its last heartbeat.
    pub seconds_silent: u64,
}

impl ClusterStatus {
    /// The state in the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let gauges = [
            ("polylance_executors", "Registered executors", self.executors.len()),
            ("polylance_slots", "Splits that are embedded at the same time", self.slots),
            ("polylance_splits_in_work", "Splits in work, or waiting for a slot", self.splits),
            ("polylance_splits_waiting", "Splits that wait for a slot", self.splits.saturating_sub(self.slots)),
        ];
        let gauge = |(name, help, value): (&str, &str, usize)| {
            format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n")
        };
        gauges.map(gauge).concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_beyond_the_slots_wait() {
        let status = ClusterStatus { slots: 4, splits: 9, ..ClusterStatus::default() };
        let metrics = status.metrics();
        assert!(metrics.contains("\npolylance_splits_waiting 5\n") && metrics.contains("\npolylance_slots 4\n"));
        let sent = serde_json::to_string(&status).unwrap();
        assert_eq!(serde_json::from_str::<ClusterStatus>(&sent).unwrap(), status);
    }
}
