//! Peak memory does not grow with the corpus.

use std::process::Command;

use polylance_tests::binary_path;

/// Peak resident memory in bytes of a process that runs a whole job on the fake device.
fn peak_memory(rows: u64) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let run = Command::new(binary_path("fake-run")).arg(folder.path()).arg(rows.to_string()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(report["rows_written"], rows);
    report["peak_memory"].as_u64().unwrap()
}

#[test]
fn peak_memory_does_not_grow_with_the_corpus() {
    let (small, large) = (peak_memory(100_000), peak_memory(1_000_000));
    let ratio = large as f64 / small as f64;
    assert!(ratio <= 1.10, "{small} bytes for 100,000 rows, {large} bytes for 1,000,000: {ratio:.3}");
}
