//! What a cluster refuses: executors with another model, version or disk, foreign plans, and settings that cannot be.

use std::{fs, net::TcpListener, process::Command, sync::Arc};

use ballista_core::{
    execution_plans::ShuffleWriterExec,
    serde::{
        BallistaPhysicalExtensionCodec,
        protobuf::{
            ExecuteQueryParams, LaunchMultiTaskParams, MultiTaskDefinition, TaskId, execute_query_params::Query,
            executor_grpc_client::ExecutorGrpcClient, scheduler_grpc_client::SchedulerGrpcClient,
        },
    },
};
use datafusion::{
    arrow::datatypes::Schema,
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use datafusion_proto::{
    physical_plan::{AsExecutionPlan, PhysicalExtensionCodec},
    protobuf::PhysicalPlanNode,
};
use polylance_ballista::BallistaEngine;
use polylance_cluster::{Engine, Envelope, SplitResult, TASK_FORMAT};
use polylance_tests::{Process, TinyModel, free_port, polylance_with};
use tokio::runtime::Runtime;

use crate::{Cluster, summary};

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
    cluster.expect_local("cluster.lance");
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
fn an_executor_of_another_version_says_so_and_ends_itself() {
    let cluster = Cluster::start();
    let executor = cluster.executor();
    cluster.wait_for_executors(1);
    let envelope = Envelope {
        format: TASK_FORMAT + 1,
        version: "99.0.0".to_owned(),
        table: cluster.path("cluster.lance"),
        run_id: "run".to_owned(),
        result: "0-0.arrow".to_owned(),
    };
    let mut task = serde_json::to_vec(&envelope).unwrap();
    task.extend(b"\nwhat no other version can read");
    Runtime::new().unwrap().block_on(async {
        let engine = BallistaEngine::new(cluster.url.parse().unwrap()).unwrap();
        engine.submit("a task of another version", task.into()).await.unwrap();
    });
    let (code, _, stderr) = executor.ended();
    assert_eq!(code, Some(2), "{stderr}");
    let difference = format!("the run is of polylance 99.0.0 (format {})", TASK_FORMAT + 1);
    assert!(stderr.contains(&difference) && stderr.contains("same version of polylance"), "{stderr}");
    let result = fs::read(cluster.path("cluster.outbox/run/0-0.arrow")).unwrap();
    let failure = SplitResult::decode(&result).unwrap().summary.failure.unwrap();
    assert!(failure.message.contains(&difference), "{failure:?}");
}

/// An executor on whose machine a folder is empty.
fn executor_without(cluster: &Cluster, folder: &str) -> Process {
    let executor = cluster.executor_command(cluster.folder.path(), free_port());
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-euc", "mount -t tmpfs tmpfs \"$1\"; shift; exec \"$@\"", "sh"]);
    command.arg(cluster.path(folder)).arg(executor.get_program()).args(executor.get_args());
    command.envs(executor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    Process::start(command)
}

#[test]
fn an_executor_without_the_files_of_the_source_fails_the_run_with_the_file() {
    let cluster = Cluster::start();
    drop(cluster.local("local.lance"));
    let without = executor_without(&cluster, "docs");
    cluster.wait_for_executors(1);
    let (code, _, stderr) = cluster.run_into("cluster.lance").ended();
    assert_eq!(code, Some(1), "{stderr}");
    for part in ["000.jsonl is not on this machine", "shared_files"] {
        assert!(stderr.contains(part), "{part:?} is missing in {stderr}");
    }
    drop(without);
    let _executor = cluster.executor();
    let _ = summary(cluster.run_into("cluster.lance").ended());
    cluster.expect_local("cluster.lance");
}

#[test]
fn an_executor_with_another_disk_for_the_table_adds_nothing_to_it() {
    let cluster = Cluster::start();
    drop(cluster.local("local.lance"));
    fs::create_dir(cluster.folder.path().join("tables")).unwrap();
    let without = executor_without(&cluster, "tables");
    cluster.wait_for_executors(1);
    let (code, _, stderr) = cluster.run_into("tables/cluster.lance").ended();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("it left no result"), "{stderr}");
    drop(without);
    let _executor = cluster.executor();
    let _ = summary(cluster.run_into("tables/cluster.lance").ended());
    cluster.expect_local("tables/cluster.lance");
}

fn encoded(plan: Arc<dyn ExecutionPlan>) -> Vec<u8> {
    let codec = BallistaPhysicalExtensionCodec::default();
    let codec: &dyn PhysicalExtensionCodec = &codec;
    let mut bytes = Vec::new();
    PhysicalPlanNode::try_from_physical_plan(plan, codec).unwrap().try_encode(&mut bytes).unwrap();
    bytes
}

/// A plan that reads nothing, alone and as a stage of Ballista.
fn foreign_plans() -> [Vec<u8>; 2] {
    let plan: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
    let stage = ShuffleWriterExec::try_new("job".into(), 1, Arc::clone(&plan), String::new(), None).unwrap();
    [encoded(plan), encoded(Arc::new(stage))]
}

#[test]
fn a_plan_of_another_program_is_refused_by_the_scheduler() {
    let cluster = Cluster::start();
    for plan in foreign_plans() {
        let url = cluster.url.clone();
        let refused = Runtime::new().unwrap().block_on(async {
            let mut client = SchedulerGrpcClient::connect(url).await.unwrap();
            let query = Some(Query::PhysicalPlan(plan));
            client.execute_query(ExecuteQueryParams { query, ..ExecuteQueryParams::default() }).await.unwrap_err()
        });
        assert!(refused.message().contains("and no other plans"), "{refused}");
    }
}

#[test]
fn a_plan_of_another_program_is_refused_by_an_executor_that_goes_on() {
    let cluster = Cluster::start();
    drop(cluster.local("local.lance"));
    let port = free_port();
    let executor = Process::start(cluster.executor_command(cluster.folder.path(), port));
    cluster.wait_for_executors(1);
    for plan in foreign_plans() {
        let (url, scheduler_id) = (format!("http://127.0.0.1:{port}"), cluster.url.replace("http://", ""));
        Runtime::new().unwrap().block_on(async {
            let mut client = ExecutorGrpcClient::connect(url).await.unwrap();
            let task_ids = vec![TaskId::default()];
            let task = MultiTaskDefinition { task_ids, job_id: "job".into(), plan, ..MultiTaskDefinition::default() };
            client.launch_multi_task(LaunchMultiTaskParams { multi_tasks: vec![task], scheduler_id }).await.unwrap();
        });
        drop(executor.line("a plan that is no split was refused"));
    }
    let _ = summary(cluster.run_into("cluster.lance").ended());
    cluster.expect_local("cluster.lance");
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
