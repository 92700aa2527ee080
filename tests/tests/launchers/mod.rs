//! The files of `deploy/` that launchers read: their commands run here, and make the table of one run.

mod cluster;
mod kubernetes;
mod ray;
#[cfg(feature = "soak")]
mod real;
mod slurm;

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use polylance_tests::{
    Outcome, Row, TinyModel, binary_path, polylance, polylance_command, read_contents_of, repository, write_parquet,
};

const FILES: usize = 6;
const ROWS: usize = 20;
const SHARDS: usize = 3;

/// A folder with `docs.toml`, a pipeline from six files to `docs.lance`. A row of one file has no text, so the shard with
/// this file ends with exit code 3, and so does a run over all.
struct Launch {
    folder: tempfile::TempDir,
}

impl Launch {
    fn new() -> Self {
        let launch = Self { folder: tempfile::tempdir().unwrap() };
        TinyModel::Whole.write(&launch.path("model"));
        fs::create_dir(launch.path("docs")).unwrap();
        for file in 0..FILES {
            let text = |row| ((file, row) != (4, 7)).then(|| format!("cat {file} dot {row}"));
            let rows: Vec<Row> = (0..ROWS).map(|row| Row { id: format!("d{file}-{row}"), text: text(row) }).collect();
            write_parquet(&launch.path(&format!("docs/{file}.parquet")), &rows);
        }
        let toml = format!(
            "version = 1\n[source]\nuri = {:?}\n[model]\nid = {:?}\ndtype = \"f32\"\n[table]\nuri = {:?}\n",
            launch.text("docs"),
            launch.text("model"),
            launch.text("docs.lance")
        );
        fs::write(launch.path("docs.toml"), toml).unwrap();
        fs::create_dir(launch.path("bin")).unwrap();
        symlink(binary_path("polylance"), launch.path("bin/polylance")).unwrap();
        launch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A command in the folder that finds `polylance`.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, value) in polylance_command().get_envs() {
            command.env(name, value.unwrap());
        }
        command.env("PATH", format!("{}:{}", self.text("bin"), env::var("PATH").unwrap()));
        command.current_dir(self.folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Fails the test unless the table is that of one run, as a set.
    fn assert_table_is_that_of_one_run(&self) {
        let one = self.text("one.lance");
        let uri = format!("table.uri={one}");
        drop(polylance(&["run", &self.text("docs.toml"), "--progress", "none", "--set", &uri]).exits_with(3));
        let contents =
            |table: &str| read_contents_of(table, &["char_start", "char_end", "n_tokens", "embedding", "content_hash"]);
        let expected = contents(&one);
        assert_eq!((expected.rows.len(), expected.refused.len()), (FILES * ROWS - 1, 1));
        assert_eq!(contents(&self.text("docs.lance")), expected);
    }
}

fn start(mut command: Command) -> Child {
    command.spawn().unwrap()
}

fn outcome(command: Command) -> Outcome {
    Outcome::of(start(command))
}

/// Starts the commands of all shards before it waits for them.
fn outcomes_of_shards(command: impl Fn(usize) -> Command) -> Vec<Outcome> {
    let shards: Vec<Child> = (0..SHARDS).map(|index| start(command(index))).collect();
    shards.into_iter().map(Outcome::of).collect()
}

/// A file of `deploy/`.
fn deployed(path: &str) -> PathBuf {
    repository().join("deploy").join(path)
}
