//! Documents that are hard for a cluster: equal ids in different splits, and refused texts that fill no message.

use std::process::Command;

use arrow::array::AsArray;
use polylance_sink::quarantine_uri;
use polylance_testkit::FakeBackend;
use polylance_tests::{
    Process, Row, binary_path, draw, free_port, read_table, start_scheduler, wait_for_executors, write_parquet,
};
use serde_json::Value;

use crate::{COLUMNS, Cluster, QUARANTINE_COLUMNS, ROWS_PER_FILE, summary};

/// Refused texts, and bytes of each: the quarantine keeps 64 KiB.
const REFUSED: usize = 680;
const TEXT_BYTES: usize = 60_000;

#[test]
fn the_first_of_equal_ids_in_different_splits_stays() {
    let cluster = Cluster::start();
    // Ids of one, two and many splits before, of one after, and one that is refused itself.
    for (file, ids) in [(5, [0, 210, 1999]), (6, [0, 251, 260]), (20, [1500, 1, 2]), (38, [3, 1890, 4])] {
        let own = |at: usize| format!("{{\"id\":\"e{file}-{at}\",\"text\":\"a test is done\"}}");
        let repeated = |id: usize| format!("{{\"id\":\"d{id}\",\"text\":\"cat and dot\"}}");
        let mut lines: Vec<String> = (0..ROWS_PER_FILE).map(own).collect();
        lines.extend(ids.map(repeated));
        lines.push("{\"id\":\"d5\",\"text\":null}".to_owned());
        cluster.write(&format!("{file:03}-b.jsonl"), &lines.join("\n"));
    }
    let local = cluster.local("local.lance").json();
    let _executors = [cluster.executor(), cluster.executor()];
    cluster.wait_for_executors(2);
    let found = summary(cluster.run_into("cluster.lance").ended());
    assert!(local["rows_quarantined"].as_u64() > Some(12), "{local}");
    assert_eq!(found["rows_quarantined"], local["rows_quarantined"]);
    cluster.expect_local("cluster.lance");
}

#[test]
fn a_quarantine_that_is_larger_than_any_message_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut state = 1;
    // Letters at random, which do not become much smaller when they are compressed.
    let mut text = || (0..TEXT_BYTES).map(|_| char::from(b'a' + draw(&mut state, 26) as u8)).collect::<String>();
    let mut rows: Vec<Row> =
        (0..REFUSED).map(|at| Row::new(format!("r{at}"), format!("{} {}", text(), FakeBackend::REFUSED))).collect();
    rows.push(Row::new("good", "a text"));
    write_parquet(&folder.path().join("docs.parquet"), &rows);
    let driver = |table: &str| {
        let mut driver = Command::new(binary_path("fake-driver"));
        driver.args([path("docs.parquet"), path(table)]);
        driver
    };
    let ended = |driver: Command| -> Value {
        let (code, stdout, stderr) = Process::start(driver).ended();
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let local = ended(driver("local.lance"));
    assert_eq!((&local["rows_quarantined"], &local["rows_written"]), (&REFUSED.into(), &1.into()));
    let (_scheduler, url) = start_scheduler("127.0.0.1:0");
    let mut executor = Command::new(binary_path("fake-executor"));
    executor.args([&url, "--port", &free_port().to_string()]);
    let _executor = Process::start(executor);
    wait_for_executors(&url, 1);
    let mut on_cluster = driver("cluster.lance");
    on_cluster.args(["--cluster", &url]);
    let found = ended(on_cluster);
    assert_eq!((&found["rows_quarantined"], &found["rows_written"]), (&REFUSED.into(), &1.into()));
    let contents = |table: &str| {
        let columns = [&QUARANTINE_COLUMNS[..], &["text"]].concat();
        let refused = read_table(&quarantine_uri(&path(table)), &columns);
        (read_table(&path(table), &COLUMNS).columns().to_vec(), refused)
    };
    let (expected, found) = (contents("local.lance"), contents("cluster.lance"));
    assert_eq!(found.0, expected.0);
    assert!(found.1.columns() == expected.1.columns(), "the rows of the quarantines differ");
    assert!(found.1["text"].as_string::<i32>().value_data().len() > 40_000_000);
}
