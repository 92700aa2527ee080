//! The metrics, in the format of Prometheus.

use std::{sync::Arc, time::Duration};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use tonic::Code;

/// Seconds, from a cached response to the default timeout of a request.
const REQUEST_SECONDS_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
/// Inputs in a call to the devices.
const EMBED_INPUTS_BUCKETS: [f64; 8] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 256.0];

/// The counters, shared.
#[derive(Debug, Clone)]
pub(crate) struct Metrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    running: IntGauge,
    connections: IntGaugeVec,
    calls: IntCounterVec,
    tool_calls: IntCounterVec,
    inputs: Histogram,
    versions: IntGaugeVec,
}

impl Metrics {
    /// Panics if a name or label is invalid. All are constants, and the tests create them.
    pub(crate) fn new() -> Self {
        let valid = "constant names of metrics are valid";
        let requests = Opts::new("polylance_http_requests_total", "Requests answered");
        let seconds =
            HistogramOpts::new("polylance_http_request_seconds", "Time from a request's head to its response");
        let connections = Opts::new("polylance_connections", "Open connections");
        let calls = Opts::new("polylance_flight_calls_total", "Calls of Arrow Flight answered");
        let tool_calls =
            Opts::new("polylance_mcp_calls_total", "Calls of the tools of the Model Context Protocol answered");
        let inputs = HistogramOpts::new("polylance_embed_inputs", "Inputs in a call to the devices");
        let versions = Opts::new("polylance_table_version", "The version of a table that is served");
        let counters = Counters {
            registry: Registry::new(),
            requests: IntCounterVec::new(requests, &["route", "method", "status"]).expect(valid),
            seconds: HistogramVec::new(seconds.buckets(REQUEST_SECONDS_BUCKETS.to_vec()), &["route"]).expect(valid),
            running: IntGauge::new("polylance_http_in_work", "Running requests").expect(valid),
            connections: IntGaugeVec::new(connections, &["protocol"]).expect(valid),
            calls: IntCounterVec::new(calls, &["call", "code"]).expect(valid),
            tool_calls: IntCounterVec::new(tool_calls, &["tool", "code"]).expect(valid),
            inputs: Histogram::with_opts(inputs.buckets(EMBED_INPUTS_BUCKETS.to_vec())).expect(valid),
            versions: IntGaugeVec::new(versions, &["table"]).expect(valid),
        };
        let all: [Box<dyn prometheus::core::Collector>; 8] = [
            Box::new(counters.requests.clone()),
            Box::new(counters.seconds.clone()),
            Box::new(counters.running.clone()),
            Box::new(counters.connections.clone()),
            Box::new(counters.calls.clone()),
            Box::new(counters.tool_calls.clone()),
            Box::new(counters.inputs.clone()),
            Box::new(counters.versions.clone()),
        ];
        for collector in all {
            counters.registry.register(collector).expect("each name is registered once");
        }
        Self(Arc::new(counters))
    }

    /// Counts a request. `route` is the pattern, not the path: labels must be few.
    pub(crate) fn http_request(&self, route: &str, method: &str, status: u16, time: Duration) {
        self.0.requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.0.seconds.with_label_values(&[route]).observe(time.as_secs_f64());
    }

    /// Counts a call of Flight. `call` is a name from the protocol.
    pub(crate) fn flight_call(&self, call: &str, code: Code) {
        self.0.calls.with_label_values(&[call, &format!("{code:?}")]).inc();
    }

    /// Counts a call of a tool. `code` is `ok` or the code of an error, which are constants.
    pub(crate) fn tool_call(&self, tool: &'static str, code: &'static str) {
        self.0.tool_calls.with_label_values(&[tool, code]).inc();
    }

    pub(crate) fn embed_call(&self, inputs: usize) {
        self.0.inputs.observe(inputs as f64);
    }

    pub(crate) fn serving_version(&self, table: &str, version: u64) {
        self.0.versions.with_label_values(&[table]).set(version as i64);
    }

    pub(crate) fn connections(&self, protocol: &str, open: usize) {
        self.0.connections.with_label_values(&[protocol]).set(open as i64);
    }

    /// All metrics, with the number of requests that run now.
    pub(crate) fn text(&self, running: usize) -> String {
        self.0.running.set(running as i64);
        let mut text = Vec::new();
        // Writing to memory cannot fail, and every gathered metric has a name.
        let _written = TextEncoder::new().encode(&self.0.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_in_the_text() {
        let metrics = Metrics::new();
        metrics.http_request("/v1/search", "POST", 200, Duration::from_millis(3));
        metrics.flight_call("DoGet", Code::NotFound);
        metrics.tool_call("search", "no_table");
        metrics.embed_call(3);
        metrics.serving_version("docs", 7);
        metrics.connections("http", 2);
        let text = metrics.text(1);
        for line in [
            r#"polylance_http_requests_total{method="POST",route="/v1/search",status="200"} 1"#,
            r#"polylance_http_request_seconds_bucket{route="/v1/search",le="0.005"} 1"#,
            r#"polylance_flight_calls_total{call="DoGet",code="NotFound"} 1"#,
            r#"polylance_mcp_calls_total{code="no_table",tool="search"} 1"#,
            r#"polylance_embed_inputs_bucket{le="4"} 1"#,
            r#"polylance_table_version{table="docs"} 7"#,
            r#"polylance_connections{protocol="http"} 2"#,
            "polylance_http_in_work 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
