//! Processes that talk to each other on this machine.

use std::{
    io::{BufRead, BufReader, Read},
    iter,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{polylance_command, polylance_with};

/// How long a process may take to reach a state on a busy machine.
const TIMEOUT: Duration = Duration::from_mins(3);

/// A process that ends when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stderr: mpsc::Receiver<String>,
}

impl Process {
    /// Starts a program.
    pub fn start(mut command: Command) -> Self {
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, stderr) = mpsc::channel();
        let pipe = BufReader::new(child.stderr.take().expect("stderr is piped"));
        thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, stderr }
    }

    /// Waits for a line of stderr with this text, and returns the line.
    pub fn line(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.stderr.recv_timeout(TIMEOUT) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("{text:?} is missing in {seen:?}: {error}"),
            }
        }
    }

    /// Sends a signal, such as `-KILL`. A process that has ended gets none.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().expect("`kill` starts");
        assert!(sent.success());
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child of this process").is_some()
    }

    /// Waits for the end; returns the exit code, stdout and the rest of stderr.
    pub fn ended(mut self) -> (Option<i32>, String, String) {
        let mut stdout = String::new();
        let mut pipe = self.child.stdout.take().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("stdout is UTF-8");
        let code = self.child.wait().expect("a child of this process").code();
        let stderr = self.stderr.iter().collect::<Vec<_>>().join("\n");
        (code, stdout, stderr)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts `polylance scheduler` on this address, and returns it with its URL.
pub fn start_scheduler(address: &str) -> (Process, String) {
    let mut command = polylance_command();
    command.args(["scheduler", "--listen", address]);
    let scheduler = Process::start(command);
    let line = scheduler.line("listening on ");
    let url = line.rsplit(' ').next().unwrap_or_default().to_owned();
    (scheduler, url)
}

/// A port that no other process uses, below those that the system gives to connections, so that it stays free. Tests
/// in other processes begin elsewhere.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + (std::process::id() % 500 * 10) as u16;
    iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of many")
}

/// Waits for a state that other processes reach.
pub fn wait_until(what: &str, mut is_reached: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_reached() {
        assert!(started.elapsed() < TIMEOUT, "no {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until this many executors are registered at a scheduler.
pub fn wait_for_executors(url: &str, count: usize) {
    wait_until("registered executors", || {
        let status = polylance_with(&["cluster", url, "--json"], &[], b"").exits_with(0).json();
        status["executors"].as_array().is_some_and(|executors| executors.len() == count)
    });
}
