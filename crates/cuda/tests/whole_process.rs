//! A process that finds the fake driver through its library path, configured by its environment.

#![cfg(target_os = "linux")]

use std::{
    env,
    process::{Command, Output},
};

use polylance_cuda::gpus_or_why;
use polylance_fake_cuda::folder;

/// Set in the process under test.
const EXPECTED: &str = "POLYLANCE_TEST_EXPECTED";

/// The devices, or why there are none.
fn found() -> String {
    match gpus_or_why() {
        Ok(gpus) => format!("{:?}", gpus.iter().map(|gpu| (&gpu.name, gpu.compute)).collect::<Vec<_>>()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn driver_is_found_and_configured_by_the_environment() {
    if let Ok(expected) = env::var(EXPECTED) {
        assert_eq!(found(), expected);
        return;
    }
    let cases: [(&[(&str, &str)], &str); 5] = [
        (&[], r#"[("Fake GPU", (8, 0))]"#),
        (
            &[("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_COMPUTE", "9.0")],
            r#"[("Fake GPU", (9, 0)), ("Fake GPU", (9, 0))]"#,
        ),
        (
            &[("FAKE_CUDA_DEVICES", "0")],
            "there is no GPU 0: the driver finds none (CUDA_VISIBLE_DEVICES hides those that it does not name)",
        ),
        (
            &[("FAKE_CUDA_FAIL", "cuInit:1:999")],
            "no NVIDIA driver: cuInit returned 999 (CUDA_ERROR_UNKNOWN); install driver 580 or newer to use a GPU",
        ),
        (
            &[("FAKE_CUDA_VERSION", "12080")],
            "the NVIDIA driver is too old: it runs CUDA 12.8, this program needs CUDA 13.0; install driver 580 or newer",
        ),
    ];
    for (settings, expected) in cases {
        let Output { status, stdout, .. } = Command::new(env::current_exe().unwrap())
            .args(["--exact", "the_driver_is_found_and_configured_by_the_environment"])
            .env("LD_LIBRARY_PATH", folder())
            .env(EXPECTED, expected)
            .envs(settings.iter().copied())
            .output()
            .unwrap();
        assert!(status.success(), "{settings:?}: {}", String::from_utf8_lossy(&stdout));
    }
}
