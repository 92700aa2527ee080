//! Runs the `polylance` binary that was built together with these tests.

use std::{
    env,
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// The exit code and the output of a command.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Messages and progress.
    pub stderr: String,
}

impl Outcome {
    /// Waits for a process whose outputs are piped.
    pub fn of(process: Child) -> Self {
        let output = process.wait_with_output().expect("the process ends");
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Fails the test unless the command ended with this exit code.
    #[must_use]
    pub fn exits_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }

    /// The JSON object on stdout.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}\n{}", self.stdout, self.stderr))
    }

    /// Fails the test unless stderr contains each of `parts`.
    #[must_use]
    pub fn stderr_contains(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is missing in:\n{}", self.stderr);
        }
        self
    }
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a folder of the repository").to_owned()
}

/// The folder that cargo built this program into: `target/<profile>`.
fn profile() -> PathBuf {
    let program = env::current_exe().expect("a running program has an executable");
    // Tests are in a folder of it.
    let folder = program.ancestors().find(|folder| folder.ends_with("deps")).unwrap_or(&program);
    folder.parent().expect("an executable is in a folder").to_owned()
}

/// Cargo's target folder.
pub(crate) fn target() -> PathBuf {
    profile().parent().expect("a profile is a folder of the target folder").to_owned()
}

/// The path of a binary that was built with this test: `polylance`, or one of this package.
pub fn binary_path(name: &str) -> PathBuf {
    let binary = profile().join(name);
    assert!(binary.exists(), "{} is not built: run the tests with `--workspace`", binary.display());
    binary
}

/// A command that starts `polylance`, with its state about used models next to the build.
pub fn polylance_command() -> Command {
    let mut command = Command::new(binary_path("polylance"));
    command.env("XDG_STATE_HOME", target().join("tmp/state"));
    command
}

/// Runs the binary in the repository's root, without the user's environment for models and storage.
pub fn polylance<S: AsRef<OsStr>>(args: &[S]) -> Outcome {
    polylance_with(args, &[], b"")
}

/// [`polylance`] with environment variables and standard input.
pub fn polylance_with<S: AsRef<OsStr>>(args: &[S], variables: &[(&str, &str)], stdin: &[u8]) -> Outcome {
    let mut command = polylance_command();
    command.args(args).current_dir(repository()).env("NO_COLOR", "1").env("HF_HUB_OFFLINE", "1");
    command.env_remove("RUST_LOG").envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let mut input = child.stdin.take().expect("stdin is piped");
    let stdin = stdin.to_vec();
    // A command that does not read its input closes the pipe, which is no failure of the test.
    let writer = std::thread::spawn(move || drop(input.write_all(&stdin)));
    let outcome = Outcome::of(child);
    writer.join().expect("writing to a pipe does not panic");
    outcome
}
