//! Runs, and what happens to them when a process ends.

use std::{array, fs};

use polylance_tests::{Process, S3Server, free_port, polylance_with, read_table};
use serde_json::Value;

use crate::{COLUMNS, Cluster, summary};

#[test]
fn two_executors_make_the_table_of_a_local_run() {
    let cluster = Cluster::start();
    let local = cluster.local("local.lance").json();
    let _executors = [cluster.executor(), cluster.executor()];
    cluster.wait_for_executors(2);
    let found = summary(cluster.run_into("cluster.lance").ended());
    for counted in ["rows_read", "rows_written", "chunks_written", "rows_quarantined", "tokens"] {
        assert_eq!(found[counted], local[counted], "{counted}");
    }
    cluster.expect_local("cluster.lance");
    let status = cluster.status();
    assert_eq!((status["executors"].as_array().unwrap().len(), &status["slots"]), (2, &4.into()));
    let shown = polylance_with(&["cluster", &cluster.url], &[], b"").exits_with(0);
    assert!(shown.stdout.contains("2 executors") && shown.stdout.contains("127.0.0.1:"), "{}", shown.stdout);
}

#[test]
fn source_and_table_in_a_bucket_need_no_shared_files() {
    let server = S3Server::start("corpus");
    let cluster = Cluster::start();
    for file in [0, 1, 2, 999] {
        let name = format!("{file:03}.jsonl");
        server.upload(&cluster.folder.path().join("docs").join(&name), &format!("docs/{name}"));
    }
    let pipeline = |table: &str| {
        let model = cluster.path("tiny");
        let pipeline = format!(
            "version = 1\nsource.uri = \"s3://corpus/docs/\"\nmodel.id = {model:?}\nmodel.dtype = \"f32\"\n\
             table.uri = \"s3://corpus/{table}\"\nindex.kind = \"none\"\n"
        );
        let path = cluster.path(&format!("{table}.toml"));
        fs::write(&path, pipeline).unwrap();
        path
    };
    let variables = server.variables();
    let _ = polylance_with(&["run", &pipeline("local.lance")], &variables, b"").exits_with(3);
    let mut executor = cluster.executor_command(cluster.folder.path(), free_port());
    executor.envs(variables);
    let _executor = Process::start(executor);
    let run = ["run", &pipeline("cluster.lance"), "--cluster", &cluster.url, "--set", "cluster.split=1 KiB"];
    let run = polylance_with(&run, &variables, b"").exits_with(3);
    assert!(!run.stderr.contains(variables[4].1), "a secret reached the log");
    assert!(!server.has("cluster.outbox/"), "results are left");
    let folder = tempfile::tempdir().unwrap();
    let tables = ["local.lance", "cluster.lance"].map(|table| {
        server.download(table, folder.path());
        read_table(&folder.path().join(table).display().to_string(), &COLUMNS).columns().to_vec()
    });
    assert_eq!(tables[1], tables[0]);
}

#[test]
fn a_run_without_changes_needs_no_cluster() {
    let cluster = Cluster::start();
    // Without the rows that are refused, nothing is left to read.
    fs::remove_file(cluster.folder.path().join("docs/999.jsonl")).unwrap();
    let executor = cluster.executor();
    let first = cluster.run_into("cluster.lance").ended();
    assert_eq!(first.0, Some(0), "{}", first.2);
    drop(executor);
    cluster.scheduler.signal("-KILL");
    let again = cluster.run_into("cluster.lance").ended();
    assert_eq!(again.0, Some(0), "{}", again.2);
    let again: Value = serde_json::from_str(&again.1).unwrap();
    assert_eq!((&again["source_unchanged"], &again["rows_written"]), (&true.into(), &0.into()));
}

/// A cluster with executors, and a run on it that has written some of its rows.
fn in_work<const EXECUTORS: usize>() -> (Cluster, [Process; EXECUTORS], Process) {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    let executors = array::from_fn(|_| cluster.executor());
    cluster.wait_for_executors(EXECUTORS);
    let run = cluster.run_into("cluster.lance");
    cluster.wait_for_rows("cluster.lance");
    (cluster, executors, run)
}

#[test]
fn splits_of_a_killed_executor_are_embedded_by_the_other() {
    let (cluster, [killed, _other], run) = in_work();
    killed.signal("-KILL");
    let _ = summary(run.ended());
    cluster.expect_local("cluster.lance");
}

#[test]
fn a_run_after_a_killed_one_embeds_the_rest() {
    let (cluster, [_executor], run) = in_work();
    run.signal("-KILL");
    drop(run);
    let _ = summary(cluster.run_into("cluster.lance").ended());
    cluster.expect_local("cluster.lance");
}

#[test]
fn an_executor_finishes_its_splits_on_sigterm() {
    let (cluster, [stopped, _other], run) = in_work();
    stopped.signal("-TERM");
    let (code, _, stderr) = stopped.ended();
    assert_eq!(code, Some(0), "{stderr}");
    let _ = summary(run.ended());
    cluster.expect_local("cluster.lance");
}

#[test]
fn a_stopped_run_commits_what_is_in_order_and_the_next_one_continues() {
    let (cluster, [_executor], run) = in_work();
    run.signal("-TERM");
    let (code, stdout, stderr) = run.ended();
    // The run may have ended before the signal arrived.
    assert!(code == Some(130) || code == Some(3), "{code:?}\n{stdout}\n{stderr}");
    let _ = summary(cluster.run_into("cluster.lance").ended());
    cluster.expect_local("cluster.lance");
}
