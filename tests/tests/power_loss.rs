//! Power loss before each file operation of a run: synced commits survive, and the next run completes the table.
#![cfg(target_os = "linux")]

use std::{
    collections::{HashMap, HashSet},
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use polylance_tests::{
    TableContents, build_disturb_library, fake_job, polylance_command, read_contents, write_fake_corpus,
};

const DOCUMENTS: usize = 120;
const ROWS_PER_COMMIT: u64 = 150;

/// Every `STEP`-th operation is tried, unless `POLYLANCE_POWER=all`.
const STEP: u64 = 4;

/// The losses of a disk when the power is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Bytes that were not synced. Names survive, as on file systems with a journal.
    Bytes,
    /// Also names that were not synced with their folder.
    BytesAndNames,
}

struct Disk {
    folder: tempfile::TempDir,
    library: PathBuf,
}

impl Disk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = build_disturb_library(folder.path());
        write_fake_corpus(&folder.path().join("docs.jsonl"), DOCUMENTS);
        Self { folder, library }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A new folder for a table.
    fn place(&self, name: &str) -> Place<'_> {
        let root = self.folder.path().join(name);
        fs::create_dir(&root).unwrap();
        Place { disk: self, root, log: self.folder.path().join(format!("{name}.log")) }
    }
}

struct Place<'a> {
    disk: &'a Disk,
    root: PathBuf,
    log: PathBuf,
}

impl Place<'_> {
    fn table(&self) -> String {
        self.root.join("docs.lance").display().to_string()
    }

    fn job(&self) -> Command {
        fake_job(&self.disk.path("docs.jsonl"), &self.table(), ROWS_PER_COMMIT)
    }

    /// A run whose operation `at` fails with `error`, or with a power loss if that is `None`.
    fn disturbed(&self, at: u64, error: Option<i32>) -> Output {
        let mut job = self.job();
        job.env("LD_PRELOAD", &self.disk.library).env("POWER_ROOT", &self.root).env("POWER_LOG", &self.log);
        job.env("POWER_AT", at.to_string());
        if let Some(error) = error {
            job.env("POWER_ERROR", error.to_string());
        }
        job.output().unwrap()
    }

    fn log(&self) -> Vec<Vec<String>> {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }

    /// Discards everything that was not synced.
    fn discard_unsynced(&self, lost: Lost) {
        let (mut bytes, mut names) = (HashMap::new(), HashSet::new());
        for line in self.log() {
            match &line.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["bytes", inode, size] => drop(bytes.insert(inode.parse().unwrap(), size.parse().unwrap())),
                ["name", path] => drop(names.insert(PathBuf::from(path))),
                _ => {}
            }
        }
        discard_unsynced_below(&self.root, lost, &bytes, &names);
    }

    /// Runs until a run succeeds. A damaged newest manifest is first set aside with `--repair`, as its error suggests.
    fn run_to_completion(&self, what: &str) {
        let mut output = self.job().output().unwrap();
        for table in ["docs.lance", "docs.quarantine.lance"] {
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() || !stderr.contains(table) {
                continue;
            }
            assert!(stderr.contains(".manifest") && !stderr.contains("panicked"), "{what}: {stderr}");
            let table = self.root.join(table);
            let mut repair = polylance_command();
            let repaired = repair.args(["compact", "--repair", "--table"]).arg(table).output().unwrap();
            assert!(repaired.status.success(), "{what}: {}", String::from_utf8_lossy(&repaired.stderr));
            output = self.job().output().unwrap();
        }
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn discard_unsynced_below(folder: &Path, lost: Lost, bytes: &HashMap<u64, u64>, names: &HashSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let gone = lost == Lost::BytesAndNames && !names.contains(&path);
        match (metadata.is_dir(), gone) {
            (true, true) => fs::remove_dir_all(&path).unwrap(),
            (true, false) => discard_unsynced_below(&path, lost, bytes, names),
            (false, true) => fs::remove_file(&path).unwrap(),
            (false, false) => {
                let synced = bytes.get(&metadata.ino()).copied().unwrap_or_default();
                let file = fs::File::options().write(true).open(&path).unwrap();
                file.set_len(synced.min(metadata.len())).unwrap();
            }
        }
    }
}

/// The table of an undisturbed run and the number of its operations.
fn undisturbed_run(disk: &Disk) -> (TableContents, u64) {
    let place = disk.place("whole");
    let output = place.disturbed(0, None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let operations = place.log().iter().filter(|line| line[0] == "operation").count() as u64;
    let expected = read_contents(&place.table());
    assert!(operations > 30 && expected.rows.len() > DOCUMENTS && !expected.refused.is_empty(), "{operations}");
    (expected, operations)
}

fn step() -> u64 {
    if env::var("POLYLANCE_POWER").is_ok_and(|power| power == "all") { 1 } else { STEP }
}

#[test]
fn power_loss_after_a_successful_run_loses_nothing() {
    let disk = Disk::new();
    let (expected, _) = undisturbed_run(&disk);
    for lost in [Lost::Bytes, Lost::BytesAndNames] {
        let place = disk.place(&format!("{lost:?}"));
        assert!(place.disturbed(0, None).status.success());
        place.discard_unsynced(lost);
        assert_eq!(read_contents(&place.table()), expected, "{lost:?}");
    }
}

#[test]
fn next_run_completes_the_table_after_power_loss_at_any_operation() {
    let disk = Disk::new();
    let (expected, operations) = undisturbed_run(&disk);
    for (lost, first) in [(Lost::Bytes, 1), (Lost::BytesAndNames, 3)] {
        for at in (first..=operations).step_by(step() as usize) {
            let what = format!("{lost:?} at operation {at}");
            let place = disk.place(&what);
            // The order of operations of several threads differs from run to run: this run may end before `at`.
            let ended = place.disturbed(at, None).status.success();
            place.discard_unsynced(lost);
            if ended {
                assert_eq!(read_contents(&place.table()), expected, "{what}");
            }
            place.run_to_completion(&what);
            assert_eq!(read_contents(&place.table()), expected, "{what}");
            fs::remove_dir_all(&place.root).unwrap();
        }
    }
}

#[test]
fn next_run_completes_the_table_after_a_disk_error_at_any_operation() {
    const EIO: i32 = 5;
    const ENOSPC: i32 = 28;
    let disk = Disk::new();
    let (expected, operations) = undisturbed_run(&disk);
    for (error, first) in [(EIO, 2), (ENOSPC, 4)] {
        for at in (first..=operations).step_by(step() as usize) {
            let what = format!("error {error} at operation {at}");
            let place = disk.place(&what);
            let output = place.disturbed(at, Some(error));
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!stderr.contains("panicked"), "{what}: {stderr}");
            if output.status.success() {
                assert_eq!(read_contents(&place.table()), expected, "{what}");
            }
            place.run_to_completion(&what);
            assert_eq!(read_contents(&place.table()), expected, "{what}");
            fs::remove_dir_all(&place.root).unwrap();
        }
    }
}
