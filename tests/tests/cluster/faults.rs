//! Faults at random moments, one after the other on the same cluster.

use std::{
    env, fs, mem, thread,
    time::{Duration, Instant, SystemTime},
};

use polylance_tests::{Process, draw, free_port, start_scheduler, wait_until};

use crate::{Cluster, finished, summary};

/// Faults, unless `POLYLANCE_CLUSTER_KILLS` sets another number.
const ROUNDS: usize = 3;
const EXECUTORS: usize = 2;
/// Longer than the scheduler waits for a silent executor.
const SUSPENSION: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillExecutor,
    KillRun,
    RestartScheduler,
    /// All executors were silent for too long when it goes on.
    SuspendScheduler,
    /// It is given up, goes on and finishes its splits, which others have embedded by then.
    SuspendExecutor,
    StopExecutor,
}

const FAULTS: [Fault; 6] = [
    Fault::KillExecutor,
    Fault::KillRun,
    Fault::RestartScheduler,
    Fault::SuspendScheduler,
    Fault::SuspendExecutor,
    Fault::StopExecutor,
];

struct Executor {
    port: u16,
    process: Process,
}

impl Executor {
    fn start(cluster: &Cluster) -> Self {
        let port = free_port();
        let process = Process::start(cluster.executor_command(cluster.folder.path(), port));
        Self { port, process }
    }

    fn restart_if_ended(&mut self, cluster: &Cluster) {
        if self.process.has_ended() {
            *self = Self::start(cluster);
        }
    }

    /// Waits until a suspended executor that goes on has ended, because it was given up, or is one of the cluster again.
    fn wait_for_return(&mut self, cluster: &Cluster) {
        wait_until("end or return of the executor", || {
            let status = cluster.status();
            let is_this = |executor: &serde_json::Value| executor["port"] == self.port;
            let listed = status["executors"].as_array().unwrap().iter().find(|executor| is_this(executor));
            self.process.has_ended() || listed.is_some_and(|executor| executor["seconds_silent"].as_u64() < Some(5))
        });
    }
}

#[test]
fn faults_at_random_moments_do_not_change_the_table() {
    let number = |name: &str| env::var(name).ok().map(|number| number.parse::<u64>().unwrap());
    let rounds = number("POLYLANCE_CLUSTER_KILLS").map_or(ROUNDS, |rounds| rounds as usize);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let seed = number("POLYLANCE_CLUSTER_SEED").unwrap_or(now);
    report(&format!("POLYLANCE_CLUSTER_SEED={seed}"));
    let mut state = seed;

    let mut cluster = Cluster::start();
    drop(cluster.local("local.lance"));
    let mut executors: Vec<Executor> = (0..EXECUTORS).map(|_| Executor::start(&cluster)).collect();
    cluster.wait_for_executors(EXECUTORS);
    let started = Instant::now();
    drop(summary(cluster.run_into("cluster.lance").ended()));
    let time = started.elapsed().as_micros() as u64;
    cluster.expect_local("cluster.lance");
    let mut faults = Vec::new();
    for round in 0..rounds {
        cluster.remove_table("cluster.lance");
        if faults.is_empty() {
            // Each once, in random order.
            faults = FAULTS.to_vec();
        }
        let fault = faults.swap_remove(draw(&mut state, faults.len() as u64) as usize);
        let (chosen, moment) = (draw(&mut state, EXECUTORS as u64) as usize, draw(&mut state, time));
        report(&format!("round {round}: {fault:?} after {moment} µs"));
        let begun = Instant::now();
        let mut run = cluster.run_into("cluster.lance");
        thread::sleep(Duration::from_micros(moment));
        match fault {
            Fault::KillExecutor => {
                executors[chosen].process.signal("-KILL");
                executors[chosen] = Executor::start(&cluster);
            }
            Fault::KillRun => {
                run.signal("-KILL");
                run = cluster.run_into("cluster.lance");
            }
            Fault::RestartScheduler => cluster.restart_scheduler(),
            Fault::SuspendScheduler => {
                cluster.scheduler.signal("-STOP");
                thread::sleep(SUSPENSION);
                cluster.scheduler.signal("-CONT");
            }
            Fault::SuspendExecutor => {
                executors[chosen].process.signal("-STOP");
                thread::sleep(SUSPENSION);
                executors[chosen].process.signal("-CONT");
                executors[chosen].wait_for_return(&cluster);
            }
            Fault::StopExecutor => {
                let stopped = mem::replace(&mut executors[chosen], Executor::start(&cluster)).process;
                stopped.signal("-TERM");
                let (code, _, stderr) = stopped.ended();
                // One that was suspended before may just have been given up.
                assert!(code == Some(0) || stderr.contains("ended this executor"), "{code:?}\n{stderr}");
            }
        }
        let _ = finished(run, || executors.iter_mut().for_each(|executor| executor.restart_if_ended(&cluster)));
        report(&format!("round {round} took {:.1} s", begun.elapsed().as_secs_f64()));
        cluster.expect_local("cluster.lance");
    }
}

impl Cluster {
    /// Kills the scheduler and starts another one at its address.
    fn restart_scheduler(&mut self) {
        self.scheduler.kill();
        self.scheduler = start_scheduler(self.url.strip_prefix("http://").unwrap()).0;
    }

    /// Removes a table, its quarantine, and what runs have left next to it.
    fn remove_table(&self, table: &str) {
        let name = table.strip_suffix(".lance").unwrap();
        for suffix in [".lance", ".quarantine.lance", ".outbox"] {
            let path = self.folder.path().join(format!("{name}{suffix}"));
            if path.exists() {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failure can be repeated with what it prints")]
fn report(line: &str) {
    eprintln!("{line}");
}
