//! A Slurm cluster of one node on this machine, from Debian's packages.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

/// The running daemons; they end when dropped.
#[derive(Debug)]
pub struct Slurm {
    folder: PathBuf,
    daemons: Vec<Child>,
}

impl Slurm {
    /// Starts the daemons, with their state in an empty folder, and waits until the node takes jobs.
    ///
    /// The node claims 16 cores and 32 GiB whatever the machine has, so that every job fits.
    pub fn start(folder: &Path) -> Self {
        let mut slurm = Self { folder: folder.to_owned(), daemons: Vec::new() };
        for state in ["controller", "node"] {
            fs::create_dir(folder.join(state)).expect("an empty folder");
        }
        // Munge needs any 128 bytes that nobody else can read.
        let key = slurm.path("munge.key");
        fs::write(&key, [7; 128]).expect("a writable folder");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("a writable folder");
        fs::write(slurm.config(), slurm.configuration()).expect("a writable folder");

        let files = ["key-file", "socket", "pid-file", "log-file", "seed-file"];
        let files = files.map(|file| format!("--{file}={}", slurm.path("munge").with_extension(&file[..3]).display()));
        slurm.daemon("munged", &[&["--foreground".to_owned(), "--force".to_owned()], &files[..]].concat());
        slurm.wait_until("munge answers", |slurm| slurm.path("munge.soc").exists());
        for daemon in ["slurmctld", "slurmd"] {
            slurm.daemon(daemon, &["-D".to_owned(), "-c".to_owned()]);
        }
        slurm.wait_until("the node is idle", |slurm| {
            let nodes =
                slurm.command("sinfo").args(["--noheader", "--format=%T"]).output().expect("Slurm is installed");
            nodes.stdout == b"idle\n"
        });
        slurm
    }

    /// A command that finds the cluster.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("SLURM_CONF", self.config());
        command
    }

    /// The file with the cluster's configuration, for `SLURM_CONF`.
    pub fn config(&self) -> PathBuf {
        self.path("slurm.conf")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn configuration(&self) -> String {
        let output = |program: &str, flag: &str| {
            let output = Command::new(program).arg(flag).output().expect("a program of every system");
            String::from_utf8(output.stdout).expect("a name").trim().to_owned()
        };
        let (user, host) = (output("id", "-un"), output("uname", "-n"));
        let host = host.split('.').next().unwrap_or_default();
        let [controller_port, node_port] = free_ports();
        let folder = self.folder.display();
        format!(
            "ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.soc
CryptoType=crypto/munge
StateSaveLocation={folder}/controller
SlurmdSpoolDir={folder}/node
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,bf_interval=1
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=32768
PartitionName=all Nodes=ALL Default=YES
"
        )
    }

    fn daemon(&mut self, program: &str, arguments: &[String]) {
        let mut command = self.command(program);
        // Debian keeps daemons off the path of users.
        let path = std::env::var("PATH").expect("a path");
        command.args(arguments).env("PATH", format!("{path}:/usr/sbin"));
        let log = fs::File::create(self.path(&format!("{program}.out"))).expect("a writable folder");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let daemon = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}: run .ci/setup slurm"));
        self.daemons.push(daemon);
    }

    fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        while !condition(self) {
            for daemon in &mut self.daemons {
                assert!(daemon.try_wait().expect("a child").is_none(), "a daemon ended before {what}: {self:?}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        // The daemon of the node ends before the ones that it reports to.
        for daemon in self.daemons.iter_mut().rev() {
            let _ended = daemon.kill();
            let _ended = daemon.wait();
        }
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}
