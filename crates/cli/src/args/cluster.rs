//! The cluster of a run.

use std::{env, str::FromStr};

use polylance_ballista::SchedulerAddress;
use polylance_cluster::ClusterError;

/// The address of the cluster that runs without --cluster use.
const VARIABLE: &str = "POLYLANCE_CLUSTER";
/// The word for no cluster.
const NONE: &str = "none";

/// The scheduler of a cluster, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClusterArg(Option<SchedulerAddress>);

impl ClusterArg {
    /// The value of the environment, if it has one. It is read here, and not with the arguments: a shard, which has no
    /// cluster, ignores it.
    pub(crate) fn of_environment() -> Result<Option<Self>, ClusterError> {
        env::var(VARIABLE).ok().map(|value| value.parse()).transpose()
    }

    /// The scheduler, if there is one.
    pub(crate) fn address(&self) -> Option<SchedulerAddress> {
        self.0.clone()
    }
}

impl FromStr for ClusterArg {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        if text == NONE { Ok(Self(None)) } else { text.parse().map(|address| Self(Some(address))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_an_address_or_none() {
        assert_eq!("none".parse::<ClusterArg>().unwrap().address(), None);
        let address = "http://scheduler:50050".parse::<ClusterArg>().unwrap().address().unwrap();
        assert_eq!(address.to_string(), "http://scheduler:50050");
        assert!("https://scheduler".parse::<ClusterArg>().is_err());
    }
}
