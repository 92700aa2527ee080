//! A failing store: every run succeeds or ends with a clear error, and the final table is complete.

use std::process::Output;

use polylance_tests::{FaultProxy, S3Server, TableContents, fake_job, read_contents, write_fake_corpus};

const DOCUMENTS: usize = 600;
/// Runs that may fail before one succeeds.
const RUNS: usize = 25;

struct Bucket {
    server: S3Server,
    folder: tempfile::TempDir,
    expected: TableContents,
}

impl Bucket {
    fn new() -> Self {
        let (server, folder) = (S3Server::start("corpus"), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name).display().to_string();
        write_fake_corpus(at("docs.jsonl").as_ref(), DOCUMENTS);
        let whole = fake_job(&at("docs.jsonl"), &at("whole.lance"), 100).output().unwrap();
        assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
        let expected = read_contents(&at("whole.lance"));
        server.upload(at("docs.jsonl").as_ref(), "docs.jsonl");
        Self { server, folder, expected }
    }

    fn run(&self, endpoint: &str) -> Output {
        let mut command = fake_job("s3://corpus/docs.jsonl", "s3://corpus/docs.lance", 100);
        command.envs(self.server.variables()).env("AWS_ENDPOINT_URL", endpoint);
        // A short timeout for calls without a response, so that there is time for many calls.
        command.env("AWS_TIMEOUT", "2s").output().unwrap()
    }

    fn contents(&self) -> TableContents {
        for name in ["docs.lance", "docs.quarantine.lance"] {
            self.server.download(name, self.folder.path());
        }
        read_contents(&self.folder.path().join("docs.lance").display().to_string())
    }
}

/// Starts runs until one succeeds, and compares the table with that of an undisturbed run.
fn assert_runs_complete_the_table(rate: u64) {
    let bucket = Bucket::new();
    let proxy = FaultProxy::start(bucket.server.endpoint(), rate, 11);
    let mut failures = Vec::new();
    loop {
        let output = bucket.run(proxy.endpoint());
        if output.status.success() {
            break;
        }
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("s3://corpus/") && !stderr.contains("panicked"), "{stderr}");
        failures.push(stderr);
        assert!(failures.len() < RUNS, "none of {RUNS} runs succeeded, the last failed with {:?}", failures.last());
    }
    let (calls, faults) = proxy.counts();
    assert!(faults > 0, "{calls} calls met no fault");
    assert_eq!(
        bucket.contents(),
        bucket.expected,
        "{faults} of {calls} calls failed, and runs failed with {failures:?}"
    );
}

#[test]
fn table_is_complete_when_1_percent_of_calls_fail() {
    assert_runs_complete_the_table(10);
}

#[test]
fn table_is_complete_when_5_percent_of_calls_fail() {
    assert_runs_complete_the_table(50);
}

#[test]
fn table_is_complete_when_20_percent_of_calls_fail() {
    assert_runs_complete_the_table(200);
}
