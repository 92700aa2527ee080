//! A proxy before an HTTP store that loses, delays and breaks calls, decided by a seed.

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

/// What can happen to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// 503: slow down.
    Throttled,
    /// 500.
    Broken,
    /// The connection is reset before the store hears of the call.
    Lost,
    /// The store does what it is told, and the answer is lost.
    Unanswered,
    /// The answer breaks off in its middle.
    Partial,
    /// The answer comes a few bytes at a time.
    Slow,
    /// No answer until the client gives up.
    Silent,
}

const FAULTS: [Fault; 7] =
    [Fault::Throttled, Fault::Broken, Fault::Lost, Fault::Unanswered, Fault::Partial, Fault::Slow, Fault::Silent];

/// The running proxy; it takes no more calls when dropped.
#[derive(Debug)]
pub struct FaultProxy {
    endpoint: String,
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    upstream: String,
    /// Of 1000 calls.
    rate: u64,
    state: Mutex<u64>,
    calls: AtomicU64,
    faults: AtomicU64,
    closed: AtomicBool,
}

impl Plan {
    /// What happens to the next call.
    fn draw(&self) -> Option<Fault> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state.lock().expect("no thread panics with the lock");
        let mut next = |below: u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) % below
        };
        if next(1000) >= self.rate {
            return None;
        }
        self.faults.fetch_add(1, Ordering::Relaxed);
        FAULTS.get(next(FAULTS.len() as u64) as usize).copied()
    }
}

/// One request or answer.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl FaultProxy {
    /// Stands before the store at `upstream` (`http://host:port`); `rate` of 1000 calls go wrong.
    pub fn start(upstream: &str, rate: u64, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let plan = Arc::new(Plan {
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
                // A client that goes away ends its own thread only.
                thread::spawn(move || drop(serve(client, &plan)));
            }
        });
        Self { endpoint, plan }
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Calls so far, and those that went wrong.
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

/// Answers one call and closes the connection.
fn serve(mut client: TcpStream, plan: &Plan) -> Result<()> {
    let request = Message::read(&mut BufReader::new(client.try_clone()?))?;
    let fault = plan.draw();
    match fault {
        Some(Fault::Throttled) => return refuse(&mut client, "503 Slow Down", "SlowDown"),
        Some(Fault::Broken) => return refuse(&mut client, "500 Internal Server Error", "InternalError"),
        Some(Fault::Lost) => return client.shutdown(Shutdown::Both),
        Some(Fault::Silent) => {
            // Until the client closes the connection, or long after it should have.
            client.set_read_timeout(Some(Duration::from_mins(1)))?;
            return client.read(&mut [0]).map(drop);
        }
        Some(Fault::Unanswered | Fault::Partial | Fault::Slow) | None => {}
    }
    let mut upstream = TcpStream::connect(&plan.upstream)?;
    upstream.write_all(request.closing().as_bytes())?;
    upstream.write_all(&request.body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::Unanswered) => client.shutdown(Shutdown::Both),
        Some(Fault::Partial) => {
            client.write_all(&answer[..answer.len() - answer.len().min(400) / 2])?;
            client.shutdown(Shutdown::Both)
        }
        Some(Fault::Slow) => {
            for part in answer.chunks(answer.len().div_ceil(8).max(1)) {
                client.write_all(part)?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        _ => client.write_all(&answer),
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

    /// The head of a call that asks for the connection to be closed after the answer.
    fn closing(&self) -> String {
        let kept = self.head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
        let lines: Vec<&str> = kept.chain(["Connection: close"]).collect();
        format!("{}\r\n\r\n", lines.join("\r\n"))
    }
}
