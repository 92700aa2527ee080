//! Many runs at once on one table: each ends, and no row is there twice.

use std::process::Child;

use polylance_tests::{S3Server, fake_job, read_fake_job, write_fake_corpus};

const WRITERS: usize = 10;

/// Waits for all, and returns what each wrote.
fn wait(writers: Vec<Child>) -> Vec<u64> {
    let ended = writers.into_iter().map(|writer| writer.wait_with_output().unwrap());
    let written = ended.map(|output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        summary["rows_written"].as_u64().unwrap()
    });
    written.collect()
}

#[test]
fn ten_runs_at_once_on_a_local_table_double_no_row() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, one, table) = (at("docs.jsonl"), at("one.lance"), at("many.lance"));
    write_fake_corpus(source.as_ref(), 1_000);
    wait(vec![fake_job(&source, &one, 200).spawn().unwrap()]);
    // None of them knows a table when it begins.
    let writers = (0..WRITERS).map(|_| fake_job(&source, &table, 200).spawn().unwrap()).collect();
    let written = wait(writers);
    assert_eq!(written.len(), WRITERS);
    assert_eq!(read_fake_job(&table), read_fake_job(&one));
}

#[test]
fn ten_runs_at_once_on_a_table_in_a_bucket_double_no_row() {
    let server = S3Server::start("corpus");
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, one) = (at("docs.jsonl"), at("one.lance"));
    write_fake_corpus(source.as_ref(), 400);
    wait(vec![fake_job(&source, &one, 200).spawn().unwrap()]);
    server.upload(source.as_ref(), "docs.jsonl");
    let (source, table) = ("s3://corpus/docs.jsonl", "s3://corpus/many.lance");
    let run = |_| fake_job(source, table, 200).envs(server.variables()).spawn().unwrap();
    wait((0..WRITERS).map(run).collect());
    // Everything of the run is in the bucket; what was read stays here.
    for name in ["many.lance", "many.quarantine.lance"] {
        server.download(name, folder.path());
    }
    assert_eq!(read_fake_job(&at("many.lance")), read_fake_job(&one));
}
