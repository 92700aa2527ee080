//! The manifests of `deploy/`: the schemas of Kubernetes accept them, and the commands of their pods run here.

use std::{
    collections::BTreeMap,
    fs,
    io::{ErrorKind, Write},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use polylance_tests::{Outcome, Row, python, repository, write_parquet};
use serde_json::Value;

use super::{Launch, SHARDS, deployed, outcome, outcomes_of_shards, start};

const SHARDED: &str = "shards/k8s-indexed-job.yaml";
const NIGHTLY: &str = "kustomize/overlays/nightly/cronjob.yaml";
const CACHE: &str = "kustomize/base/model-cache.yaml";
pub(super) const ON_CLUSTER: &str = "kustomize/overlays/cluster/run.yaml";

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(deployed(path)).unwrap()
}

/// The objects of YAML by kind and name, as in `Job/docs-shards`, or where they contradict the schemas of Kubernetes.
pub(super) fn objects(yaml: &str) -> Result<BTreeMap<String, Value>, String> {
    let mut script = Command::new(python());
    script.arg(repository().join("tests/python/kubernetes_objects.py"));
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = start(script);
    process.stdin.take().unwrap().write_all(yaml.as_bytes()).unwrap();
    let checked = Outcome::of(process);
    if checked.code != 0 {
        return Err(checked.stderr);
    }
    let objects: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    let name = |object: &Value| {
        format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
    };
    Ok(objects.into_iter().map(|object| (name(&object), object)).collect())
}

/// The specifications of the four jobs.
fn jobs() -> [(&'static str, Value); 4] {
    let [sharded, on_cluster, nightly] = [SHARDED, ON_CLUSTER, NIGHTLY].map(|path| objects(&read(path)).unwrap());
    [
        ("shards", sharded["Job/docs-shards"]["spec"].clone()),
        ("closing", sharded["Job/docs-closing"]["spec"].clone()),
        ("on a cluster", on_cluster["Job/docs-run"]["spec"].clone()),
        ("nightly", nightly["CronJob/docs-nightly"]["spec"]["jobTemplate"]["spec"].clone()),
    ]
}

/// The command of a job's container, with the folder of the pipeline file in this machine.
pub(super) fn command(launch: &Launch, job: &Value) -> Command {
    let pod = &job["template"]["spec"];
    let container = &pod["containers"][0];
    let mount = container["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["name"] == "pipeline").unwrap();
    let (there, here) = (mount["mountPath"].as_str().unwrap(), launch.folder.path().to_str().unwrap());
    let words = ["command", "args"].iter().flat_map(|part| container[part].as_array().unwrap());
    let words: Vec<String> = words.map(|word| word.as_str().unwrap().replace(there, here)).collect();
    let mut command = launch.command(&words[0]);
    command.args(&words[1..]);
    for variable in container["env"].as_array().into_iter().flatten() {
        command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
    }
    fs::copy(deployed("kustomize/base/run.sh"), launch.path("run.sh")).unwrap();
    command
}

#[test]
fn indexed_job_and_closing_job_make_the_table_of_one_run() {
    let launch = Launch::new();
    let [(_, shards), (_, closing), ..] = jobs();
    let pod = |index: usize| {
        let mut pod = command(&launch, &shards);
        pod.env("JOB_COMPLETION_INDEX", index.to_string()).env("POLYLANCE_SHARDS", SHARDS.to_string());
        pod
    };
    // One of them has the row without a text: exit code 3 of the program.
    for shard in outcomes_of_shards(pod) {
        drop(shard.exits_with(0));
    }
    drop(outcome(command(&launch, &closing)).exits_with(0).stderr_contains(&["1 row went to the quarantine"]));
    launch.assert_table_is_that_of_one_run();
}

#[test]
fn nightly_job_makes_the_table_and_a_wrong_configuration_is_exit_code_2() {
    let launch = Launch::new();
    let [.., (_, nightly)] = jobs();
    drop(outcome(command(&launch, &nightly)).exits_with(0));
    launch.assert_table_is_that_of_one_run();
    fs::write(launch.path("docs.toml"), "version = 1\n").unwrap();
    drop(outcome(command(&launch, &nightly)).exits_with(2));
}

#[test]
fn stopped_pod_commits_its_work() {
    let launch = Launch::new();
    let long = "cat dot tin arc nest ".repeat(4);
    let rows: Vec<Row> = (0..50_000).map(|row| Row::new(format!("long{row}"), &long)).collect();
    write_parquet(&launch.path("docs/long.parquet"), &rows);
    let [.., (_, nightly)] = jobs();
    let mut command = command(&launch, &nightly);
    command.args(["--set", "table.commit.rows=1000", "--set", "model.devices=[\"cpu\"]"]);
    let mut pod = start(command);
    while fs::read_dir(launch.path("docs.lance/_versions")).map_or(0, Iterator::count) < 2 {
        assert!(pod.try_wait().unwrap().is_none(), "the run ended before it committed");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &pod.id().to_string()]).status().unwrap().success());
    drop(Outcome::of(pod).exits_with(130).stderr_contains(&["stopping", "of the source remains"]));
}

/// Fails the test unless the pod runs the image as its user, and its volumes are those of the base.
pub(super) fn assert_pod_agrees(name: &str, pod: &Value) {
    let claims = objects(&read(CACHE)).unwrap();
    let (base, dockerfile) = (read("kustomize/base/kustomization.yaml"), repository_file("Dockerfile"));
    let image = pod["containers"][0]["image"].as_str().unwrap();
    assert!(dockerfile.contains(&format!("docker build -t {image} .\n")), "{name}: {image}");
    assert!(repository_file("docker-compose.yml").contains(&format!("image: {image}\n")), "{name}: {image}");
    assert!(dockerfile.contains(&format!("useradd --uid {} ", pod["securityContext"]["runAsUser"])), "{name}");
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        if let Some(config) = volume["configMap"]["name"].as_str() {
            assert!(base.contains(&format!("- name: {config}\n")), "{name}: {config}");
        } else {
            let claim = volume["persistentVolumeClaim"]["claimName"].as_str().unwrap();
            assert!(claims.contains_key(&format!("PersistentVolumeClaim/{claim}")), "{name}: {claim}");
        }
    }
}

#[test]
fn manifests_agree_with_the_schemas_the_image_and_each_other() {
    for (name, job) in jobs() {
        let pod = &job["template"]["spec"];
        let container = &pod["containers"][0];
        assert_pod_agrees(name, pod);
        let rules = &job["podFailurePolicy"]["rules"];
        assert_eq!(rules[0]["action"], "Ignore", "{name}");
        assert_eq!(rules[0]["onPodConditions"][0]["type"], "DisruptionTarget", "{name}");
        assert_eq!((&rules[1]["action"], &rules[1]["onExitCodes"]["values"][0]), (&"FailJob".into(), &2.into()));
        assert_eq!(rules[1]["onExitCodes"]["containerName"], container["name"], "{name}");
        // A run is given `run.grace` seconds to commit, 30 by default.
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(30), "{name}");
    }
    let [(_, shards), (_, closing), ..] = jobs();
    let variable = &shards["template"]["spec"]["containers"][0]["env"][0];
    assert_eq!(variable["name"], "POLYLANCE_SHARDS");
    assert_eq!(variable["value"], shards["completions"].to_string());
    assert_eq!((&shards["completionMode"], &closing["suspend"]), (&"Indexed".into(), &true.into()));
    for command in ["job/docs-shards", "job/docs-closing"] {
        assert!(read(SHARDED).lines().any(|line| line.starts_with("#   $ kubectl ") && line.contains(command)));
    }
}

fn repository_file(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap()
}

#[test]
fn mistakes_in_a_manifest_are_found() {
    for (right, wrong, message) in [
        ("completions: 64", "completions: all", "$.spec.completions"),
        ("backoffLimitPerIndex", "backoffLimitPerShard", "'backoffLimitPerShard' was unexpected"),
        ("{ requests: { storage: 20Gi } }", "{ request: { storage: 20Gi } }", "'request' was unexpected"),
    ] {
        let yaml = format!("{}---\n{}", read(SHARDED), read(CACHE));
        assert!(yaml.contains(right), "{right}");
        let error = objects(&yaml.replace(right, wrong)).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn kustomizations_render_to_valid_objects() {
    let shards = ["Job/docs-closing", "Job/docs-shards", "PersistentVolumeClaim/model-cache"];
    let nightly = ["CronJob/docs-nightly", "PersistentVolumeClaim/model-cache"];
    let cluster = [
        "Deployment/polylance-executor",
        "Deployment/polylance-scheduler",
        "Job/docs-run",
        "NetworkPolicy/polylance-executor",
        "NetworkPolicy/polylance-scheduler",
        "PersistentVolumeClaim/model-cache",
        "Service/polylance-scheduler",
        "ServiceAccount/polylance",
    ];
    let nightly_cluster = [&nightly[..1], &cluster[..2], &cluster[3..]].concat();
    for (folder, names, gpus) in [
        ("shards", &shards[..], 0),
        ("kustomize/overlays/gpu", &shards, 1),
        ("kustomize/overlays/nightly", &nightly, 0),
        ("kustomize/overlays/cluster", &cluster, 0),
        ("kustomize/overlays/cluster-gpu", &cluster, 1),
        ("kustomize/overlays/cluster-nightly", &nightly_cluster, 0),
    ] {
        let Some(yaml) = rendered(&deployed(folder)) else { return };
        let mut objects = objects(&yaml).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let config = objects.keys().find(|name| name.starts_with("ConfigMap/docs-pipeline-")).cloned().unwrap();
        let config = objects.remove(&config).unwrap();
        assert_eq!(config["data"]["docs.toml"], read("kustomize/base/docs.toml"));
        assert_eq!(objects.keys().collect::<Vec<_>>(), names, "{folder}");
        assert_eq!(yaml.matches("nvidia.com/gpu: 1").count(), gpus, "{folder}");
    }
}

/// The YAML of a kustomization; `None` without `kubectl`.
pub(super) fn rendered(folder: &Path) -> Option<String> {
    let rendered = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(rendered) => rendered,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            not_rendered();
            return None;
        }
        Err(error) => panic!("kubectl: {error}"),
    };
    assert!(rendered.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&rendered.stderr));
    Some(String::from_utf8(rendered.stdout).unwrap())
}

#[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
fn not_rendered() {
    eprintln!("skipped: without kubectl the kustomizations are not rendered");
}

#[test]
fn pipeline_file_of_the_jobs_is_valid() {
    let launch = Launch::new();
    let mut run = launch.command(launch.path("bin/polylance"));
    run.arg("run").arg(deployed("kustomize/base/docs.toml")).arg("--explain");
    run.args(["--set", &format!("source.uri={}", launch.text("docs")), "--set", "table.uri=docs.lance"]);
    drop(outcome(run).exits_with(0));
}
