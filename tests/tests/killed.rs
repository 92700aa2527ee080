//! Runs that are killed again and again end with the table of an undisturbed run.

use std::{
    env, fs,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use polylance_tests::{draw, fake_job, read_contents, write_fake_corpus};

const DOCUMENTS: usize = 1_500;
const ROWS_PER_COMMIT: u64 = 400;

/// Kills, unless `POLYLANCE_KILLS` sets another number.
const KILLS: usize = 100;

fn succeeded(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn killed_runs_resume_to_the_table_of_an_undisturbed_run() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, whole, table) = (at("docs.jsonl"), at("whole.lance"), at("killed.lance"));
    write_fake_corpus(source.as_ref(), DOCUMENTS);
    let started = Instant::now();
    succeeded(fake_job(&source, &whole, ROWS_PER_COMMIT));
    // Kills are spread over the duration of a whole run. They hit different operations on different machines.
    let time = u64::try_from(started.elapsed().as_micros()).unwrap();
    let expected = read_contents(&whole);
    assert!(expected.rows.len() > DOCUMENTS && expected.refused.len() > 50, "{}", expected.rows.len());

    let kills = env::var("POLYLANCE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let (mut killed, mut ended, mut state) = (0, 0, 7);
    while killed < kills {
        let mut run = fake_job(&source, &table, ROWS_PER_COMMIT).spawn().unwrap();
        thread::sleep(Duration::from_micros(draw(&mut state, time)));
        if run.try_wait().unwrap().is_none() {
            run.kill().unwrap();
            run.wait().unwrap();
            killed += 1;
            continue;
        }
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success(), "after {killed} kills: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(read_contents(&table), expected, "after {killed} kills");
        ended += 1;
        // Start a new table, so that kills hit the beginning and the end of a run too.
        for name in ["killed.lance", "killed.quarantine.lance"] {
            fs::remove_dir_all(folder.path().join(name)).unwrap();
        }
    }
    succeeded(fake_job(&source, &table, ROWS_PER_COMMIT));
    assert_eq!(read_contents(&table), expected, "after {killed} kills and {ended} finished runs");
    let again: serde_json::Value =
        serde_json::from_slice(&succeeded(fake_job(&source, &table, ROWS_PER_COMMIT)).stdout).unwrap();
    let documents = expected.rows.keys().filter(|(_, chunk)| *chunk == 0).count();
    assert_eq!((&again["rows_written"], &again["rows_skipped"]), (&0.into(), &documents.into()));
}
