//! A `polylance serve` process that ends with its test, and raw HTTP requests to it.

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

use crate::{polylance, polylance_command, repository};

/// Loading a model on a busy machine can take minutes.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// Embeds the Declaration of Human Rights in three languages, builds a full-text index, and returns the table.
pub fn embed_declaration(folder: &Path) -> String {
    let table = folder.join("udhr.lance").display().to_string();
    let source = "builtin:udhr?codes=eng,fra,jpn";
    let _ = polylance(&["embed", "--source", source, "--table", &table, "--keep", "lang,article"]).exits_with(0);
    let _ = polylance(&["index", "words", "--table", &table]).exits_with(0);
    table
}

/// A server of tables on a free port.
#[derive(Debug)]
pub struct TestServer {
    child: Child,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// The Flight SQL address, if it is served.
    pub flight: Option<String>,
    stderr: Option<JoinHandle<String>>,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Response {
    /// The status; 0 when the connection ended without one.
    pub status: u16,
    /// Head and body as received.
    pub text: String,
}

impl Response {
    /// The body.
    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.body()).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }
}

impl TestServer {
    /// Starts a server on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = polylance_command()
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
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let mut address = String::new();
            for line in messages.lines().map_while(Result::ok) {
                let flight = line.split_once("Flight SQL on ").map(|(_, url)| url.to_owned());
                if let Some((_, own)) = line.split_once("listening on ").and_then(|(_, url)| url.split_once("://")) {
                    own.clone_into(&mut address);
                }
                if !address.is_empty() && flight.is_some() == speaks_flight {
                    let _gone = found.send((std::mem::take(&mut address), flight));
                }
                text.push_str(&line);
                text.push('\n');
            }
            text
        });
        let mut served = Self { child, address: String::new(), flight: None, stderr: Some(stderr) };
        match addresses.recv_timeout(START_TIMEOUT) {
            Ok((address, flight)) => (served.address, served.flight) = (address, flight),
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                panic!("the server does not listen:\n{}", served.stop("KILL").1)
            }
        }
        served
    }

    /// The address for a browser.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sends a request and reads to the end of the connection.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
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
    pub fn post(&self, path: &str, token: Option<&str>, body: &str) -> Response {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(authorization.as_deref().map(|authorization| ("Authorization", authorization)));
        self.send("POST", path, &headers, body.as_bytes())
    }

    /// A GET.
    pub fn get(&self, path: &str, token: Option<&str>) -> Response {
        let authorization = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> =
            authorization.as_deref().map(|authorization| ("Authorization", authorization)).into_iter().collect();
        self.send("GET", path, &headers, b"")
    }

    /// Writes bytes and reads until the server ends the connection.
    pub fn raw(&self, bytes: &[u8]) -> Response {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(START_TIMEOUT)).unwrap();
        // A server may close the connection before everything is written, and its response may be lost with that.
        let _closed = stream.write_all(bytes);
        read_response(stream)
    }

    /// Sends a signal, waits, and returns the exit code and everything on stderr.
    pub fn stop(&mut self, signal: &str) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        let code = self.child.wait().unwrap().code();
        (code, self.stderr.take().map(|stderr| stderr.join().unwrap()).unwrap_or_default())
    }
}

/// Reads a response to the end of the connection.
pub fn read_response(mut stream: TcpStream) -> Response {
    let mut bytes = Vec::new();
    let mut part = [0; 1 << 14];
    while let Ok(read @ 1..) = stream.read(&mut part) {
        bytes.extend_from_slice(&part[..read]);
    }
    let _gone = stream.shutdown(Shutdown::Both);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|text| text.get(..3)?.parse().ok()).unwrap_or(0);
    Response { status, text }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}
