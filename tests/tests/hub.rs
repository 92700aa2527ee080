//! A model by its hub name: fetched over HTTP from a stand-in for the hub, then found in the cache without it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
};

use polylance_tests::{TinyModel, polylance_with};

const NAMES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// Serves a folder as `org/tiny` with the hub's paths and headers; returns its address.
fn serve(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            answer(stream.unwrap(), &folder);
        }
    });
    endpoint
}

fn answer(mut stream: TcpStream, folder: &Path) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-'));

    let (status, extra, body) = if path.starts_with("/api/models/org/tiny") {
        let siblings: Vec<_> = NAMES.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        ("200 OK", String::new(), serde_json::json!({"siblings": siblings, "sha": "c0ffee"}).to_string().into_bytes())
    } else if let Some(name) = path.strip_prefix("/org/tiny/resolve/main/")
        && let Ok(bytes) = fs::read(folder.join(name))
    {
        let (first, last) = range.unwrap_or(("0", ""));
        let first: usize = first.parse().unwrap();
        let last = last.parse::<usize>().unwrap_or(usize::MAX).min(bytes.len() - 1);
        let headers = format!(
            "X-Repo-Commit: c0ffee\r\nETag: \"{name}-1\"\r\nContent-Range: bytes {first}-{last}/{}\r\n",
            bytes.len()
        );
        ("206 Partial Content", headers, bytes[first..=last].to_vec())
    } else {
        ("404 Not Found", String::new(), Vec::new())
    };
    let head = format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body).unwrap();
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_network() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel::Whole.write(&folder.path().join("hub"));
    let endpoint = serve(folder.path().join("hub"));
    let home = folder.path().join("home").display().to_string();
    let check = ["model", "check", "org/tiny", "--json"];

    let nowhere = [("HF_HOME", home.as_str()), ("HF_HUB_OFFLINE", "1")];
    let _ = polylance_with(&check, &nowhere, b"").exits_with(2).says(&["org/tiny", "HF_HUB_OFFLINE"]);

    let online = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let fetched = polylance_with(&check, &online, b"").exits_with(0);
    assert_eq!(polylance_with(&check, &nowhere, b"").exits_with(0).stdout, fetched.stdout);

    let unreachable = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", "0")];
    let _ = polylance_with(&check, &unreachable, b"").exits_with(0).says(&["using the cache"]);
}
