//! A store that fails: runs end right, or with a clear error, and then go on right.

use std::process::Output;

use polylance_tests::{FaultProxy, Found, S3Server, fake_job, read_fake_job, write_fake_corpus};

const DOCUMENTS: usize = 600;
/// Runs that may fail before one ends.
const RUNS: usize = 25;

struct Bucket {
    server: S3Server,
    folder: tempfile::TempDir,
    expected: Found,
}

impl Bucket {
    fn new() -> Self {
        let (server, folder) = (S3Server::start("corpus"), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name).display().to_string();
        write_fake_corpus(at("docs.jsonl").as_ref(), DOCUMENTS);
        let whole = fake_job(&at("docs.jsonl"), &at("whole.lance"), 100).output().unwrap();
        assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
        let expected = read_fake_job(&at("whole.lance"));
        server.upload(at("docs.jsonl").as_ref(), "docs.jsonl");
        Self { server, folder, expected }
    }

    fn run(&self, endpoint: &str) -> Output {
        let mut command = fake_job("s3://corpus/docs.jsonl", "s3://corpus/docs.lance", 100);
        command.envs(self.server.variables()).env("AWS_ENDPOINT_URL", endpoint);
        // What is silent is given up soon, so that there is time for many calls.
        command.env("AWS_TIMEOUT", "2s").output().unwrap()
    }

    fn found(&self) -> Found {
        for name in ["docs.lance", "docs.quarantine.lance"] {
            self.server.download(name, self.folder.path());
        }
        read_fake_job(&self.folder.path().join("docs.lance").display().to_string())
    }
}

/// Runs until one ends well, and compares the table with that of an undisturbed run.
fn runs_end_right(rate: u64) {
    let bucket = Bucket::new();
    let proxy = FaultProxy::start(bucket.server.endpoint(), rate, 11);
    let mut failures = Vec::new();
    loop {
        let output = bucket.run(proxy.endpoint());
        if output.status.success() {
            break;
        }
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("s3://corpus/") && !said.contains("panicked"), "{said}");
        failures.push(said);
        assert!(failures.len() < RUNS, "no run of {RUNS} ended well, the last because of {:?}", failures.last());
    }
    let (calls, faults) = proxy.counts();
    assert!(faults > 0, "{calls} calls met no fault");
    assert_eq!(bucket.found(), bucket.expected, "{faults} of {calls} calls went wrong, and runs with {failures:?}");
}

#[test]
fn table_is_complete_when_1_percent_of_calls_fail() {
    runs_end_right(10);
}

#[test]
fn table_is_complete_when_5_percent_of_calls_fail() {
    runs_end_right(50);
}

#[test]
fn table_is_complete_when_20_percent_of_calls_fail() {
    runs_end_right(200);
}
