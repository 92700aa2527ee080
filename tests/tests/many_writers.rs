//! Many concurrent runs on one table: each finishes, and no row is written twice.

use std::{
    env,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use polylance_tests::{
    S3Server, build_disturb_library, draw, fake_job, polylance_command, python, read_contents, repository,
    write_fake_corpus,
};

const WRITERS: usize = 10;

/// Waits for all writers and returns the number of rows that each wrote.
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
fn ten_concurrent_runs_write_no_row_twice_on_local_disk() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, one, table) = (at("docs.jsonl"), at("one.lance"), at("many.lance"));
    write_fake_corpus(source.as_ref(), 1_000);
    wait(vec![fake_job(&source, &one, 200).spawn().unwrap()]);
    // No table exists when they start.
    let writers = (0..WRITERS).map(|_| fake_job(&source, &table, 200).spawn().unwrap()).collect();
    let written = wait(writers);
    assert_eq!(written.len(), WRITERS);
    assert_eq!(read_contents(&table), read_contents(&one));
}

#[test]
fn ten_concurrent_runs_write_no_row_twice_in_a_bucket() {
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
    // Copy the tables from the bucket.
    for name in ["many.lance", "many.quarantine.lance"] {
        server.download(name, folder.path());
    }
    assert_eq!(read_contents(&at("many.lance")), read_contents(&one));
}

/// Rounds of competing processes, unless `POLYLANCE_ROUNDS` sets another number.
const ROUNDS: u64 = 3;

fn signal(process: &Child, signal: &str) {
    // The process may have ended already.
    let sent = Command::new("kill").args([signal, &process.id().to_string()]).stderr(Stdio::null()).status();
    assert!(sent.is_ok(), "{sent:?}");
}

#[test]
fn paused_killed_and_clock_shifted_writers_leave_a_valid_table() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, one, table) = (at("docs.jsonl"), at("one.lance"), at("many.lance"));
    write_fake_corpus(source.as_ref(), 600);
    wait(vec![fake_job(&source, &one, 200).spawn().unwrap()]);
    let expected = read_contents(&one);
    let clock = build_disturb_library(folder.path());

    let upkeep = |arguments: &[&str]| {
        let mut command = polylance_command();
        command.args(arguments).args(["--table", &table]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let rounds = env::var("POLYLANCE_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for seed in 0..rounds {
        let mut state = seed;
        // In every other round the table has rows already.
        if seed % 2 == 1 {
            let mut first = fake_job(&source, &table, 100).spawn().unwrap();
            thread::sleep(Duration::from_millis(300));
            first.kill().unwrap();
            first.wait().unwrap();
        }
        let mut commands = vec![
            fake_job(&source, &table, 50),
            fake_job(&source, &table, 80),
            upkeep(&["compact"]),
            upkeep(&["map"]),
            upkeep(&["index", "words"]),
        ];
        for command in &mut commands {
            let offset = draw(&mut state, 7200) as i64 - 3600;
            command.env("LD_PRELOAD", &clock).env("CLOCK_OFFSET", offset.to_string());
        }
        let processes: Vec<Child> = commands.iter_mut().map(|command| command.spawn().unwrap()).collect();
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(draw(&mut state, 60)));
            let chosen = draw(&mut state, processes.len() as u64) as usize;
            let what = ["-STOP", "-CONT", "-CONT", "-KILL"][draw(&mut state, 4) as usize];
            signal(&processes[chosen], what);
        }
        for process in &processes {
            signal(process, "-CONT");
        }
        for process in processes {
            let output = process.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!stderr.contains("panicked"), "seed {seed}: {stderr}");
        }
        wait(vec![fake_job(&source, &table, 100).spawn().unwrap()]);
        assert_eq!(read_contents(&table), expected, "seed {seed}");
        let check = repository().join("tests/python/check_versions.py");
        let checked = Command::new(python()).arg(check).arg(&table).output().unwrap();
        assert!(checked.status.success(), "seed {seed}: {}", String::from_utf8_lossy(&checked.stderr));
        for name in ["many.lance", "many.quarantine.lance"] {
            std::fs::remove_dir_all(at(name)).unwrap();
        }
    }
}
