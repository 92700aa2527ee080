//! The clusters of `deploy/` and of the Compose file: the commands of their containers run here, on loopback, and make the
//! table of one run in its order.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::Command,
};

use polylance_tests::{
    Process, Response, free_port, polylance, read_response, read_table, read_yaml, repository, strings, wait_until,
};
use serde_json::{Value, json};

use super::{
    Launch, deployed,
    kubernetes::{ON_CLUSTER, assert_pod_agrees, command, objects, read, rendered},
    outcome,
};

const SCHEDULER: &str = "kustomize/components/cluster/scheduler.yaml";
const EXECUTOR: &str = "kustomize/components/cluster/executor.yaml";
const NETWORK: &str = "kustomize/components/cluster/network-policy.yaml";
const ACCOUNT: &str = "kustomize/components/cluster/service-account.yaml";
const SCALED_OBJECT: &str = "kustomize/components/keda/scaled-object.yaml";
/// The address that the containers know.
const SERVICE: &str = "polylance-scheduler:50050";
const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Waits until a process is in a state, which it must reach before it ends.
fn wait_for(process: &mut Process, what: &str, mut is_reached: impl FnMut() -> bool) {
    wait_until(what, || {
        assert!(!process.has_ended(), "the process ended before it was {what}");
        is_reached()
    });
}

/// Stops a process as a container is stopped.
fn stop(process: Process) {
    process.signal("-TERM");
    let (code, _, stderr) = process.ended();
    assert_eq!(code, Some(0), "{stderr}");
}

/// A command with the words of a container, of which some are replaced by those of this machine.
fn container(launch: &Launch, words: &Value, replaced: &[(&str, &str)]) -> Command {
    let here = |word: &Value| {
        let word = word.as_str().unwrap().to_owned();
        replaced.iter().fold(word, |word, (there, here)| word.replace(there, here))
    };
    // The entry point of the image.
    let mut command = launch.command(launch.path("bin/polylance"));
    command.args(words.as_array().unwrap().iter().map(here));
    command
}

fn get(port: u16, path: &str) -> Option<Response> {
    let mut stream = TcpStream::connect((LOOPBACK, port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    Some(read_response(stream))
}

/// The specification of the pod of a Deployment, with its labels.
fn pod(path: &str, name: &str) -> (Value, Value) {
    let mut template = objects(&read(path)).unwrap()[&format!("Deployment/{name}")]["spec"]["template"].clone();
    (template["spec"].take(), template["metadata"]["labels"].take())
}

/// The scheduler and two executors of the manifests.
struct Cluster {
    address: String,
    processes: Vec<Process>,
}

impl Cluster {
    fn start(launch: &Launch) -> Self {
        let ((scheduler, _), (executor, _)) =
            (pod(SCHEDULER, "polylance-scheduler"), pod(EXECUTOR, "polylance-executor"));
        let (scheduler, executor) = (&scheduler["containers"][0], &executor["containers"][0]);
        let (port, ports) = (free_port(), [free_port(), free_port()]);
        let address = format!("{LOOPBACK}:{port}");
        let listening = container(launch, &scheduler["args"], &[("0.0.0.0:50050", &address)]);
        let mut processes = vec![Process::start(listening)];
        for probe in ["readinessProbe", "livenessProbe"] {
            let path = scheduler[probe]["httpGet"]["path"].as_str().unwrap();
            let is_ok = || get(port, path).is_some_and(|response| response.status == 200);
            wait_for(&mut processes[0], probe, is_ok);
        }
        for port in ports {
            assert_eq!(executor["readinessProbe"]["tcpSocket"]["port"], executor["ports"][0]["name"]);
            let flag = format!("--port={port}");
            let replaced = [(SERVICE, address.as_str()), ("$(POD_IP)", "127.0.0.1"), ("--port=50051", &flag)];
            let mut process = Process::start(container(launch, &executor["args"], &replaced));
            wait_for(&mut process, "ready", || TcpStream::connect((LOOPBACK, port)).is_ok());
            processes.push(process);
        }
        let status = || polylance(&["cluster", &address, "--json"]).exits_with(0).json();
        wait_for(&mut processes[0], "with two executors", || status()["executors"].as_array().unwrap().len() == 2);
        // What scales the executors is there to be read.
        let scaled = read_yaml(&deployed(SCALED_OBJECT));
        let gauge = scaled["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap();
        let gauge = gauge.strip_prefix("sum(").and_then(|query| query.strip_suffix(')')).unwrap();
        let metrics = get(port, "/metrics").unwrap().text;
        assert!(metrics.contains(&format!("\n{gauge} 0\n")), "{gauge}: {metrics}");
        Self { address, processes }
    }

    /// Runs the pod of a job, whose table must be that of one run.
    fn run(self, launch: &Launch, job: &Value) {
        let job = serde_json::from_str(&job.to_string().replace(SERVICE, &self.address)).unwrap();
        let mut run = command(launch, &job);
        run.args(["--set", "cluster.shared_files=true", "--set", "cluster.split=1 KiB"]);
        // `run.sh` makes a success of rows in the quarantine.
        drop(outcome(run).exits_with(0).stderr_contains(&["1 row went to the quarantine"]));
        launch.assert_table_is_that_of_one_run();
        let ids = |table: &str| strings(&read_table(&launch.text(table), &["doc_id"]), "doc_id");
        assert_eq!(ids("docs.lance"), ids("one.lance"));
        self.processes.into_iter().rev().for_each(stop);
    }
}

#[test]
fn deployments_and_job_make_the_table_of_one_run_in_its_order() {
    let launch = Launch::new();
    let cluster = Cluster::start(&launch);
    cluster.run(&launch, &objects(&read(ON_CLUSTER)).unwrap()["Job/docs-run"]["spec"]);
}

#[test]
fn nightly_job_runs_on_the_cluster() {
    let Some(yaml) = rendered(&deployed("kustomize/overlays/cluster-nightly")) else { return };
    let nightly = &objects(&yaml).unwrap()["CronJob/docs-nightly"]["spec"]["jobTemplate"]["spec"];
    let template = &nightly["template"];
    let run = objects(&read(ON_CLUSTER)).unwrap()["Job/docs-run"]["spec"]["template"].clone();
    assert_eq!(template["metadata"], run["metadata"], "the labels that the network policies know");
    assert_eq!(template["spec"]["serviceAccountName"], run["spec"]["serviceAccountName"]);
    let launch = Launch::new();
    Cluster::start(&launch).run(&launch, nightly);
}

/// Seconds of `--drain` in the words of an executor.
fn drain(words: &Value) -> u64 {
    let drain = words.as_array().unwrap().iter().find_map(|word| word.as_str().unwrap().strip_prefix("--drain="));
    drain.unwrap().parse().unwrap()
}

#[test]
fn manifests_of_the_cluster_agree_with_each_other() {
    let ((scheduler, scheduler_labels), (executor, executor_labels)) =
        (pod(SCHEDULER, "polylance-scheduler"), pod(EXECUTOR, "polylance-executor"));
    let run = objects(&read(ON_CLUSTER)).unwrap()["Job/docs-run"]["spec"]["template"].clone();
    for (name, pod) in [("scheduler", &scheduler), ("executor", &executor)] {
        assert_pod_agrees(name, pod);
    }
    for (path, name, labels) in
        [(SCHEDULER, "polylance-scheduler", &scheduler_labels), (EXECUTOR, "polylance-executor", &executor_labels)]
    {
        let deployment = &objects(&read(path)).unwrap()[&format!("Deployment/{name}")];
        assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels, "{name}");
        assert_eq!(&deployment["metadata"]["labels"], labels, "{name}");
    }

    let service = objects(&read(SCHEDULER)).unwrap()["Service/polylance-scheduler"].clone();
    let port = &service["spec"]["ports"][0];
    let container = &scheduler["containers"][0];
    assert_eq!(format!("{}:{}", service["metadata"]["name"].as_str().unwrap(), port["port"]), SERVICE);
    assert_eq!(service["spec"]["selector"], scheduler_labels);
    assert_eq!(port["targetPort"], container["ports"][0]["name"]);
    assert_eq!(container["args"][1], format!("--listen=0.0.0.0:{}", container["ports"][0]["containerPort"]));
    assert_eq!(container["readinessProbe"]["httpGet"]["port"], container["ports"][0]["name"]);

    let container = &executor["containers"][0];
    let has = |word: &str| container["args"].as_array().unwrap().contains(&word.into());
    assert!(has(&format!("--scheduler={SERVICE}")) && has("--advertise=$(POD_IP)"));
    assert!(has(&format!("--port={}", container["ports"][0]["containerPort"])));
    let address = json!([{ "name": "POD_IP", "valueFrom": { "fieldRef": { "fieldPath": "status.podIP" } } }]);
    assert_eq!(container["env"], address);
    assert_eq!(executor["terminationGracePeriodSeconds"], drain(&container["args"]) + 30);
    let spread = &executor["topologySpreadConstraints"][0];
    assert_eq!(spread["labelSelector"]["matchLabels"], executor_labels);
    let words = run["spec"]["containers"][0]["args"].as_array().unwrap();
    assert!(words.contains(&format!("--cluster=http://{SERVICE}").into()));

    let account = &objects(&read(ACCOUNT)).unwrap()["ServiceAccount/polylance"]["metadata"];
    for pod in [&executor, &run["spec"]] {
        assert_eq!(pod["serviceAccountName"], account["name"]);
    }
    let policies = objects(&read(NETWORK)).unwrap();
    let component = "app.kubernetes.io/component";
    let allowed = &policies["NetworkPolicy/polylance-scheduler"]["spec"];
    assert_eq!(allowed["podSelector"]["matchLabels"], scheduler_labels);
    assert_eq!(allowed["ingress"][0]["ports"], json!([{ "port": port["port"] }]));
    let from = &allowed["ingress"][0]["from"][0]["podSelector"];
    let names = json!([executor_labels[component], run["metadata"]["labels"][component]]);
    assert_eq!(from["matchExpressions"], json!([{ "key": component, "operator": "In", "values": names }]));
    for labels in [&executor_labels, &run["metadata"]["labels"]] {
        let name = "app.kubernetes.io/name";
        assert_eq!(from["matchLabels"], json!({ name: labels[name] }));
    }
    let allowed = &policies["NetworkPolicy/polylance-executor"]["spec"];
    assert_eq!(allowed["podSelector"]["matchLabels"], executor_labels);
    assert_eq!(allowed["ingress"][0]["ports"], json!([{ "port": container["ports"][0]["containerPort"] }]));
    assert_eq!(allowed["ingress"][0]["from"], json!([{ "podSelector": { "matchLabels": scheduler_labels } }]));
}

#[test]
fn executors_are_scaled_by_a_gauge_of_the_scheduler() {
    let scaled = read_yaml(&deployed(SCALED_OBJECT));
    assert_eq!((&scaled["apiVersion"], &scaled["kind"]), (&"keda.sh/v1alpha1".into(), &"ScaledObject".into()));
    let spec = &scaled["spec"];
    let deployment = objects(&read(EXECUTOR)).unwrap()["Deployment/polylance-executor"].clone();
    assert_eq!(spec["scaleTargetRef"], json!({ "name": deployment["metadata"]["name"] }));
    let (least, most) = (spec["minReplicaCount"].as_u64().unwrap(), spec["maxReplicaCount"].as_u64().unwrap());
    assert!(least >= 1 && least < most, "a run sends its first splits when there is an executor");
    let [trigger] = &spec["triggers"].as_array().unwrap()[..] else { panic!("{spec}") };
    assert_eq!(trigger["type"], "prometheus");
    let metadata = &trigger["metadata"];
    assert!(metadata["serverAddress"].as_str().unwrap().starts_with("http://"));
    assert!(metadata["query"].is_string());
    let threshold: f64 = metadata["threshold"].as_str().unwrap().parse().unwrap();
    // Two splits wait for each executor that is busy.
    assert!(threshold > 0.0 && threshold < 2.0, "with {threshold}, the number would not grow");
}

#[test]
fn components_for_executors_can_be_combined() {
    let folder = tempfile::tempdir().unwrap();
    copy(&deployed("kustomize"), &folder.path().join("kustomize"));
    let overlay = folder.path().join("kustomize/overlays/cluster");
    let kustomization = fs::read_to_string(overlay.join("kustomization.yaml")).unwrap();
    let all = kustomization.replace("  # - ../../components/", "  - ../../components/");
    assert_eq!(all.matches("\n  - ../../components/").count(), 4);
    fs::write(overlay.join("kustomization.yaml"), all).unwrap();
    let Some(yaml) = rendered(&overlay) else { return };
    // The schemas have no custom resources.
    let (scaled, others): (Vec<&str>, Vec<&str>) =
        yaml.split("\n---\n").partition(|object| object.contains("\nkind: ScaledObject\n"));
    assert_eq!(scaled.len(), 1);
    let objects = objects(&others.join("\n---\n")).unwrap();
    let executors = &objects["Deployment/polylance-executor"]["spec"];
    assert!(executors.get("replicas").is_none(), "the number of executors is KEDA's");
    let pod = &executors["template"]["spec"];
    assert_eq!(pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"], 1);
    let drain = drain(&pod["containers"][0]["args"]);
    assert!(drain < 120, "machines go two minutes after the announcement, or sooner");
    assert_eq!(pod["terminationGracePeriodSeconds"], drain + 30);
    let (selector, tolerations) = (pod["nodeSelector"].as_object().unwrap(), pod["tolerations"].as_array().unwrap());
    assert!(tolerations.iter().all(|taint| selector[taint["key"].as_str().unwrap()] == taint["value"]));
    let scheduler = &objects["Deployment/polylance-scheduler"]["spec"]["template"];
    assert_eq!(scheduler["metadata"]["annotations"]["prometheus.io/port"], "50050");
    let metrics = &objects["NetworkPolicy/polylance-scheduler-metrics"]["spec"];
    assert_eq!(metrics["podSelector"]["matchLabels"], scheduler["metadata"]["labels"]);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            let _bytes = fs::copy(from, to).unwrap();
        }
    }
}

#[test]
fn services_of_the_compose_file_make_the_table_of_a_local_run() {
    let services = read_yaml(&repository().join("docker-compose.yml"))["services"].take();
    for (service, dependency) in [("executor", "scheduler"), ("run", "scheduler")] {
        assert_eq!(services[service]["depends_on"][dependency]["condition"], "service_healthy");
    }
    assert!(["scheduler", "executor", "run"].iter().all(|service| services[service].get("ports").is_none()));
    let launch = Launch::new();
    let folder = format!("{}/", launch.text("data"));
    let pipelines = repository().join("pipelines").display().to_string();
    let (port, ports) = (free_port(), [free_port(), free_port()]);
    let address = format!("{LOOPBACK}:{port}");
    let replaced = [
        ("0.0.0.0:50050", address.as_str()),
        ("scheduler:50050", &address),
        ("/data/", &folder),
        ("/pipelines", &pipelines),
    ];
    let service = |name: &str| container(&launch, &services[name]["command"], &replaced);

    let mut scheduler = Process::start(service("scheduler"));
    let words = service("scheduler").get_args().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    fs::write(launch.path("cmdline"), format!("polylance\0{}\0", words.join("\0"))).unwrap();
    let is_healthy = || {
        let mut check = launch.command(repository().join("docker/healthcheck"));
        check.arg(launch.path("cmdline"));
        outcome(check).code == 0
    };
    wait_for(&mut scheduler, "healthy", is_healthy);
    assert_eq!(services["executor"]["deploy"]["replicas"], ports.len());
    let executor = |port: u16| {
        let mut executor = service("executor");
        // In a container of its own, each one has the port to itself.
        executor.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
        Process::start(executor)
    };
    let executors = ports.map(executor);
    // Three languages and a small model are enough.
    let small = [
        "--set=source.uri=builtin:udhr?codes=eng,fra,jpn".to_owned(),
        format!("--set=model.id={}", launch.text("model")),
        "--set=cluster.split=1 KiB".to_owned(),
        "--set=model.dtype=f32".to_owned(),
    ];
    let mut run = service("run");
    run.args(&small);
    drop(outcome(run).exits_with(0));
    let mut local = service("embed");
    local.args(&small).arg(format!("--set=table.uri={}", launch.text("local.lance")));
    drop(outcome(local).exits_with(0));
    let rows = |table: &str| {
        let columns = ["doc_id", "chunk", "text", "embedding"];
        read_table(&launch.text(table), &columns).columns().to_vec()
    };
    assert_eq!(rows("data/udhr.lance"), rows("local.lance"));
    executors.into_iter().for_each(stop);
    stop(scheduler);
    assert!(!is_healthy());
}
