//! The sources of the kernels: their tests in C++, and the committed binary that was compiled from them.

#![cfg(target_os = "linux")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

/// Finds what would be an error on a GPU: accesses outside of a buffer, misaligned addresses, unwritten memory.
const SANITIZERS: [&str; 3] = [
    "-fsanitize=address,undefined",
    // AddressSanitizer finds these too; without them the compiler is much faster.
    "-fno-sanitize=null,object-size,vptr",
    "-fno-sanitize-recover=all",
];

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

/// A folder in the build directory for the files of a test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    folder
}

/// Both streams, if the command fails.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(output);
    }
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
    Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
}

/// Compiles one file of tests and runs it.
fn run_tests_in(source: &Path, program: &Path) -> Result<String, String> {
    let compiler = env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut compile = Command::new(compiler);
    compile.args(["-std=c++17", "-Og", "-g1", "-pthread", "-w"]).args(SANITIZERS);
    run(compile.arg(source).arg("-o").arg(program))?;
    // The leak checker does not see the stacks of a kernel's threads, and does not work under a tracer.
    let output = run(Command::new(program).env("ASAN_OPTIONS", "detect_leaks=0"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn kernels_pass_their_tests_on_the_host() {
    let folder = folder("kernels-on-the-host");
    let mut sources = Vec::new();
    for entry in fs::read_dir(kernels().join("host")).expect("the folder of the host's files") {
        let path = entry.expect("an entry of it").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("test_") && name.ends_with(".cpp") {
            sources.push(path);
        }
    }
    sources.sort();
    assert!(!sources.is_empty(), "there are no tests");
    let run_one = |source: &PathBuf| {
        let program = folder.join(source.file_stem().unwrap_or_default());
        run_tests_in(source, &program)
    };
    let results: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = sources.iter().map(|source| scope.spawn(move || run_one(source))).collect();
        running.into_iter().map(|thread| thread.join().expect("the thread of a test program")).collect()
    });
    for (source, result) in sources.iter().zip(results) {
        let output = result.unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        let summary = output.lines().last().unwrap_or_default();
        assert!(summary.ends_with(" passed, 0 failed"), "{}: {output}", source.display());
    }
}

#[test]
fn committed_binary_matches_the_sources() {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/setup");
    let output = run(Command::new(setup).arg("nvcc-path")).unwrap_or_else(|error| panic!("{error}"));
    let compilers = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let compiled = folder("kernels-on-the-device").join("polylance.fatbin");
    let build = run(Command::new(kernels().join("build.sh")).arg(compilers).arg(&compiled));
    build.unwrap_or_else(|error| panic!("{error}"));
    let compiled = fs::read(compiled).expect("the binary that was compiled");
    let committed = kernels().join("../assets/polylance.fatbin");
    let committed = fs::read(committed).expect("the binary that is committed");
    assert!(
        compiled == committed,
        "the sources of the kernels have changed: run `make cuda-kernels` and commit the binary"
    );
}
