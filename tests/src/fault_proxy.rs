//! A proxy in front of an HTTP store that loses, delays and breaks calls, chosen by a seed.

use std::{
    io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::draw;

/// A fault of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 503: slow down.
    Throttled,
    /// 500.
    Broken,
    /// The connection is reset before the store receives the call.
    RequestLost,
    /// The store executes the call, and the response is lost.
    ResponseLost,
    /// The response breaks off in the middle.
    Partial,
    /// The response arrives a few bytes at a time.
    Slow,
    /// No response until the client gives up.
    Silent,
}

const FAULTS: [Fault; 7] = [
    Fault::Throttled,
    Fault::Broken,
    Fault::RequestLost,
    Fault::ResponseLost,
    Fault::Partial,
    Fault::Slow,
    Fault::Silent,
];

/// The running proxy; it takes no more calls when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    endpoint: String,
    plan: Arc<FaultPlan>,
}

#[derive(Debug)]
struct FaultPlan {
    upstream: String,
    /// Faulty calls per 1000.
    rate: u64,
    state: Mutex<u64>,
    calls: AtomicU64,
    faults: AtomicU64,
    closed: AtomicBool,
}

impl FaultPlan {
    /// The fault of the next call, if any.
    fn draw(&self) -> Option<Fault> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().expect("no thread panics with the lock");
        if draw(&mut state, 1000) >= self.rate {
            return None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        FAULTS.get(draw(&mut state, FAULTS.len() as u64) as usize).copied()
    }
}

/// One request or response.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl FaultProxy {
    /// Starts a proxy for the store at `upstream` (`http://host:port`); `rate` of 1000 calls fail.
    pub fn start(upstream: &str, rate: u64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let plan = Arc::new(FaultPlan {
            upstream: upstream.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            rate,
            state: Mutex::new(seed),
            calls: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let serving = Arc::clone(&plan);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.closed.load(Ordering::Relaxed) {
                    break;
                }
                let plan = Arc::clone(&serving);
                // A client that disconnects ends only its own thread.
                thread::spawn(move || drop(serve(client, &plan)));
            }
        });
        Self { endpoint, plan }
    }

    /// The address for clients.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls so far, and those that failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.plan.calls.load(Ordering::Relaxed), self.plan.faults.load(Ordering::Relaxed))
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.plan.closed.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.endpoint.trim_start_matches("http://")));
    }
}

/// Handles one call and closes the connection.
fn serve(mut client: TcpStream, plan: &FaultPlan) -> Result<()> {
    let request = Message::read(&mut BufReader::new(client.try_clone()?))?;
    let fault = plan.draw();
    match fault {
        Some(Fault::Throttled) => return refuse(&mut client, "503 Slow Down", "SlowDown"),
        Some(Fault::Broken) => return refuse(&mut client, "500 Internal Server Error", "InternalError"),
        Some(Fault::RequestLost) => return client.shutdown(Shutdown::Both),
        Some(Fault::Silent) => {
            // Waits until the client closes the connection, or long after it should have.
            client.set_read_timeout(Some(Duration::from_mins(1)))?;
            return client.read(&mut [0]).map(drop);
        }
        Some(Fault::ResponseLost | Fault::Partial | Fault::Slow) | None => {}
    }
    let mut upstream = TcpStream::connect(&plan.upstream)?;
    upstream.write_all(request.closing().as_bytes())?;
    upstream.write_all(&request.body)?;
    let mut response = Vec::new();
    upstream.read_to_end(&mut response)?;
    match fault {
        Some(Fault::ResponseLost) => client.shutdown(Shutdown::Both),
        Some(Fault::Partial) => {
            client.write_all(&response[..response.len() - response.len().min(400) / 2])?;
            client.shutdown(Shutdown::Both)
        }
        Some(Fault::Slow) => {
            for part in response.chunks(response.len().div_ceil(8).max(1)) {
                client.write_all(part)?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        _ => client.write_all(&response),
    }
}

fn refuse(client: &mut TcpStream, status: &str, code: &str) -> Result<()> {
    let body = format!("<Error><Code>{code}</Code><Message>a fault of the test</Message></Error>");
    let length = body.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

impl Message {
    fn read(stream: &mut impl BufRead) -> Result<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Err(Error::from(ErrorKind::UnexpectedEof));
            }
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        Ok(Self { head, body })
    }

    /// The head of the call, with a request to close the connection after the response.
    fn closing(&self) -> String {
        let kept = self.head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let lines: Vec<&str> = kept.chain(["Connection: close"]).collect();
        format!("{}\r\n\r\n", lines.join("\r\n"))
    }
}
