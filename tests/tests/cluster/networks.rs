//! Networks that fail: scheduler, executors and the run are in network namespaces of their own, joined by a bridge.

use std::{
    env,
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use polylance_tests::{Process, polylance_command};

use crate::{Cluster, finished};

const SCHEDULER: usize = 0;
const EXECUTORS: [usize; 2] = [1, 2];
const RUN: usize = 3;
const NODES: usize = 4;
/// How long a node is cut off, in the long form too.
const CUT: Duration = Duration::from_secs(10);
const LONG_CUT: Duration = Duration::from_secs(30);
const NETEM: [&str; 6] = ["netem", "loss", "5%", "delay", "100ms", "10ms"];

/// Namespaces, each with an interface `eth0`. They are removed when it is dropped.
struct Network {
    name: String,
}

impl Network {
    /// Fails with the reason if this system or this user cannot make namespaces.
    fn try_new() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("polylance-{}-{number}", process::id()) };
        let hub = network.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        for node in 0..NODES {
            let (space, port) = (network.space(node), port(node));
            ip(&["netns", "add", &space])?;
            ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
            ip(&["-n", &space, "address", "add", &format!("{}/24", address(node)), "dev", "eth0"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
        }
        Ok(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn space(&self, node: usize) -> String {
        format!("{}-{node}", self.name)
    }

    /// Starts a program on a node.
    fn start(&self, node: usize, command: &Command) -> Process {
        let mut there = Command::new("ip");
        there.args(["netns", "exec", &self.space(node)]).arg(command.get_program()).args(command.get_args());
        there.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            there.current_dir(folder);
        }
        Process::start(there)
    }

    /// Cuts a node off for a while.
    fn cut(&self, node: usize, time: Duration) {
        for state in ["down", "up"] {
            ip(&["-n", &self.hub(), "link", "set", &port(node), state]).unwrap();
            if state == "down" {
                thread::sleep(time);
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for space in (0..NODES).map(|node| self.space(node)).chain([self.hub()]) {
            // It may not have been made.
            drop(ip(&["netns", "delete", &space]));
        }
    }
}

/// The interface of the bridge at whose other end a node is.
fn port(node: usize) -> String {
    format!("port{node}")
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A cluster whose processes are on the nodes of a network.
struct Distributed {
    executors: [Process; 2],
    cluster: Cluster,
    network: Network,
}

impl Distributed {
    fn new(network: Network) -> Self {
        let mut command = polylance_command();
        let listen = format!("{}:50050", address(SCHEDULER));
        command.args(["scheduler", "--listen", &listen]);
        let scheduler = network.start(SCHEDULER, &command);
        drop(scheduler.line("listening on "));
        let cluster = Cluster::of_scheduler(scheduler, format!("http://{listen}"));
        let executors = EXECUTORS.map(|node| start_executor(&cluster, &network, node));
        drop(cluster.local("local.lance"));
        Self { executors, cluster, network }
    }

    /// Runs into a new table; `fault` happens once there are rows.
    fn expect_local_despite(&mut self, table: &str, fault: impl FnOnce(&Network)) {
        let Self { cluster, network, executors } = self;
        let pipeline = cluster.pipeline(table, &cluster.path("tiny"));
        let run = network.start(RUN, &cluster.run_command(&pipeline));
        cluster.wait_for_rows(table);
        fault(network);
        let _ = finished(run, || {
            for (node, executor) in EXECUTORS.into_iter().zip(executors.iter_mut()) {
                if executor.has_ended() {
                    *executor = start_executor(cluster, network, node);
                }
            }
        });
        cluster.expect_local(table);
    }
}

fn start_executor(cluster: &Cluster, network: &Network, node: usize) -> Process {
    let mut command = polylance_command();
    command.args(["executor", "--scheduler", &cluster.url, "--advertise", &address(node), "--devices", "cpu:0"]);
    network.start(node, command.current_dir(cluster.folder.path()))
}

#[test]
fn a_node_that_is_cut_off_for_a_while_does_not_change_the_table() {
    let network = match Network::try_new() {
        Ok(network) => network,
        Err(reason) => return skipped("no node was cut off", &reason),
    };
    let mut distributed = Distributed::new(network);
    // The short form cuts off the node that all others need.
    let (nodes, time) =
        if env::var_os("POLYLANCE_CUTS").is_some() { (0..NODES, LONG_CUT) } else { (SCHEDULER..1, CUT) };
    for node in nodes {
        distributed.expect_local_despite(&format!("cut-{node}.lance"), |network| network.cut(node, time));
    }
}

#[test]
fn a_network_that_is_slow_and_loses_packets_does_not_change_the_table() {
    let network = match Network::try_new() {
        Ok(network) => network,
        Err(reason) => return skipped("no packet was lost", &reason),
    };
    for node in 0..NODES {
        let space = network.space(node);
        let start = ["netns", "exec", &space, "tc", "qdisc", "add", "dev", "eth0", "root"];
        if let Err(reason) = ip(&[&start[..], &NETEM].concat()) {
            return skipped("no packet was lost", &reason);
        }
    }
    Distributed::new(network).expect_local_despite("slow.lance", |_| {});
}

#[expect(clippy::print_stderr, reason = "a test that proves nothing says so")]
fn skipped(what: &str, reason: &str) {
    eprintln!("skipped: {what}, since namespaces or faults of a network cannot be made here: {reason}");
}
