//! Commands on a machine with GPUs (a fake driver), and their tables on a machine without.

#![cfg(target_os = "linux")]

use std::{
    path::Path,
    process::{Command, Output},
};

use polylance_encoder::{ModelConfig, synthetic::Checkpoint};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a source and a small model.
struct TestFolder {
    folder: TempDir,
}

/// The driver that a process finds.
#[derive(Debug, Clone, Copy)]
enum Driver {
    None,
    /// This many GPUs of compute capability 8.0.
    Gpus(u32),
    /// This many of them with this many bytes each.
    SmallGpus(u32, u64),
    /// GPUs whose compute capability is too low for the kernels.
    OldGpus,
    /// A driver that is too old.
    TooOld,
}

impl TestFolder {
    fn new() -> Self {
        Self::with(ModelConfig::tiny())
    }

    fn with(config: ModelConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelConfig { vocab_size: 250_002, ..config };
        Checkpoint::new(config).write(&folder.path().join("model")).unwrap();
        std::fs::write(folder.path().join("model/tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
        let docs = "{\"id\":\"a\",\"text\":\"green tea\"}\n{\"id\":\"b\",\"text\":\"black coffee\"}\n";
        std::fs::write(folder.path().join("docs.jsonl"), docs).unwrap();
        let job = "version = 1\nsource.uri = \"docs.jsonl\"\nmodel.id = \"./model\"\ntable.uri = \"docs.lance\"\n";
        std::fs::write(folder.path().join("job.toml"), job).unwrap();
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, driver: Driver, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_polylance"));
        command
            .args(args)
            .current_dir(self.path())
            .env_remove("RUST_LOG")
            .env("POLYLANCE_LOG", "warn,lance=error,polylance=info");
        command.env("NO_COLOR", "1").env("CUDA_VISIBLE_DEVICES", "");
        let fake: &[(&str, String)] = match driver {
            Driver::None => &[],
            Driver::Gpus(count) => &[("FAKE_CUDA_DEVICES", count.to_string())],
            Driver::SmallGpus(count, bytes) => {
                &[("FAKE_CUDA_DEVICES", count.to_string()), ("FAKE_CUDA_MEMORY", bytes.to_string())]
            }
            Driver::OldGpus => &[("FAKE_CUDA_COMPUTE", "7.5".to_owned())],
            Driver::TooOld => &[("FAKE_CUDA_VERSION", "12040".to_owned())],
        };
        if !matches!(driver, Driver::None) {
            command.env("LD_LIBRARY_PATH", polylance_fake_cuda::folder());
        }
        command.envs(fake.iter().map(|(key, value)| (key, value))).output().unwrap()
    }

    /// The output of a command that succeeds.
    fn succeeds(&self, driver: Driver, args: &[&str]) -> (Value, String) {
        let output = self.run(driver, args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{driver:?} {args:?}: {stderr}");
        (serde_json::from_slice(&output.stdout).unwrap(), stderr)
    }

    /// The messages of a command that is refused.
    fn refused(&self, driver: Driver, args: &[&str]) -> String {
        let output = self.run(driver, args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{driver:?} {args:?}: {stderr}");
        stderr
    }

    fn dtype_of(&self, table: &str) -> Value {
        self.succeeds(Driver::None, &["show", table, "--json"]).0["contract"]["dtype"].clone()
    }
}

const SEARCH: [&str; 6] = ["search", "--table", "docs.lance", "--json", "-k", "1"];

#[test]
fn table_made_on_gpus_stays_bf16_without_them() {
    let folder = TestFolder::new();
    let (_, stderr) = folder.succeeds(Driver::Gpus(2), &["run", "job.toml", "--json"]);
    assert!(stderr.contains("cuda:0 (") && stderr.contains("cuda:1 (") && stderr.contains("bf16"), "{stderr}");
    assert_eq!(folder.dtype_of("docs.lance"), "bf16");
    // The table decides the dtype of runs and queries on every machine.
    let (summary, stderr) = folder.succeeds(Driver::None, &["run", "job.toml", "--json", "--reread"]);
    assert_eq!((&summary["rows_written"], stderr.contains("all cores")), (&json!(0), true), "{stderr}");
    for driver in [Driver::None, Driver::Gpus(1)] {
        let (hits, stderr) = folder.succeeds(driver, &[&SEARCH[..], &["green tea"]].concat());
        assert_eq!(hits[0]["doc_id"], "a", "{driver:?}: {stderr}");
        assert!(stderr.contains("bf16") && !stderr.contains("WARN"), "{driver:?}: {stderr}");
    }
}

#[test]
fn f16_table_is_searched_on_gpus_and_with_a_warning_on_cpus() {
    let folder = TestFolder::new();
    let run = ["run", "job.toml", "--json", "--set", "model.dtype=f16"];
    assert!(folder.refused(Driver::None, &run).contains("dtype f16 needs a CUDA device"));
    folder.succeeds(Driver::Gpus(1), &run);
    assert_eq!(folder.dtype_of("docs.lance"), "f16");
    let query = [&SEARCH[..], &["green tea"]].concat();
    let on_cpu = [&query[..], &["--devices", "cpu"]].concat();
    for (driver, args, warnings) in
        [(Driver::Gpus(1), &query, 0), (Driver::None, &query, 1), (Driver::Gpus(1), &on_cpu, 1)]
    {
        let (hits, stderr) = folder.succeeds(driver, args);
        assert_eq!(hits[0]["doc_id"], "a", "{driver:?}: {stderr}");
        assert_eq!(stderr.matches("its queries are computed in f32").count(), warnings, "{driver:?}: {stderr}");
    }
    let sql = ["sql", "--table", "docs.lance", "--json", "SELECT doc_id FROM vector_search('docs', 'green tea', 1)"];
    let (row, stderr) = folder.succeeds(Driver::None, &[&sql[..], &["--devices", "cpu"]].concat());
    assert_eq!((&row["doc_id"], stderr.matches("computed in f32").count()), (&json!("a"), 1), "{stderr}");
}

#[test]
fn int8_stays_on_the_cpu_despite_gpus() {
    let folder = TestFolder::new();
    let run = ["run", "job.toml", "--json", "--set", "model.dtype=int8"];
    let (_, stderr) = folder.succeeds(Driver::Gpus(1), &run);
    assert!(stderr.contains("int8 is computed on the CPU alone: cuda:0 not used"), "{stderr}");
    let (hits, _) = folder.succeeds(Driver::Gpus(1), &[&SEARCH[..], &["green tea"]].concat());
    assert_eq!(hits[0]["doc_id"], "a");
    let named = folder.refused(Driver::Gpus(1), &[&SEARCH[..], &["green tea", "--devices", "cuda:0"]].concat());
    assert!(named.contains("error: dtype int8 is computed on the CPU alone; a GPU has bf16"), "{named}");
}

#[test]
fn layers_are_streamed_to_a_gpu_that_does_not_hold_them() {
    // The layers take 11 MB, everything outside of them 8 MB, the smallest batch 5 MB, and 512 MiB stay free.
    let folder =
        TestFolder::with(ModelConfig { num_hidden_layers: 40, intermediate_size: 4096, ..ModelConfig::tiny() });
    let (large, small) = (Driver::Gpus(1), Driver::SmallGpus(1, (512 << 20) + 18_000_000));
    let check = ["model", "check", "./model", "--json"];
    let [(resident, silent), (streamed, warned)] = [large, small].map(|driver| folder.succeeds(driver, &check));
    assert!(resident["weights"]["streaming"].is_null() && !silent.contains("WARN"), "{resident} {silent}");
    assert!(streamed["weights"]["streaming"]["layer_bytes"].as_u64() > Some(200_000), "{streamed}");
    assert!(warned.contains("its layers are copied there again for every batch"), "{warned}");
    assert_eq!(streamed["test_norm"], resident["test_norm"]);
    let limited = folder.refused(small, &[&check[..], &["--model-memory", "1MiB"]].concat());
    assert!(limited.contains("cuda:0 (") && limited.contains("may take 1 MiB"), "{limited}");

    let hits = [(large, "large.lance"), (small, "small.lance")].map(|(driver, table)| {
        folder.succeeds(driver, &["run", "job.toml", "--json", "--set", &format!("table.uri=\"{table}\"")]);
        let hits = folder.succeeds(large, &["search", "--table", table, "--json", "-k", "2", "green tea"]).0;
        [0, 1].map(|at| (hits[at]["doc_id"].clone(), hits[at]["score"].clone()))
    });
    assert_eq!(hits[0], hits[1]);
}

#[test]
fn two_gpus_that_do_not_hold_a_model_alone_are_one_device() {
    // The layers take 12 MB, everything outside of them 8 MB, a batch of 4,096 tokens 38 MB, and 512 MiB stay free.
    let folder =
        TestFolder::with(ModelConfig { num_hidden_layers: 40, intermediate_size: 4096, ..ModelConfig::tiny() });
    let (large, small) = (Driver::Gpus(1), Driver::SmallGpus(2, (512 << 20) + 54_000_000));
    let check = ["model", "check", "./model", "--json"];
    let [(alone, _), (together, log)] = [large, small].map(|driver| folder.succeeds(driver, &check));
    assert_eq!(together["devices"], json!(["cuda:0+cuda:1"]), "{log}");
    assert!(together["weights"]["streaming"].is_null() && !log.contains("WARN"), "{together} {log}");
    assert_eq!(together["test_norm"], alone["test_norm"]);

    let hits = [(large, "large.lance"), (small, "small.lance")].map(|(driver, table)| {
        folder.succeeds(driver, &["run", "job.toml", "--json", "--set", &format!("table.uri=\"{table}\"")]);
        let hits = folder.succeeds(large, &["search", "--table", table, "--json", "-k", "2", "green tea"]).0;
        [0, 1].map(|at| (hits[at]["doc_id"].clone(), hits[at]["score"].clone()))
    });
    assert_eq!(hits[0], hits[1]);
}

#[test]
fn unusable_gpus_are_skipped_by_auto_and_refused_by_name() {
    let folder = TestFolder::new();
    let check = ["model", "check", "./model", "--json"];
    let named = ["model", "check", "./model", "--devices", "cuda:0"];
    for (driver, why, warned) in [
        (Driver::None, "device `cuda:0`: ", false),
        (Driver::OldGpus, "compute capability 7.5", false),
        (Driver::TooOld, "the NVIDIA driver is too old", true),
    ] {
        let (checked, stderr) = folder.succeeds(driver, &check);
        let devices = checked["devices"].as_array().unwrap();
        assert!(devices.iter().all(|name| name.as_str().unwrap().starts_with("cpu")), "{devices:?}");
        assert_eq!(stderr.contains("no GPU is used: "), warned, "{driver:?}: {stderr}");
        let refused = folder.refused(driver, &named);
        assert!(refused.contains("error: device `cuda:0`: ") && refused.contains(why), "{driver:?}: {refused}");
    }
    let (checked, _) = folder.succeeds(Driver::Gpus(2), &check);
    assert_eq!(checked["devices"], json!(["cuda:0", "cuda:1"]));
    assert!(folder.refused(Driver::Gpus(2), &["encode", "--devices", "cuda:2"]).contains("there is no GPU 2"));
}

#[test]
fn bench_names_the_gpu_and_reports_no_peak() {
    let folder = TestFolder::new();
    std::fs::write(folder.path().join("ids.jsonl"), "{\"input_ids\":[0,5,6,7,2]}\n{\"input_ids\":[0,2000,2]}\n")
        .unwrap();
    let bench = ["bench", "--model", "./model", "--ids", "ids.jsonl", "--rounds", "1"];
    let (report, _) = folder.succeeds(Driver::Gpus(1), &[&bench[..], &["--against", "int8", "--json"]].concat());
    assert_eq!((&report["dtype"], &report["instructions"]), (&json!("bf16"), &json!("sm_80")));
    assert_eq!((&report["devices"], report["gpus"].as_array().map(Vec::len)), (&json!(["cuda:0"]), Some(1)));
    assert_eq!((&report["peak_gflops"], &report["share_of_peak"]), (&Value::Null, &Value::Null));
    // int8 was computed on the CPU.
    assert!(report["against"]["cosine"].as_f64().unwrap() > 0.9, "{report}");
    let shown = folder.run(Driver::Gpus(1), &bench);
    let shown = String::from_utf8(shown.stdout).unwrap();
    let name = report["gpus"][0].as_str().unwrap();
    assert!(shown.contains(&format!("bf16 with sm_80 on cuda:0 ({name})")), "{shown}");
}
