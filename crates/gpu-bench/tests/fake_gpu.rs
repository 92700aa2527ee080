//! The steps of the binary on the fake driver, which runs the kernels on the CPU: what they print and append is whole.

#![cfg(target_os = "linux")]

use std::{
    error::Error,
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Runs a step and returns its line of JSON.
fn run(environment: &[(&str, &str)], arguments: &[&str]) -> Result<(Output, Value)> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("results.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_polylance-gpu-bench"))
        .env("LD_LIBRARY_PATH", polylance_fake_cuda::folder())
        .envs(environment.iter().copied())
        .args(arguments)
        .args(["--patience", "120", "--json"])
        .arg(&json)
        .output()?;
    let line = fs::read_to_string(&json).unwrap_or_default();
    let value = serde_json::from_str(&line).map_err(|error| format!("{error}: {line:?}, {output:?}"))?;
    Ok((output, value))
}

/// Runs a step that must pass, and returns its facts.
fn facts(environment: &[(&str, &str)], arguments: &[&str]) -> Result<serde_json::Map<String, Value>> {
    let (output, line) = run(environment, arguments)?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && line["passed"] == true, "{arguments:?}: {text}");
    assert_eq!(line["step"], arguments[0]);
    let facts = line["facts"].as_object().ok_or("no facts")?.clone();
    for name in facts.keys() {
        assert!(text.contains(name.as_str()), "{name} has no line in {text}");
    }
    Ok(facts)
}

#[test]
fn kernels_match_sums_in_f64() -> Result<()> {
    let facts = facts(&[], &["kernels", "--small", "--only", "fill", "--only", "rows"])?;
    for kernel in ["fill_bf16", "fill_f32", "pool", "gather_rows_f16", "gather_rows_out_f32"] {
        assert!(facts[kernel]["checks"].as_u64() > Some(0), "{kernel} in {facts:?}");
        assert_eq!(facts[kernel]["failures"], Value::Array(Vec::new()));
    }
    Ok(())
}

#[test]
fn both_gemm_families_are_checked_on_hopper() -> Result<()> {
    let facts = facts(&[("FAKE_CUDA_COMPUTE", "9.0")], &["kernels", "--small", "--only", "gemm"])?;
    for kernel in ["gemm_bf16", "gemm_sm90_bf16", "gemm_gelu_sm90_f16", "gemm_out_f32_f16", "gemm_f32", "linear_bf16"] {
        let error = facts[kernel]["error"].as_f64().ok_or(kernel)?;
        assert!(error > 0.0 && error < 4e-3, "{kernel}: {error}");
    }
    Ok(())
}

#[test]
fn tiny_model_of_each_kind_is_computed() -> Result<()> {
    let facts = facts(&[], &["tiny"])?;
    for head in [32, 64, 80, 96, 128] {
        assert!(facts.keys().any(|name| name.contains(&format!("heads of {head}, bf16"))), "{facts:?}");
    }
    Ok(())
}

#[test]
fn goldens_match_those_of_the_encoder() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../encoder/tests/goldens");
    let folder = folder.to_str().ok_or("not UTF-8")?;
    let facts =
        facts(&[], &["goldens", folder, "--only", "bert-small", "--only", "xlmr-causal-lm", "--only", "saved"])?;
    let expected = [
        "bert-small, f32",
        "bert-small, f16",
        "xlmr-causal-lm, generated",
        "xlmr-causal-lm-untied, bf16",
        "bert-sequence-classification-saved, f32",
    ];
    for name in expected {
        assert!(facts.contains_key(name), "{name} in {facts:?}");
    }
    Ok(())
}

#[test]
fn sequence_has_the_same_bits_in_every_batch() -> Result<()> {
    let small = ["--geometry", "tiny", "--sequences", "6", "--batches", "3", "--tokens", "256", "--longest", "66"];
    let facts = facts(&[], &[&["batchings"], &small[..]].concat())?;
    for round in ["round 1", "round 2"] {
        assert_eq!(facts[round]["differ"], 0);
        assert!(facts[round]["compared"].as_u64() >= Some(3) && facts[round]["largest"].as_u64() > Some(150));
    }
    Ok(())
}

#[test]
fn speed_reports_a_rate_and_the_share_of_each_kernel() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ceilings = folder.path().join("ceilings.jsonl");
    fs::write(&ceilings, r#"{"facts": {"square_burst_tflops": 2.0, "square_sustained_tflops": 1.0}}"#)?;
    let small = ["--geometry", "tiny", "--tokens", "128", "--lengths", "64,udhr", "--lanes", "1,2", "--batches", "3"];
    let more = ["--seconds", "0.2", "--profile", "--ceilings", ceilings.to_str().ok_or("not UTF-8")?];
    let facts = facts(&[], &[&["speed"], &small[..], &more[..]].concat())?;
    for case in ["64, 1 lanes", "64, 2 lanes", "udhr, 1 lanes", "udhr, 2 lanes"] {
        let value = &facts[&format!("tiny bf16 128 ids of {case}")];
        let number = |key: &str| value[key].as_f64().ok_or_else(|| format!("{key} of {value}"));
        assert!(number("tokens_per_second")? > 0.0 && number("batches")? >= 1.0);
        assert!((number("share_of_sustained")? / number("share_of_burst")? - 2.0).abs() < 1e-9);
    }
    let share = |label: &str| facts[&format!("tiny bf16 128 ids of 64: {label}")]["share"].as_f64().unwrap_or(f64::NAN);
    let labels = ["embeddings", "query, key, value", "attention", "attention output", "norm", "up", "down", "pooling"];
    let total: f64 = labels.into_iter().map(share).sum();
    assert!((total - 1.0).abs() < 1e-6, "the shares of all kernels are {total}");
    Ok(())
}

#[test]
fn layers_are_written_for_torch() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().to_str().ok_or("not UTF-8")?;
    facts(&[], &["layers", path, "--geometry", "tiny", "--layers", "1", "--tokens", "64", "--lengths", "30"])?;
    let about: Value = serde_json::from_slice(&fs::read(folder.path().join("about.json"))?)?;
    assert_eq!((&about["config"]["num_hidden_layers"], &about["dtype"]), (&1.into(), &"bf16".into()));
    let sizes = [("ids", 60 * 4), ("borders", 3 * 4), ("states", 60 * 64 * 4), ("means", 2 * 64 * 4)];
    for (name, bytes) in sizes {
        assert_eq!(fs::metadata(folder.path().join(name).with_extension("npy"))?.len(), 128 + bytes, "{name}");
    }
    Ok(())
}

#[test]
fn memory_and_input_limits_are_errors_that_name_the_cause() -> Result<()> {
    let memory = ("FAKE_CUDA_MEMORY", "900000000");
    let facts = facts(&[memory], &["memory", "--leave", "700", "--small", "tiny", "--large", "xl"])?;
    let text = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    assert!(
        text("a model that does not fit").contains("has 0.7 GiB free; the model takes 12.9 GiB in f32"),
        "{facts:?}"
    );
    assert!(text("an id outside of the vocabulary").contains("id 1000 is not below"), "{facts:?}");
    assert_eq!(facts["the device goes on"], true);
    Ok(())
}

#[test]
fn streamed_model_has_the_bits_of_the_one_on_the_device() -> Result<()> {
    let memory = ("FAKE_CUDA_MEMORY", "560000000");
    let small = ["streamed", "--geometry", "tiny", "--layers", "5", "--tokens", "256", "--lengths", "40"];
    let facts = facts(&[memory], &[&small[..], &["--batches", "3", "--seconds", "0.2"]].concat())?;
    assert_eq!(facts["same bits"], true);
    for placement in ["on the device", "streamed"] {
        let value = &facts[placement];
        assert!(value["tokens_per_second"].as_f64() > Some(0.0), "{value}");
        assert_eq!(value["about"]["placement"], placement);
    }
    assert!(facts["share of the rate on the device"]["gigabytes_per_second"].as_f64() > Some(0.0), "{facts:?}");
    Ok(())
}

#[test]
fn pool_gives_the_bits_of_the_bare_engine() -> Result<()> {
    let small = ["pool", "--geometry", "tiny", "--tokens", "512", "--lengths", "40", "--batches", "1"];
    let facts = facts(&[], &small)?;
    assert_eq!(facts["same bits"], true);
    let rate = &facts["tiny bf16 512 ids of 40, pool"];
    assert!(rate["share"].as_f64() > Some(0.0), "{rate}");
    Ok(())
}

#[test]
fn hanging_device_aborts_the_step_with_its_activity() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let json = folder.path().join("results.jsonl");
    let output = Command::new(env!("CARGO_BIN_EXE_polylance-gpu-bench"))
        .env("LD_LIBRARY_PATH", polylance_fake_cuda::folder())
        .env("FAKE_CUDA_FAIL", "cuEventSynchronize:3:-1")
        .args(["tiny", "--patience", "1", "--json"])
        .arg(&json)
        .output()?;
    assert_eq!(output.status.code(), None, "it was aborted: {output:?}");
    let line: Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    assert_eq!(line["passed"], false);
    let failure = line["failures"][0].as_str().unwrap_or_default();
    assert!(failure.starts_with("no progress for 1 s while computing bert in "), "{failure}");
    Ok(())
}

#[test]
fn failing_device_fails_the_step() -> Result<()> {
    let (output, line) = run(&[("FAKE_CUDA_FAIL", "cuLaunchKernel:5:700")], &["tiny"])?;
    assert_eq!((output.status.code(), &line["passed"]), (Some(1), &false.into()));
    assert!(line["failures"][0].as_str().unwrap_or_default().contains("is lost"), "{line}");
    Ok(())
}
