//! Any bytes are read or refused: no panic, no abort, no memory out of proportion to the input.
//!
//! Each target reads its whole corpus and thousands of mutated copies, the same in every run, in a process of its own
//! with bounded memory. A fault that cannot be caught (an abort, a stack overflow, failed allocations) ends the process,
//! and the test failure names a file with the input that caused it.

use std::{
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Command,
};

use polylance_hostile::{Target, mutations};

/// Address space of the process: the reservations of candle, tokio and allocator arenas, and little for the input.
const MEMORY_KIB: u64 = 4 << 20;
/// Marks the process with bounded memory; the value is the file that keeps the current input.
const INPUT: &str = "POLYLANCE_HOSTILE_INPUT";

#[test]
fn hostile_pipeline_files_are_read_or_refused() {
    assert_contained(Target::Pipeline, 4000);
}

#[test]
fn hostile_csv_rows_are_read_or_refused() {
    assert_contained(Target::Csv, 3000);
}

#[test]
fn hostile_jsonl_rows_are_read_or_refused() {
    assert_contained(Target::Jsonl, 3000);
}

#[test]
fn hostile_config_json_files_are_read_or_refused() {
    assert_contained(Target::Config, 3000);
}

#[test]
fn hostile_safetensors_files_are_read_or_refused() {
    assert_contained(Target::Safetensors, 4000);
}

#[test]
fn hostile_gguf_files_are_read_or_refused() {
    assert_contained(Target::Gguf, 4000);
}

#[test]
fn hostile_pytorch_archives_and_pickles_are_read_or_refused() {
    assert_contained(Target::Pytorch, 4000);
}

#[test]
fn hostile_tokenizer_json_files_are_read_or_refused() {
    assert_contained(Target::Tokenizer, 2000);
}

fn assert_contained(target: Target, count: u64) {
    if let Some(input) = env::var_os(INPUT) {
        return read_all(target, count, Path::new(&input));
    }
    let input = env::temp_dir().join(format!("polylance-hostile-{}", target.name()));
    let test = std::thread::current().name().expect("a test's thread is named").to_owned();
    let script = format!("ulimit -v {MEMORY_KIB} && exec \"$0\" --exact \"$1\" --nocapture");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(env::current_exe().unwrap())
        .arg(&test)
        .env(INPUT, &input)
        // Each thread's arena reserves 64 MiB of address space.
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = stderr.lines().rev().take(30).collect();
    assert!(
        output.status.success(),
        "{} ended with {} on the input in {}:\n{}",
        target.name(),
        output.status,
        input.display(),
        last.into_iter().rev().collect::<Vec<_>>().join("\n")
    );
}

fn read_all(target: Target, count: u64, input: &Path) {
    let seeds = corpus(target);
    let accepted = seeds.iter().filter(|(path, bytes)| read(target, bytes, input, &path.display().to_string())).count();
    assert!(accepted > 0, "no file of the corpus is good");
    assert!(accepted < seeds.len(), "no file of the corpus is bad");
    let seeds: Vec<Vec<u8>> = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    for (number, bytes) in mutations(&seeds, count) {
        read(target, &bytes, input, &format!("mutation {number}"));
    }
    fs::remove_file(input).unwrap();
}

fn read(target: Target, bytes: &[u8], input: &Path, name: &str) -> bool {
    fs::write(input, bytes).unwrap();
    let accepted = catch_unwind(AssertUnwindSafe(|| target.run(bytes)));
    accepted.unwrap_or_else(|_| panic!("{name} of {} panicked", target.name()))
}

fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(target.corpus()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn corpus_files_are_small() {
    let bytes: usize = Target::ALL.into_iter().flat_map(corpus).map(|(_, bytes)| bytes.len()).sum();
    assert!(bytes < 200_000, "{bytes} bytes");
}
