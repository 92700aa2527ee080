//! The address of a scheduler.

use std::{fmt, str::FromStr};

use polylance_cluster::ClusterError;

/// The port of a scheduler that names none.
pub const DEFAULT_PORT: u16 = 50050;
const SCHEME: &str = "http://";

/// The host and the port of a scheduler, `http://HOST:PORT` as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchedulerAddress {
    host: String,
    port: u16,
}

impl SchedulerAddress {
    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for SchedulerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}:{}", self.host, self.port)
    }
}

impl FromStr for SchedulerAddress {
    type Err = ClusterError;

    fn from_str(text: &str) -> Result<Self, ClusterError> {
        let wrong = || ClusterError::Address { found: text.to_owned() };
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let has_port = rest.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let (host, port) = match has_port {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (rest, DEFAULT_PORT),
        };
        let is_bare = !host.contains(':') || host.starts_with('[') && host.ends_with(']');
        if host.is_empty() || !is_bare || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (text, expected) in [
            ("http://scheduler:50050", "http://scheduler:50050"),
            ("scheduler", "http://scheduler:50050"),
            ("10.0.0.7:6000/", "http://10.0.0.7:6000"),
            ("http://[::1]:6000", "http://[::1]:6000"),
            ("[::1]", "http://[::1]:50050"),
        ] {
            assert_eq!(text.parse::<SchedulerAddress>().unwrap().to_string(), expected);
        }
        for text in ["", "http://", "https://a:1", "a:b", "a:70000", "a/b", "::1", "user@host:1", "http://a:1/x"] {
            assert!(text.parse::<SchedulerAddress>().is_err(), "{text}");
        }
    }
}
