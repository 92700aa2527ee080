//! A `polylance serve` that ends with its test, and requests as they go over the wire.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::Value;

use crate::{polylance, program, repository};

/// Loading a model on a busy machine takes its time.
const START: Duration = Duration::from_mins(5);

/// The Declaration of Human Rights in three languages, with its words indexed.
pub fn declaration(folder: &Path) -> String {
    let table = folder.join("udhr.lance").display().to_string();
    let source = "builtin:udhr?codes=eng,fra,jpn";
    let _ = polylance(&["embed", "--source", source, "--table", &table, "--keep", "lang,article"]).exits_with(0);
    let _ = polylance(&["index", "words", "--table", &table]).exits_with(0);
    table
}

/// A server of tables on a free port.
#[derive(Debug)]
pub struct Served {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// Where Flight SQL is spoken, as its clients write it, when it is.
    pub flight: Option<String>,
    said: Option<JoinHandle<String>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status; 0 when the connection ended without one.
    pub status: u16,
    /// The head and everything else, as it came.
    pub text: String,
}

impl Answer {
    /// What stands behind the head.
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }
}

impl Served {
    /// Serves on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = program()
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .current_dir(repository())
            .envs([("NO_COLOR", "1"), ("HF_HUB_OFFLINE", "1")])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let messages = BufReader::new(child.stderr.take().unwrap());
        let (found, addresses) = mpsc::channel();
        let speaks_flight = arguments.contains(&"--flight");
        // Reads to the end, so that the server can always write.
        let said = thread::spawn(move || {
            let mut said = String::new();
            let mut address = String::new();
            for line in messages.lines().map_while(Result::ok) {
                let flight = line.split_once("Flight SQL on ").map(|(_, url)| url.to_owned());
                if let Some((_, own)) = line.split_once("listening on ").and_then(|(_, url)| url.split_once("://")) {
                    own.clone_into(&mut address);
                }
                if !address.is_empty() && flight.is_some() == speaks_flight {
                    let _gone = found.send((std::mem::take(&mut address), flight));
                }
                said.push_str(&line);
                said.push('\n');
            }
            said
        });
        let mut served = Self { child, address: String::new(), flight: None, said: Some(said) };
        match addresses.recv_timeout(START) {
            Ok((address, flight)) => (served.address, served.flight) = (address, flight),
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                panic!("the server does not listen:\n{}", served.stop("KILL").1)
            }
        }
        served
    }

    /// As a browser writes it.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sends a request and reads to the end of the connection.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for (name, value) in headers {
            request.extend([name, ": ", value, "\r\n"]);
        }
        if !body.is_empty() || method == "POST" {
            request.extend(["Content-Length: ", &body.len().to_string(), "\r\n"]);
        }
        request.push_str("\r\n");
        self.raw(&[request.as_bytes(), body].concat())
    }

    /// A POST of JSON with a token, or without one.
    pub fn post(&self, path: &str, token: Option<&str>, body: &str) -> Answer {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(authorization.as_deref().map(|authorization| ("Authorization", authorization)));
        self.send("POST", path, &headers, body.as_bytes())
    }

    /// A GET.
    pub fn get(&self, path: &str, token: Option<&str>) -> Answer {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            authorization.as_deref().map(|authorization| ("Authorization", authorization)).into_iter().collect();
        self.send("GET", path, &headers, b"")
    }

    /// Writes bytes and reads until the server ends the connection.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(START)).unwrap();
        // A server that has seen enough closes while there is more to write, and its answer may be lost with that.
        let _closed = stream.write_all(bytes);
        read_to_end(stream)
    }

    /// Sends a signal and waits: the exit code, and everything that was said.
    pub fn stop(&mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        let code = self.child.wait().unwrap().code();
        (code, self.said.take().map(|said| said.join().unwrap()).unwrap_or_default())
    }
}

/// Reads to the end of the connection.
pub fn read_to_end(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut part = [0; 1 << 14];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        bytes.extend_from_slice(&part[..read]);
    }
    let _gone = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)?.parse().ok()).unwrap_or(0);
    Answer { status, text }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
