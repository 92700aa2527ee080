//! A cluster of processes on loopback: scheduler, executors and runs. Whatever is killed, the table is that of a local
//! run, row for row and in its order.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    iter,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use arrow::array::ArrayRef;
use ballista_core::serde::protobuf::{
    ExecuteQueryParams, execute_query_params::Query, scheduler_grpc_client::SchedulerGrpcClient,
};
use datafusion::{arrow::datatypes::Schema, physical_plan::empty::EmptyExec};
use datafusion_proto::{
    physical_plan::{AsExecutionPlan, DefaultPhysicalExtensionCodec},
    protobuf::PhysicalPlanNode,
};
use polylance_tests::{Outcome, S3Server, TinyModel, polylance_command, polylance_with, read_table};
use serde_json::Value;

/// How long a process may take to reach a state on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(3);
const FILES: usize = 40;
const ROWS_PER_FILE: usize = 50;
const COLUMNS: [&str; 7] = ["doc_id", "chunk", "char_start", "char_end", "text", "n_tokens", "embedding"];

/// A process that ends with its test.
struct Process {
    child: Child,
    stderr: mpsc::Receiver<String>,
}

impl Process {
    fn start(mut command: Command) -> Self {
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, stderr) = mpsc::channel();
        let pipe = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, stderr }
    }

    /// Waits for a line of stderr with this text, and returns the line.
    fn line(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.stderr.recv_timeout(TIMEOUT) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{text:?} is missing in {seen:?}: {error}"),
            }
        }
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for the end; returns the exit code, stdout and the rest of stderr.
    fn ended(mut self) -> (Option<i32>, String, String) {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let code = self.child.wait().unwrap().code();
        let stderr = self.stderr.iter().collect::<Vec<_>>().join("\n");
        (code, stdout, stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A corpus of many files, a model, and the processes of a cluster.
struct Cluster {
    folder: tempfile::TempDir,
    url: String,
    scheduler: Process,
}

impl Cluster {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::Whole.write(&folder.path().join("tiny"));
        let docs = folder.path().join("docs");
        fs::create_dir(&docs).unwrap();
        for file in 0..FILES {
            let row = |at: usize| {
                let id = file * ROWS_PER_FILE + at;
                let text = ["cat and dot", "a test is done", "see it on tin"][id % 3].repeat(1 + id % 5);
                format!("{{\"id\":\"d{id}\",\"text\":\"{text}\"}}")
            };
            let lines: Vec<String> = (0..ROWS_PER_FILE).map(row).collect();
            let path = docs.join(format!("{file:03}.jsonl"));
            fs::write(&path, lines.join("\n")).unwrap();
            // A change of a file that was written just now may not show.
            let file = File::options().append(true).open(path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
        }
        // Its first file has an id of the file before it.
        fs::write(docs.join("999.jsonl"), "{\"id\":\"d7\",\"text\":\"again\"}\n{\"id\":\"z\",\"text\":\"the end\"}\n")
            .unwrap();
        let mut command = polylance_command();
        command.args(["scheduler", "--listen", "127.0.0.1:0"]);
        let scheduler = Process::start(command);
        let line = scheduler.line("listening on ");
        let url = line.rsplit(' ').next().unwrap().to_owned();
        Self { folder, url, scheduler }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Writes a pipeline into a table with this model, and returns its path.
    fn pipeline(&self, table: &str, model: &str) -> String {
        let pipeline = format!(
            "version = 1\n[source]\nuri = {:?}\n[model]\nid = {model:?}\ndtype = \"f32\"\ndevices = [\"cpu:0\"]\n\
             [table]\nuri = {:?}\n[table.commit]\nrows = 200\n[index]\nkind = \"none\"\n\
             [cluster]\nsplit = \"2 KiB\"\nshared_files = true\n",
            self.path("docs"),
            self.path(table),
        );
        let path = self.path(&format!("{table}.toml"));
        fs::write(&path, pipeline).unwrap();
        path
    }

    fn executor(&self) -> Process {
        self.executor_in(self.folder.path())
    }

    fn executor_in(&self, folder: &Path) -> Process {
        Process::start(self.executor_command(folder))
    }

    fn executor_command(&self, folder: &Path) -> Command {
        let port = free_port().to_string();
        let mut command = polylance_command();
        command.args(["executor", "--scheduler", &self.url, "--bind", "127.0.0.1", "--port", &port]);
        command.args(["--advertise", "127.0.0.1", "--devices", "cpu:0"]).current_dir(folder);
        command
    }

    fn local(&self, table: &str) -> Outcome {
        let pipeline = self.pipeline(table, &self.path("tiny"));
        polylance_with(&["run", &pipeline, "--json"], &[], b"").exits_with(3)
    }

    fn run_command(&self, pipeline: &str) -> Command {
        let mut command = polylance_command();
        command.args(["run", pipeline, "--cluster", &self.url, "--json"]).current_dir(self.folder.path());
        command
    }

    /// Waits until this many executors are registered.
    fn wait_for_executors(&self, count: usize) {
        wait_until("registered executors", || {
            let status = polylance_with(&["cluster", &self.url, "--json"], &[], b"").exits_with(0).json();
            status["executors"].as_array().is_some_and(|executors| executors.len() == count)
        });
    }

    /// Waits until a table has data files: splits are in work, and some are done.
    fn wait_for_rows(&self, table: &str) {
        let table = self.folder.path().join(table);
        wait_until("data files", || has_file(&table));
    }
}

/// A port that no other process uses, below those that the system gives to connections, so that it stays free. Tests
/// in other processes begin elsewhere.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 500 * 10) as u16;
    iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap()
}

fn wait_until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_reached() {
        assert!(started.elapsed() < TIMEOUT, "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn has_file(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.map_while(Result::ok).any(|entry| if entry.path().is_dir() { has_file(&entry.path()) } else { true })
}

fn summary((code, stdout, stderr): (Option<i32>, String, String)) -> Value {
    assert_eq!(code, Some(3), "{stdout}\n{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// The rows of a table in their order. The metadata of two tables differ.
fn rows(cluster: &Cluster, table: &str) -> Vec<ArrayRef> {
    read_table(&cluster.path(table), &COLUMNS).columns().to_vec()
}

#[test]
fn two_executors_make_the_table_of_a_local_run() {
    let cluster = Cluster::start();
    let local = cluster.local("local.lance").json();
    let _executors = [cluster.executor(), cluster.executor()];
    cluster.wait_for_executors(2);
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let found = summary(Process::start(cluster.run_command(&pipeline)).ended());
    for counted in ["rows_read", "rows_written", "chunks_written", "rows_quarantined", "tokens"] {
        assert_eq!(found[counted], local[counted], "{counted}");
    }
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
    let status = polylance_with(&["cluster", &cluster.url, "--json"], &[], b"").exits_with(0).json();
    assert_eq!((status["executors"].as_array().unwrap().len(), &status["slots"]), (2, &4.into()));
    let shown = polylance_with(&["cluster", &cluster.url], &[], b"").exits_with(0);
    assert!(shown.stdout.contains("2 executors") && shown.stdout.contains("127.0.0.1:"), "{}", shown.stdout);
}

#[test]
fn source_and_table_in_a_bucket_need_no_shared_files() {
    let server = S3Server::start("corpus");
    let cluster = Cluster::start();
    for file in [0, 1, 2, 999] {
        let name = format!("{file:03}.jsonl");
        server.upload(&cluster.folder.path().join("docs").join(&name), &format!("docs/{name}"));
    }
    let pipeline = |table: &str| {
        let model = cluster.path("tiny");
        let pipeline = format!(
            "version = 1\nsource.uri = \"s3://corpus/docs/\"\nmodel.id = {model:?}\nmodel.dtype = \"f32\"\n\
             table.uri = \"s3://corpus/{table}\"\nindex.kind = \"none\"\n"
        );
        let path = cluster.path(&format!("{table}.toml"));
        fs::write(&path, pipeline).unwrap();
        path
    };
    let variables = server.variables();
    let _ = polylance_with(&["run", &pipeline("local.lance")], &variables, b"").exits_with(3);
    let mut executor = cluster.executor_command(cluster.folder.path());
    executor.envs(variables);
    let _executor = Process::start(executor);
    let run = ["run", &pipeline("cluster.lance"), "--cluster", &cluster.url, "--set", "cluster.split=1 KiB"];
    let run = polylance_with(&run, &variables, b"").exits_with(3);
    assert!(!run.stderr.contains(variables[4].1), "a secret reached the log");
    assert!(!server.has("cluster.outbox/"), "results are left");
    let folder = tempfile::tempdir().unwrap();
    let tables = ["local.lance", "cluster.lance"].map(|table| {
        server.download(table, folder.path());
        read_table(&folder.path().join(table).display().to_string(), &COLUMNS).columns().to_vec()
    });
    assert_eq!(tables[1], tables[0]);
}

#[test]
fn a_run_without_changes_needs_no_cluster() {
    let cluster = Cluster::start();
    // Without the rows that are refused, nothing is left to read.
    fs::remove_file(cluster.folder.path().join("docs/999.jsonl")).unwrap();
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let executor = cluster.executor();
    let first = Process::start(cluster.run_command(&pipeline)).ended();
    assert_eq!(first.0, Some(0), "{}", first.2);
    drop(executor);
    cluster.scheduler.signal("-KILL");
    let again = Process::start(cluster.run_command(&pipeline)).ended();
    assert_eq!(again.0, Some(0), "{}", again.2);
    let again: Value = serde_json::from_str(&again.1).unwrap();
    assert_eq!((&again["source_unchanged"], &again["rows_written"]), (&true.into(), &0.into()));
}

#[test]
fn splits_of_a_killed_executor_are_embedded_by_the_other() {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    let (killed, _other) = (cluster.executor(), cluster.executor());
    cluster.wait_for_executors(2);
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let run = Process::start(cluster.run_command(&pipeline));
    cluster.wait_for_rows("cluster.lance");
    killed.signal("-KILL");
    let _ = summary(run.ended());
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
}

#[test]
fn a_run_after_a_killed_one_embeds_the_rest() {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    let _executor = cluster.executor();
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let run = Process::start(cluster.run_command(&pipeline));
    cluster.wait_for_rows("cluster.lance");
    run.signal("-KILL");
    drop(run);
    let _ = summary(Process::start(cluster.run_command(&pipeline)).ended());
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
}

#[test]
fn an_executor_finishes_its_splits_on_sigterm() {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    let (stopped, _other) = (cluster.executor(), cluster.executor());
    cluster.wait_for_executors(2);
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let run = Process::start(cluster.run_command(&pipeline));
    cluster.wait_for_rows("cluster.lance");
    stopped.signal("-TERM");
    let (code, _, stderr) = stopped.ended();
    assert_eq!(code, Some(0), "{stderr}");
    let _ = summary(run.ended());
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
}

#[test]
fn a_stopped_run_commits_what_is_in_order_and_the_next_one_continues() {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    let _executor = cluster.executor();
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let run = Process::start(cluster.run_command(&pipeline));
    cluster.wait_for_rows("cluster.lance");
    run.signal("-TERM");
    let (code, stdout, stderr) = run.ended();
    // The run may have ended before the signal arrived.
    assert!(code == Some(130) || code == Some(3), "{code:?}\n{stdout}\n{stderr}");
    let _ = summary(Process::start(cluster.run_command(&pipeline)).ended());
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
}

#[test]
fn an_executor_with_other_weights_ends_itself_and_the_run_goes_on() {
    let cluster = Cluster::start();
    let _ = cluster.local("local.lance");
    // The same name, and other bytes.
    let other = tempfile::tempdir().unwrap();
    TinyModel::Whole.write(&other.path().join("tiny"));
    let weights = other.path().join("tiny/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let (_good, bad) = (cluster.executor(), cluster.executor_in(other.path()));
    cluster.wait_for_executors(2);
    let pipeline = cluster.pipeline("cluster.lance", "./tiny");
    let run = Process::start(cluster.run_command(&pipeline));
    let (code, _, stderr) = bad.ended();
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("weights_hash is"), "{stderr}");
    let _ = summary(run.ended());
    assert_eq!(rows(&cluster, "cluster.lance"), rows(&cluster, "local.lance"));
}

#[test]
fn an_executor_without_a_scheduler_ends_on_sigterm_and_a_taken_port_is_named() {
    let cluster = Cluster::start();
    cluster.scheduler.signal("-KILL");
    let waiting = cluster.executor();
    let _ = waiting.line("executor with 2 slots");
    waiting.signal("-TERM");
    let (code, _, stderr) = waiting.ended();
    assert_eq!(code, Some(0), "{stderr}");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let arguments = ["executor", "--scheduler", &cluster.url, "--bind", "127.0.0.1", "--port", &port];
    let _ = polylance_with(&arguments, &[], b"").exits_with(1).stderr_contains(&["cannot listen on", &port, "--port"]);
}

#[test]
fn a_plan_of_another_program_is_refused() {
    let cluster = Cluster::start();
    let plan = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
    let node = PhysicalPlanNode::try_from_physical_plan(plan, &DefaultPhysicalExtensionCodec {}).unwrap();
    let mut bytes = Vec::new();
    node.try_encode(&mut bytes).unwrap();
    let url = cluster.url.clone();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let refused = runtime.block_on(async {
        let mut client = SchedulerGrpcClient::connect(url).await.unwrap();
        let query = Some(Query::PhysicalPlan(bytes));
        client.execute_query(ExecuteQueryParams { query, ..ExecuteQueryParams::default() }).await.unwrap_err()
    });
    assert!(refused.message().contains("and no other plans"), "{refused}");
}

#[test]
fn a_run_without_a_scheduler_or_executors_names_what_is_missing() {
    let cluster = Cluster::start();
    let pipeline = cluster.pipeline("cluster.lance", &cluster.path("tiny"));
    let run = |url: &str| {
        let arguments = ["run", &pipeline, "--cluster", url, "--set", "cluster.patience=1"];
        polylance_with(&arguments, &[], b"").exits_with(1)
    };
    let _ = run(&cluster.url).stderr_contains(&["no executor for ", "polylance executor --scheduler"]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _ = run(&format!("http://{closed}")).stderr_contains(&["cannot be reached", "polylance scheduler"]);
    let wrong = ["run", &pipeline, "--cluster", "https://scheduler"];
    let _ = polylance_with(&wrong, &[], b"").exits_with(2).stderr_contains(&["http://HOST:PORT"]);
    let both = ["run", &pipeline, "--cluster", &cluster.url, "--shard", "0/2"];
    let _ = polylance_with(&both, &[], b"").exits_with(2).stderr_contains(&["--cluster and --shard"]);
    // The address of the environment is for runs over the whole source.
    let explained = |arguments: &[&str]| {
        let arguments = [&["run", pipeline.as_str(), "--explain"], arguments].concat();
        polylance_with(&arguments, &[("POLYLANCE_CLUSTER", cluster.url.as_str())], b"").exits_with(0).stdout
    };
    assert!(explained(&[]).contains("ClusterExec"));
    assert!(!explained(&["--shard", "0/2"]).contains("ClusterExec"));
    assert!(!explained(&["--cluster", "none"]).contains("ClusterExec"));
}
