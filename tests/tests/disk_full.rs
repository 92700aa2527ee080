//! A full disk causes a clear error and leaves a valid table; the next run continues when there is room.
#![cfg(target_os = "linux")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polylance_tests::{binary_path, fake_job, read_contents, write_fake_corpus};

/// Runs a script in which `$SMALL` is a disk of the given size: a tmpfs that only this script sees.
fn run_on_small_disk(folder: &Path, size: &str, script: &str) -> Output {
    let small = folder.join("small");
    fs::create_dir_all(&small).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-euc"]);
    command.arg(format!("mount -t tmpfs -o size={size} tmpfs \"$SMALL\"\n{script}"));
    command.current_dir(folder).env("SMALL", small).output().unwrap()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn full_disk_leaves_a_valid_table_that_the_next_run_completes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let (source, whole) = (at("docs.jsonl"), at("whole.lance").display().to_string());
    write_fake_corpus(&source, 6000);
    assert!(fake_job(source.to_str().unwrap(), &whole, 200).output().unwrap().status.success());
    let expected = read_contents(&whole);

    let job = binary_path("fake-job").display().to_string();
    let script = format!(
        "{job} docs.jsonl \"$SMALL/docs.lance\" 200 > first.out 2> first.err && exit 9\n\
         cp -r \"$SMALL\" first\n\
         mount -o remount,size=1g \"$SMALL\"\n\
         {job} docs.jsonl \"$SMALL/docs.lance\" 200 > second.out\n\
         cp -r \"$SMALL\" second"
    );
    let output = run_on_small_disk(folder.path(), "1m", &script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stderr = text(&at("first.err"));
    assert!(stderr.contains("No space left on device") && stderr.contains("/small/docs."), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");

    let first = read_contents(at("first/docs.lance").to_str().unwrap());
    assert!(!first.rows.is_empty() && first.rows.len() < expected.rows.len(), "{} rows", first.rows.len());
    assert!(first.rows.iter().all(|(key, row)| expected.rows.get(key) == Some(row)));
    assert_eq!(read_contents(at("second/docs.lance").to_str().unwrap()), expected);
    let second: serde_json::Value = serde_json::from_str(&text(&at("second.out"))).unwrap();
    let documents = first.rows.keys().filter(|(_, chunk)| *chunk == 0).count() as u64;
    assert_eq!(second["rows_skipped"].as_u64(), Some(documents));
}

#[test]
fn full_temporary_folder_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("job")).unwrap();
    let job = binary_path("fake-run").display().to_string();
    let script = format!(
        "TMPDIR=\"$SMALL\" {job} job 100000 > first.out 2> first.err && exit 9\n\
         mount -o remount,size=1g \"$SMALL\"\n\
         TMPDIR=\"$SMALL\" {job} job 100000 > second.out"
    );
    let output = run_on_small_disk(folder.path(), "600k", &script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stderr = text(&folder.path().join("first.err"));
    assert!(
        stderr.contains("Temporary { folder") && stderr.contains("/small") && !stderr.contains("panicked"),
        "{stderr}"
    );
    let second: serde_json::Value = serde_json::from_str(&text(&folder.path().join("second.out"))).unwrap();
    assert_eq!(second["rows_skipped"].as_u64().unwrap() + second["rows_written"].as_u64().unwrap(), 100_000);
    assert!(second["rows_skipped"].as_u64().unwrap() > 0);
}
