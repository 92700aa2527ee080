//! User-visible output: help, results, and errors with their hints.
#![expect(clippy::format_push_string, reason = "snapshots are written rarely")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

#[path = "cli/generated.rs"]
mod generated;
#[path = "cli/init.rs"]
mod init;

use insta::assert_snapshot;
use serde_json::json;
use tempfile::TempDir;

/// Every command; the empty one is the program itself.
const COMMANDS: [&str; 32] = [
    "",
    "init",
    "run",
    "embed",
    "annotate",
    "encode",
    "fit",
    "predict",
    "search",
    "sql",
    "serve",
    "show",
    "index",
    "index vectors",
    "index words",
    "index tune",
    "map",
    "compact",
    "push",
    "quarantine",
    "quarantine list",
    "quarantine replay",
    "quarantine drop",
    "scheduler",
    "executor",
    "cluster",
    "model",
    "model check",
    "bench",
    "completions",
    "man",
    "schema",
];

/// A folder with a small source and a pipeline, in which `polylance` runs.
struct TestFolder {
    folder: TempDir,
}

/// The result of a command, with the folder's name replaced.
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl TestFolder {
    fn new() -> Self {
        let new = Self { folder: tempfile::tempdir().unwrap() };
        new.write(
            "docs.jsonl",
            "{\"id\":\"a\",\"text\":\"Everyone has the right to education.\",\"lang\":\"en\"}\n\
             {\"id\":\"b\",\"text\":\"Nadie será sometido a torturas.\",\"lang\":\"es\"}\n",
        );
        new.write("job.toml", "version = 1\n[source]\nuri = \"docs.jsonl\"\n[table]\nuri = \"docs.lance\"\n");
        new
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file with a modification time of an hour ago: the manifest of unchanged files leaves out recent files,
    /// and the test must not depend on what counts as recent.
    fn write(&self, name: &str, content: &str) {
        let mut file = fs::File::create(self.path().join(name)).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    }

    fn run(&self, args: &[&str]) -> Outcome {
        self.run_with(args, b"")
    }

    fn run_with(&self, args: &[&str], stdin: &[u8]) -> Outcome {
        let mut child = Command::new(env!("CARGO_BIN_EXE_polylance"))
            .args(args)
            .current_dir(self.path())
            .env_remove("RUST_LOG")
            .env_remove("POLYLANCE_LOG")
            .envs([("NO_COLOR", "1"), ("COLUMNS", "100"), ("HF_HUB_OFFLINE", "1")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut pipe, stdin) = (child.stdin.take().unwrap(), stdin.to_vec());
        // The write fails if the command does not read its input.
        let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap().replace(self.path().to_str().unwrap(), "[folder]");
        Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Outcome {
    fn shown(&self) -> String {
        let code = self.code.map_or_else(|| "killed".to_owned(), |code| code.to_string());
        format!("exit code {code}\n----- stdout\n{}----- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Filters for ids, hashes, times and rates, which differ from run to run.
fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "[run]");
    settings.add_filter(r#"("seconds"|"tokens_per_second"|"peak_memory"|"peak_queue"):[0-9.e-]+"#, "$1:[number]");
    settings.add_filter(r"(peak memory +)[0-9.]+ [KMG]iB", "$1[bytes]");
    settings.add_filter(r"in [0-9.]+ s \([0-9,]+ tok/s\)", "in [seconds]");
    settings.add_filter(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z", "[time]");
    settings.add_filter(r"polylance 0\.[0-9.]+", "polylance [version]");
    settings.add_filter(r"(weights|tokenizer)( +)[0-9a-f]{16}", "$1$2[hash]");
    settings.add_filter(r"window_tokens=[0-9]+", "window_tokens=[by cores]");
    settings.add_filter(r"@ [0-9a-f]{8}", "@ [hash]");
    // The default dtype is bf16 on CPUs that multiply it faster.
    settings.add_filter(r"(mean|mean pooling), (bf16|f32)", "$1, [dtype]");
    settings
}

#[test]
fn help_of_every_command() {
    let folder = TestFolder::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let outcome = folder.run(&args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{command}");
        let name = if command.is_empty() { "help".to_owned() } else { format!("help_{}", command.replace(' ', "_")) };
        assert_snapshot!(name, outcome.stdout);
    }
}

#[test]
fn wrong_usage_is_explained() {
    let folder = TestFolder::new();
    folder.write("misspelled.toml", "version = 1\n[source]\nuir = \"docs.jsonl\"\n[table]\nuri = \"docs.lance\"\n");
    folder.write("version.toml", "version = 2\n[sauce]\n");
    folder.write("type.toml", "version = 1\n[source]\nuri = 7\n[table]\nuri = \"docs.lance\"\n");
    let cases: [(&str, &[&str]); 16] = [
        ("unknown command", &["serach", "x"]),
        ("misspelled key", &["run", "misspelled.toml"]),
        ("another version", &["run", "version.toml"]),
        ("wrong type", &["run", "type.toml"]),
        ("wrong override", &["run", "job.toml", "--set", "table.commit.row=5"]),
        ("no pipeline file", &["run", "nightly.toml"]),
        ("no source", &["embed", "--source", "missing/*.parquet", "--table", "t.lance"]),
        ("missing column", &["embed", "--source", "docs.jsonl", "--table", "t.lance", "--text", "txt"]),
        ("reserved column", &["embed", "--source", "docs.jsonl", "--table", "t.lance", "--keep", "embedding"]),
        ("no model", &["embed", "--source", "docs.jsonl", "--table", "t.lance", "--model", "./missing"]),
        ("no such device", &["run", "job.toml", "--set", "model.devices=[\"gpu\"]"]),
        ("too many tokens", &["run", "job.toml", "--set", "model.max_tokens=513"]),
        (
            "dtype of another device",
            &["run", "job.toml", "--set", "model.dtype=f16", "--set", "model.devices=[\"cpu\"]"],
        ),
        ("two kinds of devices", &["encode", "--devices", "cpu,cuda:0"]),
        ("no table", &["search", "--table", "missing.lance", "x"]),
        ("a statement that writes", &["sql", "CREATE TABLE t (x INT)"]),
    ];
    let mut seen = String::new();
    for (name, args) in cases {
        let outcome = folder.run(args);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{name}: {}", outcome.shown());
        seen.push_str(&format!("# {name}\n$ polylance {}\n{}\n", args.join(" "), outcome.stderr));
    }
    assert!(!folder.path().join("t.lance").exists() && !folder.path().join("docs.lance").exists());
    settings().bind(|| assert_snapshot!(seen));
}

#[test]
fn missing_gpu_is_refused_with_reason_and_hint() {
    let folder = TestFolder::new();
    for command in [&["encode"][..], &["model", "check", "builtin:multilingual-e5-small"], &["bench"]] {
        let outcome = folder.run(&[command, &["--devices", "cuda:4000"]].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{command:?}: {}", outcome.shown());
        // The reason depends on the machine: no driver, or no such device.
        let expected =
            ["error: device `cuda:4000`: ", "hint: `auto` selects the GPUs that can be used, or else the cores"];
        assert!(expected.iter().all(|part| outcome.stderr.contains(part)), "{command:?}: {}", outcome.stderr);
    }
}

#[test]
fn run_search_sql_and_show() {
    let folder = TestFolder::new();
    let mut seen = String::new();
    let mut see = |args: &[&str]| {
        let outcome = folder.run(args);
        seen.push_str(&format!("$ polylance {}\n{}\n", args.join(" "), outcome.shown()));
    };
    see(&["run", "job.toml"]);
    see(&["run", "job.toml", "--json"]);
    see(&["run", "job.toml", "--explain"]);
    see(&["search", "--table", "docs.lance", "教育を受ける権利"]);
    see(&["search", "--table", "docs.lance", "tortura", "-k", "1", "--where", "doc_id <> 'b'"]);
    see(&["search", "--table", "docs.lance", "tortura", "--where", "doc_id = 'none'"]);
    see(&["search", "--table", "docs.lance", "tortura", "--where", "nothing = 1"]);
    see(&["sql", "--table", "docs.lance", "SELECT doc_id, n_tokens FROM docs ORDER BY doc_id"]);
    see(&["sql", "--table", "d=docs.lance", "SELECT doc_id, n_tokens FROM d ORDER BY doc_id", "--json"]);
    see(&["sql", "--table", "docs.lance", "SELECT missing FROM docs"]);
    see(&["show", "docs.lance"]);
    see(&["run", "job.toml", "--set", "model.normalize=false"]);
    see(&["run", "job.toml", "--set", "source.keep=[\"lang\"]"]);
    settings().bind(|| assert_snapshot!(seen));
}

#[test]
fn analyzed_run_shows_the_rows_work_and_waits_of_each_operator() {
    let folder = TestFolder::new();
    let outcome = folder.run(&["embed", "--source", "docs.jsonl", "--table", "docs.lance", "--analyze"]);
    assert_eq!(outcome.code, Some(0), "{}", outcome.shown());
    for (operator, wait) in [
        ("LanceCommitExec", Some("wait_store")),
        ("LanceWriteExec", Some("wait_store")),
        ("EncodeExec", Some("wait_device")),
        ("TokenizeExec", Some("wait_tokenizers")),
        ("DistinctIdExec", None),
        ("SourceScanExec", Some("wait_store")),
    ] {
        let line = outcome.stdout.lines().find(|line| line.trim_start().starts_with(operator)).unwrap_or_default();
        for metric in ["elapsed_compute"].into_iter().chain(wait) {
            assert!(line.contains(&format!("{metric}=")), "{operator}, {metric}: {}", outcome.stdout);
        }
    }
}

#[test]
fn bad_row_gives_exit_code_3() {
    let folder = TestFolder::new();
    folder.write(
        "docs.jsonl",
        "{\"id\":\"a\",\"text\":\"one\"}\n{\"id\":\"b\",\"text\":\"\"}\n{\"id\":\"a\",\"text\":\"two\"}\n",
    );
    let outcome = folder.run(&["run", "job.toml", "--json"]);
    assert_eq!(outcome.code, Some(3), "{}", outcome.shown());
    settings().bind(|| assert_snapshot!(outcome.shown()));
}

#[test]
fn encode_keeps_the_order_of_lines() {
    let folder = TestFolder::new();
    let outcome = folder.run_with(&["encode"], "one two\n\nça va\r\none two".as_bytes());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let lines: Vec<serde_json::Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens: Vec<_> = lines.iter().map(|line| line["n_tokens"].as_u64().unwrap()).collect();
    assert_eq!(tokens, [4, 2, 4, 4]);
    assert!(lines.iter().all(|line| line["truncated"] == false));
    let vectors: Vec<Vec<f64>> =
        lines.iter().map(|line| serde_json::from_value(line["embedding"].clone()).unwrap()).collect();
    assert!(vectors.iter().all(|vector| vector.len() == 384));
    let same = vectors[0].iter().zip(&vectors[3]).all(|(x, y)| (x - y).abs() < 2e-6);
    assert!(same && vectors[0] != vectors[2]);
}

#[test]
fn encode_refuses_a_line_that_is_not_utf8_after_encoding_those_before() {
    let folder = TestFolder::new();
    let outcome = folder.run_with(&["encode"], b"one\ntwo\ncaf\xe9\nfour\n");
    assert_eq!(outcome.code, Some(1));
    assert_eq!(outcome.stdout.lines().count(), 2);
    assert_snapshot!(outcome.stderr);
}

#[test]
fn closed_stdout_ends_the_command_quietly() {
    let folder = TestFolder::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_polylance"))
        .args(["run", "job.toml", "--explain"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[cfg(unix)]
#[test]
fn interrupted_command_ends_with_exit_code_130() {
    use std::io::{BufRead, BufReader};

    let mut child = Command::new(env!("CARGO_BIN_EXE_polylance"))
        .arg("encode")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // After its first result the command is running and waits for input.
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"one\n").unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("{\"n_tokens\":3,"), "{line}");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "interrupted\n");
}

#[test]
fn bench_reports_throughput_and_accuracy_cost() {
    let folder = TestFolder::new();
    folder.write("ids.jsonl", "{\"input_ids\":[0,5,6,7,2]}\n{\"input_ids\":[0,2000,2]}\n");
    let bench = ["bench", "--ids", "ids.jsonl", "--rounds", "2", "--dtype", "int8", "--against", "f32"];
    let shown = folder.run(&bench);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains("vectors          cosine to those of f32: mean 0.99"), "{}", shown.stdout);

    let measured = folder.run(&[&bench[..], &["--vectors", "vectors.f32", "--json"]].concat());
    let report: serde_json::Value = serde_json::from_str(&measured.stdout).unwrap();
    assert_eq!((&report["dtype"], &report["sequences"], &report["tokens"]), (&json!("int8"), &json!(2), &json!(8)));
    assert_eq!(report["rounds"].as_array().unwrap().len(), 2);
    assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0);
    let against = &report["against"];
    let [mean, least] = ["cosine", "least_cosine"].map(|field| against[field].as_f64().unwrap());
    assert_eq!(against["dtype"], "f32");
    assert!(0.98 < least && least <= mean && mean < 1.0, "rounding costs little accuracy: {least} {mean}");
    assert_eq!(fs::metadata(folder.path().join("vectors.f32")).unwrap().len(), 2 * 384 * 4);
}

#[test]
fn model_check_describes_a_model() {
    let folder = TestFolder::new();
    let outcome = folder.run(&["model", "check", "builtin:multilingual-e5-small", "--dtype", "f32"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    let without_devices: Vec<_> = outcome.stdout.lines().filter(|line| !line.starts_with("devices")).collect();
    assert_snapshot!(without_devices.join("\n"));
    let json = folder.run(&["model", "check", "builtin:multilingual-e5-small", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["dim"], &json["test_tokens"]), (&384.into(), &13.into()));
}
