//! A stand-in for the Hugging Face hub: datasets with commits, a listing in pages, large files on another server that
//! refuses the user's token, and pushes.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// The token that the hub accepts.
pub const HUB_TOKEN: &str = "hf_the_right_token";

/// Entries in one page of a listing.
const PAGE_ENTRIES: usize = 3;
/// Files of this size and more are large ones.
const LARGE_BYTES: usize = 600;
/// The bytes of a part of an upload.
const PART_BYTES: usize = 4096;

type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Default)]
struct Dataset {
    private: bool,
    /// The newest last.
    commits: Vec<Files>,
}

#[derive(Debug, Default)]
struct State {
    datasets: BTreeMap<String, Dataset>,
    /// Contents of the storage for large files, by SHA-256.
    large: BTreeMap<String, Vec<u8>>,
    /// Parts of uploads that are not complete.
    parts: BTreeMap<String, Vec<u8>>,
    requests: Vec<String>,
    /// Commits whose response is an error of a gateway.
    unconfirmed: usize,
    /// Responses that come before the next proper ones.
    failures: VecDeque<(&'static str, Option<(&'static str, String)>)>,
}

/// A hub on a free port, with its storage for large files on another one.
#[derive(Debug, Clone)]
pub struct TestHub {
    state: Arc<Mutex<State>>,
    /// `http://127.0.0.1:PORT`.
    pub endpoint: String,
    storage: String,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Response {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    fn json(value: &Value) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body: value.to_string().into_bytes() }
    }

    fn error(status: &'static str, code: &str) -> Self {
        Self { status, headers: vec![("X-Error-Code", code.to_owned())], body: Vec::new() }
    }
}

impl TestHub {
    /// Starts a hub without datasets.
    pub fn start() -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (hub, storage) = (listen(), listen());
        let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("a bound port"));
        let this = Self { state: Arc::default(), endpoint: address(&hub), storage: address(&storage) };
        for (listener, handler) in [
            (hub, Self::hub as fn(&Self, Request) -> Response),
            (storage, Self::storage as fn(&Self, Request) -> Response),
        ] {
            let this = this.clone();
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let this = this.clone();
                    thread::spawn(move || serve(stream, |request| handler(&this, request)));
                }
            });
        }
        this
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no handler panics")
    }

    /// Adds a commit that adds or replaces these files of a dataset, and returns its hash.
    pub fn commit(&self, dataset: &str, files: &[(&str, Vec<u8>)]) -> String {
        let mut state = self.state();
        let commits = &mut state.datasets.entry(dataset.to_owned()).or_default().commits;
        let mut next = commits.last().cloned().unwrap_or_default();
        next.extend(files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())));
        commits.push(next);
        commit_hash(commits.len())
    }

    /// Shows a dataset to the right token only.
    pub fn make_private(&self, dataset: &str) {
        self.state().datasets.entry(dataset.to_owned()).or_default().private = true;
    }

    /// Whether a dataset exists and is private.
    pub fn is_private(&self, dataset: &str) -> bool {
        self.state().datasets.get(dataset).is_some_and(|dataset| dataset.private)
    }

    /// The files of a dataset's newest commit, and the number of commits.
    pub fn files(&self, dataset: &str) -> (Files, usize) {
        let state = self.state();
        let commits = state.datasets.get(dataset).map(|dataset| dataset.commits.as_slice()).unwrap_or_default();
        (commits.last().cloned().unwrap_or_default(), commits.len())
    }

    /// The hub responds with this status, and a wait in seconds, to its next request.
    pub fn fail_next(&self, status: &'static str, retry_after: Option<u32>) {
        let header = retry_after.map(|seconds| ("Retry-After", seconds.to_string()));
        self.state().failures.push_back((status, header));
    }

    /// The next commit is made, and a gateway loses the response.
    pub fn lose_next_commit(&self) {
        self.state().unconfirmed += 1;
    }

    /// The requests since the last call: method and path.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state().requests)
    }

    /// The variables of a user of this hub, with a token or without.
    pub fn variables<'a>(&'a self, home: &'a str, token: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let mut variables = vec![("HF_ENDPOINT", self.endpoint.as_str()), ("HF_HUB_OFFLINE", "0"), ("HF_HOME", home)];
        variables.push(("HF_TOKEN", token.unwrap_or_default()));
        variables
    }

    fn hub(&self, request: Request) -> Response {
        self.state().requests.push(format!("{} {}", request.method, request.path));
        if let Some((status, header)) = self.state().failures.pop_front() {
            return Response { status, headers: header.into_iter().collect(), body: Vec::new() };
        }
        let sent = request.headers.get("authorization").map(String::as_str);
        let right = format!("Bearer {HUB_TOKEN}");
        if sent.is_some_and(|token| token != right) {
            return Response::error("401 Unauthorized", "");
        }
        let has_token = sent.is_some();
        let parts: Vec<String> = request.path.split('/').skip(1).map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("POST", ["api", "repos", "create"]) if has_token => {
                let body: Value = serde_json::from_slice(&request.body).expect("a JSON body");
                let name = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
                let dataset = Dataset {
                    private: body["private"] == json!(true),
                    commits: vec![BTreeMap::from([(".gitattributes".to_owned(), b"*.bin".to_vec())])],
                };
                self.state().datasets.insert(format!("{}/{}", name("organization"), name("name")), dataset);
                Response::json(&json!({ "url": "" }))
            }
            ("POST", ["api", "verify"]) if has_token => Response::json(&json!({})),
            (method, ["api", "datasets", owner, name, action, rest @ ..]) => {
                let dataset = format!("{owner}/{name}");
                match self.refusal(&dataset, has_token) {
                    Some(refusal) => refusal,
                    None => self.api(method, &dataset, action, rest, &request),
                }
            }
            ("GET", ["datasets", owner, name, "resolve", commit, path @ ..]) => {
                let dataset = format!("{owner}/{name}");
                match self.refusal(&dataset, has_token) {
                    Some(refusal) => refusal,
                    None => self.resolve(&dataset, commit, &path.join("/"), &request),
                }
            }
            ("POST", ["datasets", _, _, "info", "lfs", "objects", "batch"]) if has_token => self.batch(&request),
            _ => Response::error("404 Not Found", ""),
        }
    }

    /// As the hub: without a token a missing dataset looks like a private one.
    fn refusal(&self, dataset: &str, has_token: bool) -> Option<Response> {
        match self.state().datasets.get(dataset) {
            Some(dataset) if has_token || !dataset.private => None,
            Some(_) | None if !has_token => Some(Response::error("401 Unauthorized", "RepoNotFound")),
            _ => Some(Response::error("404 Not Found", "RepoNotFound")),
        }
    }

    fn at(&self, dataset: &str, revision: &str) -> Option<(Files, String)> {
        let state = self.state();
        let commits = &state.datasets.get(dataset)?.commits;
        let number = match revision {
            "main" => commits.len(),
            _ => (1..=commits.len()).find(|number| commit_hash(*number) == revision)?,
        };
        Some((commits.get(number.checked_sub(1)?)?.clone(), commit_hash(number)))
    }

    fn api(&self, method: &str, dataset: &str, action: &str, rest: &[&str], request: &Request) -> Response {
        let Some((revision, rest)) = rest.split_first() else { return Response::error("404 Not Found", "") };
        let Some((files, hash)) = self.at(dataset, revision) else {
            return Response::error("404 Not Found", "RevisionNotFound");
        };
        match (method, action) {
            ("GET", "revision") => {
                Response::json(&json!({ "id": dataset, "sha": hash, "private": self.is_private(dataset) }))
            }
            ("GET", "tree") => Self::tree(&files, &rest.join("/"), request),
            ("POST", "paths-info") => {
                let body: Value = serde_json::from_slice(&request.body).expect("a JSON body");
                let paths = body["paths"].as_array().cloned().unwrap_or_default();
                let paths: BTreeSet<&str> = paths.iter().filter_map(Value::as_str).collect();
                let found = entries(&files, "").into_iter();
                let found = found.filter(|entry| entry["path"].as_str().is_some_and(|path| paths.contains(path)));
                Response::json(&found.collect())
            }
            ("POST", "preupload") => {
                let body: Value = serde_json::from_slice(&request.body).expect("a JSON body");
                let mode = |file: &Value| {
                    let large = file["size"].as_u64() >= Some(LARGE_BYTES as u64);
                    json!({
                        "path": file["path"],
                        "uploadMode": if large { "lfs" } else { "regular" },
                        "shouldIgnore": false,
                    })
                };
                let files: Vec<Value> = body["files"].as_array().into_iter().flatten().map(mode).collect();
                Response::json(&json!({ "files": files }))
            }
            ("POST", "commit") => self.push(dataset, files, &hash, &request.body),
            _ => Response::error("404 Not Found", ""),
        }
    }

    fn tree(files: &Files, folder: &str, request: &Request) -> Response {
        let entries = entries(files, folder);
        if entries.is_empty() && !folder.is_empty() {
            return Response::error("404 Not Found", "EntryNotFound");
        }
        let first = request.query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok());
        let first: usize = first.unwrap_or_default();
        let last = entries.len().min(first + PAGE_ENTRIES);
        let mut response = Response::json(&json!(entries[first..last]));
        if last < entries.len() {
            let link = format!("<https://hub.invalid{}?recursive=true&cursor={last}>; rel=\"next\"", request.path);
            response.headers.push(("Link", link));
        }
        response
    }

    fn resolve(&self, dataset: &str, commit: &str, path: &str, request: &Request) -> Response {
        let Some((files, _)) = self.at(dataset, commit) else {
            return Response::error("404 Not Found", "RevisionNotFound");
        };
        match files.get(path) {
            None => Response::error("404 Not Found", "EntryNotFound"),
            Some(bytes) if bytes.len() < LARGE_BYTES => ranged(bytes, request),
            Some(bytes) => {
                let hash = sha256(bytes);
                self.state().large.insert(hash.clone(), bytes.clone());
                let location = format!("{}/objects/{hash}?signature=secret", self.storage);
                Response { status: "302 Found", headers: vec![("Location", location)], body: Vec::new() }
            }
        }
    }

    fn batch(&self, request: &Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).expect("a JSON body");
        let state = self.state();
        let object = |object: &Value| {
            let hash = object["oid"].as_str().unwrap_or_default();
            if state.large.contains_key(hash) {
                return json!({ "oid": hash, "size": object["size"] });
            }
            let size = object["size"].as_u64().unwrap_or_default() as usize;
            let verify = json!({ "href": "https://hub.invalid/api/verify" });
            let upload = if size <= PART_BYTES {
                json!({ "href": format!("{}/objects/{hash}?signature=secret", self.storage) })
            } else {
                let part = |number: usize| {
                    let url = format!("{}/parts/{hash}/{number:05}?signature=secret", self.storage);
                    (format!("{number:05}"), json!(url))
                };
                let mut header: serde_json::Map<String, Value> = (1..=size.div_ceil(PART_BYTES)).map(part).collect();
                header.insert("chunk_size".to_owned(), json!(PART_BYTES.to_string()));
                json!({ "href": format!("{}/complete/{hash}?signature=secret", self.storage), "header": header })
            };
            json!({ "oid": hash, "size": size, "actions": { "upload": upload, "verify": verify } })
        };
        let objects: Vec<Value> = body["objects"].as_array().into_iter().flatten().map(object).collect();
        Response::json(&json!({ "transfer": "multipart", "objects": objects }))
    }

    fn push(&self, dataset: &str, mut files: Files, newest: &str, body: &[u8]) -> Response {
        let mut state = self.state();
        for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line).expect("lines of JSON");
            let value = &line["value"];
            let path = value["path"].as_str().unwrap_or_default().to_owned();
            match line["key"].as_str() {
                Some("header") if value["parentCommit"] == json!(newest) => {}
                Some("header") => return Response::error("412 Precondition Failed", ""),
                Some("file") => {
                    let content = value["content"].as_str().expect("a content");
                    files.insert(path, BASE64_STANDARD.decode(content).expect("base64"));
                }
                Some("lfsFile") => {
                    let Some(bytes) = value["oid"].as_str().and_then(|hash| state.large.get(hash)) else {
                        return Response::error("400 Bad Request", "");
                    };
                    files.insert(path, bytes.clone());
                }
                Some("deletedFile") => drop(files.remove(&path)),
                _ => return Response::error("400 Bad Request", ""),
            }
        }
        let commits = &mut state.datasets.get_mut(dataset).expect("the dataset exists").commits;
        commits.push(files);
        let hash = commit_hash(commits.len());
        if let Some(rest) = state.unconfirmed.checked_sub(1) {
            state.unconfirmed = rest;
            return Response::error("504 Gateway Timeout", "");
        }
        Response::json(&json!({ "success": true, "commitOid": hash, "commitUrl": "" }))
    }

    /// Large files: addresses are signed, and a request with a token is refused.
    fn storage(&self, request: Request) -> Response {
        let mut state = self.state();
        state.requests.push(format!("{} storage{}", request.method, request.path));
        if request.headers.contains_key("authorization") || request.query != "signature=secret" {
            return Response::error("400 Bad Request", "");
        }
        let parts: Vec<&str> = request.path.split('/').skip(1).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["objects", hash]) => match state.large.get(*hash) {
                Some(bytes) => ranged(bytes, &request),
                None => Response::error("404 Not Found", ""),
            },
            ("PUT", ["objects", hash]) if sha256(&request.body) == *hash => {
                state.large.insert((*hash).to_owned(), request.body);
                Response::json(&json!({}))
            }
            ("PUT", ["parts", hash, number]) => {
                let tag = format!("\"{}\"", sha256(&request.body));
                state.parts.insert(format!("{hash}/{number}"), request.body);
                Response { headers: vec![("ETag", tag)], ..Response::json(&json!({})) }
            }
            ("POST", ["complete", hash]) => {
                let body: Value = serde_json::from_slice(&request.body).expect("a JSON body");
                let mut whole = Vec::new();
                for part in body["parts"].as_array().into_iter().flatten() {
                    let number = part["partNumber"].as_u64().expect("a number");
                    let bytes = state.parts.get(&format!("{hash}/{number:05}")).cloned().unwrap_or_default();
                    assert_eq!(part["etag"], json!(format!("\"{}\"", sha256(&bytes))));
                    whole.extend(bytes);
                }
                if sha256(&whole) != *hash {
                    return Response::error("400 Bad Request", "");
                }
                state.large.insert((*hash).to_owned(), whole);
                Response::json(&json!({}))
            }
            _ => Response::error("400 Bad Request", ""),
        }
    }
}

/// Serves one connection.
fn serve(mut stream: TcpStream, handler: impl Fn(Request) -> Response) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let mut words = line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let request = Request { method, path: path.to_owned(), query: query.to_owned(), headers, body };
    let response = handler(request);
    let mut head = format!("HTTP/1.1 {}\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.extend(["Content-Length: ", &response.body.len().to_string(), "\r\n\r\n"]);
    // A client may close the connection early.
    let _sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&response.body));
}

/// The bytes of a file, or those of the requested range.
fn ranged(bytes: &[u8], request: &Request) -> Response {
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else {
        return Response { status: "200 OK", headers: Vec::new(), body: bytes.to_vec() };
    };
    let first: usize = first.parse().expect("a range with a beginning");
    if first >= bytes.len() {
        return Response::error("416 Range Not Satisfiable", "");
    }
    let last = last.parse::<usize>().unwrap_or(usize::MAX).min(bytes.len() - 1);
    let header = ("Content-Range", format!("bytes {first}-{last}/{}", bytes.len()));
    Response { status: "206 Partial Content", headers: vec![header], body: bytes[first..=last].to_vec() }
}

/// The entries below a folder, folders included, as the hub lists them.
fn entries(files: &Files, folder: &str) -> Vec<Value> {
    let base = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut entries = BTreeMap::new();
    for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with(&base)) {
        for (at, _) in path.match_indices('/').filter(|(at, _)| *at >= base.len()) {
            let folder = &path[..at];
            entries.insert(folder, json!({ "type": "directory", "oid": "0", "size": 0, "path": folder }));
        }
        let mut entry = json!({ "type": "file", "oid": git_hash(bytes), "size": bytes.len(), "path": path });
        if bytes.len() >= LARGE_BYTES {
            entry["lfs"] = json!({ "oid": sha256(bytes), "size": bytes.len(), "pointerSize": 130 });
        }
        entries.insert(path, entry);
    }
    entries.into_values().collect()
}

fn commit_hash(number: usize) -> String {
    format!("{number:040x}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn git_hash(bytes: &[u8]) -> String {
    let mut blob = Sha1::new();
    blob.update(format!("blob {}\0", bytes.len()));
    blob.update(bytes);
    hexadecimal(&blob.finalize())
}

/// A part of a path without its percent signs.
fn decoded(part: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let [first, after @ ..] = rest {
        let code = (*first == b'%').then(|| after.get(..2)).flatten();
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).expect("UTF-8")
}
