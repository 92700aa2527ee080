//! Models by their hub names: downloaded over HTTP from a fake hub, then found in the cache without it.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread,
};

use polylance_tests::{TinyModel, polylance_with};

const NAMES: [&str; 3] = ["config.json", "tokenizer.json", "model.safetensors"];

/// The etag of a file.
type Etag = fn(&str) -> String;

/// A fake hub.
struct Hub {
    folder: PathBuf,
    names: Vec<&'static str>,
    etag: Etag,
    commit: &'static str,
}

impl Hub {
    fn new(folder: PathBuf) -> Self {
        Self { folder, names: NAMES.to_vec(), etag: |name| format!("{name}-1"), commit: "c0ffee" }
    }

    /// Serves the folder as `org/tiny` with the hub's paths and headers; returns its address.
    fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &self);
            }
        });
        endpoint
    }
}

fn answer(mut stream: TcpStream, hub: &Hub) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
    let range = headers.iter().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-'));

    let (status, extra, body) = if path.starts_with("/api/models/org/tiny") {
        let siblings: Vec<_> = hub.names.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        ("200 OK", String::new(), serde_json::json!({"siblings": siblings, "sha": "c0ffee"}).to_string().into_bytes())
    } else if let Some(name) = path.strip_prefix("/org/tiny/resolve/main/")
        && let Ok(bytes) = fs::read(hub.folder.join(name))
    {
        let (first, last) = range.unwrap_or(("0", ""));
        let first: usize = first.parse().unwrap();
        let last = last.parse::<usize>().unwrap_or(usize::MAX).min(bytes.len() - 1);
        let headers = format!(
            "X-Repo-Commit: {}\r\nETag: \"{}\"\r\nContent-Range: bytes {first}-{last}/{}\r\n",
            hub.commit,
            (hub.etag)(name),
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
fn cached_model_needs_no_network() {
    let folder = tempfile::tempdir().unwrap();
    TinyModel::Whole.write(&folder.path().join("hub"));
    let endpoint = Hub::new(folder.path().join("hub")).serve();
    let home = folder.path().join("home").display().to_string();
    let check = ["model", "check", "org/tiny", "--json"];

    let nowhere = [("HF_HOME", home.as_str()), ("HF_HUB_OFFLINE", "1")];
    let _ = polylance_with(&check, &nowhere, b"").exits_with(2).stderr_contains(&["org/tiny", "HF_HUB_OFFLINE"]);

    let online = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
    let fetched = polylance_with(&check, &online, b"").exits_with(0);
    assert_eq!(polylance_with(&check, &nowhere, b"").exits_with(0).stdout, fetched.stdout);

    let unreachable = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", "http://127.0.0.1:9"), ("HF_HUB_OFFLINE", "0")];
    let _ = polylance_with(&check, &unreachable, b"").exits_with(0).stderr_contains(&["using the cache"]);
}

#[test]
fn all_files_of_a_model_come_from_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let files = folder.path().join("hub");
    TinyModel::Whole.write(&files);
    let home = folder.path().join("home").display().to_string();
    let check = |hub: Hub| {
        let endpoint = hub.serve();
        let env = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
        let _ = polylance_with(&["model", "check", "org/tiny"], &env, b"").exits_with(0);
    };
    check(Hub::new(files.clone()));
    fs::write(files.join("tokenizer_config.json"), "{}").unwrap();
    let names = [&NAMES[..], &["tokenizer_config.json"]].concat();
    check(Hub { names: names.clone(), commit: "c0ffee2", ..Hub::new(files) });
    let newer = folder.path().join("home/hub/models--org--tiny/snapshots/c0ffee2");
    for name in names {
        assert!(newer.join(name).is_file(), "{name}");
    }
}

#[test]
fn table_model_is_not_loaded_unless_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    TinyModel::Whole.write(&folder.path().join("hub"));
    fs::write(place("docs.jsonl"), "{\"id\": \"1\", \"text\": \"everyone has the right to rest\"}\n").unwrap();
    let endpoint = Hub::new(folder.path().join("hub")).serve();
    let (docs, table, home) = (place("docs.jsonl"), place("docs.lance"), place("home"));
    let (author, user) = (place("author"), place("user"));
    let env = |home, state| {
        let online = [("HF_HOME", home), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
        [&online[..], &[("XDG_STATE_HOME", state)]].concat()
    };
    let of = |state| env(home.as_str(), state);
    let embed = ["embed", "--source", &docs, "--table", &table, "--model", "org/tiny"];
    let _ = polylance_with(&embed, &of(&author), b"").exits_with(0);
    let search = ["search", "--table", &table, "rest"];
    let _ = polylance_with(&search, &of(&author), b"").exits_with(0);

    // Another user, whose cache is empty: the model would be downloaded.
    let empty = place("empty");
    let stranger = env(empty.as_str(), user.as_str());
    for command in [
        search.to_vec(),
        vec!["sql", "--table", &table, "SELECT embed('rest')"],
        vec!["serve", "--table", &table, "--listen", "127.0.0.1:0"],
    ] {
        let _ = polylance_with(&command, &stranger, b"")
            .exits_with(2)
            .stderr_contains(&["org/tiny", "--trust-table-model"]);
    }
    assert!(!folder.path().join("empty").exists(), "something was downloaded");
    let trusting = [&search[..], &["--trust-table-model"]].concat();
    let _ = polylance_with(&trusting, &stranger, b"").exits_with(0);
    // From now on this user has used the model.
    let _ = polylance_with(&search, &stranger, b"").exits_with(0);
}

#[test]
fn hostile_hub_paths_stay_inside_the_cache() {
    let hostile: [(Etag, &str); 3] = [
        (|_| "../../../../pwned".to_owned(), "config.json"),
        (|_| "/tmp/polylance-pwned".to_owned(), "config.json"),
        (|name| format!("{}-1", name.replace('/', "-")), "../../pwned_Pooling/config.json"),
    ];
    for (etag, name) in hostile {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("a/b/c");
        TinyModel::Whole.write(&inside.join("hub"));
        let names = [&NAMES[..], &[name]].concat();
        let endpoint = Hub { names, etag, ..Hub::new(inside.join("hub")) }.serve();
        let home = inside.join("home").display().to_string();
        let env = [("HF_HOME", home.as_str()), ("HF_ENDPOINT", endpoint.as_str()), ("HF_HUB_OFFLINE", "0")];
        let _ = polylance_with(&["model", "check", "org/tiny"], &env, b"").exits_with(1).stderr_contains(&["the hub"]);
        let outside = fs::read_dir(folder.path()).unwrap().chain(fs::read_dir(folder.path().join("a")).unwrap());
        let names: Vec<_> = outside.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(!std::path::Path::new("/tmp/polylance-pwned").exists());
    }
}
