//! The Hugging Face hub. Models by their names: downloaded over HTTP from a fake hub, then found in the cache without it.
//! Datasets as sources, tables in datasets, and pushes, against a stand-in with the hub's interface.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    thread,
};

use polylance_tests::{HUB_TOKEN, Outcome, Row, TestHub, TinyModel, polylance_with, write_parquet};
use serde_json::{Value, json};

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

/// A Parquet file of `count` documents, large enough to be a large file of the hub.
fn parquet(prefix: &str, count: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let rows: Vec<Row> =
        (0..count).map(|n| Row::new(format!("{prefix}{n}"), format!("text {n} of {prefix}"))).collect();
    write_parquet(&path, &rows);
    fs::read(path).unwrap()
}

fn fields(object: &Value, names: [&str; 2]) -> Value {
    names.iter().map(|name| object[*name].clone()).collect()
}

/// A user of a stand-in for the hub.
struct User<'a> {
    hub: &'a TestHub,
    folder: tempfile::TempDir,
    token: Option<&'a str>,
}

impl<'a> User<'a> {
    fn new(hub: &'a TestHub, token: Option<&'a str>) -> Self {
        Self { hub, folder: tempfile::tempdir().unwrap(), token }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let home = self.path("home");
        let outcome = polylance_with(args, &self.hub.variables(&home, self.token), b"");
        let shown = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!shown.contains("hf_") && !shown.contains("signature="), "a secret is shown: {shown}");
        outcome
    }

    fn embed(&self, source: &str, table: &str) -> Outcome {
        self.run(&["embed", "--source", source, "--table", &self.path(table), "--json"])
    }
}

#[test]
fn dataset_is_read_in_ranges_and_only_where_it_changed() {
    let hub = TestHub::start();
    let files = [
        ("README.md", b"# News".to_vec()),
        ("data/a/1.parquet", parquet("a", 40)),
        ("data/b.parquet", parquet("b", 30)),
        ("data/a/_temporary.parquet", b"x".to_vec()),
        ("small/c d.jsonl", b"{\"id\": \"c\", \"text\": \"a small file\"}\n".to_vec()),
    ];
    hub.commit("org/news", &files);
    let user = User::new(&hub, Some(HUB_TOKEN));
    let glob = "hf://datasets/org/news/data/**/*.parquet";
    let first = user.embed(glob, "docs.lance").exits_with(0).json();
    assert_eq!(fields(&first, ["rows_written", "source_unchanged"]), json!([70, false]), "{first}");
    let requests = hub.requests();
    let count = |part: &str| requests.iter().filter(|request| request.contains(part)).count();
    assert!(count("/tree/") > 1, "the listing has pages: {requests:?}");
    assert!(count("GET storage/objects/") > 2, "{requests:?}");

    let second = user.embed(glob, "docs.lance").exits_with(0).json();
    assert_eq!(fields(&second, ["rows_written", "source_unchanged"]), json!([0, true]), "{second}");
    assert_eq!(second["bytes_read"], 0);
    // The types of the columns are those of the first file.
    assert!(!hub.requests().iter().any(|request| request.ends_with("/data/b.parquet")));

    hub.commit("org/news", &[("data/z.parquet", parquet("z", 20))]);
    let third = user.embed(glob, "docs.lance").exits_with(0).json();
    assert_eq!(fields(&third, ["rows_written", "files_unchanged"]), json!([20, 2]), "{third}");

    let whole = user.embed("hf://datasets/org/news", "whole.lance").exits_with(0).json();
    assert_eq!(fields(&whole, ["rows_written", "rows_quarantined"]), json!([91, 0]), "{whole}");
    let one = user.embed("hf://datasets/org/news/small/c d.jsonl", "one.lance").exits_with(0).json();
    assert_eq!(one["rows_written"], 1);
    let folder = user.embed("hf://datasets/org/news/data/a", "folder.lance").exits_with(0).json();
    assert_eq!(folder["rows_written"], 40);
}

#[test]
fn pinned_revision_stays_and_requests_to_a_busy_hub_are_repeated() {
    let hub = TestHub::start();
    let line = |id: &str| format!("{{\"id\": \"{id}\", \"text\": \"the text of {id}\"}}\n");
    let first = hub.commit("org/news", &[("x.jsonl", line("1").into_bytes())]);
    hub.commit("org/news", &[("x.jsonl", (line("1") + &line("2")).into_bytes())]);
    let user = User::new(&hub, None);
    hub.fail_next("429 Too Many Requests", Some(0));
    hub.fail_next("503 Service Unavailable", None);
    let pinned = user.embed(&format!("hf://datasets/org/news@{first}/x.jsonl"), "pinned.lance").exits_with(0);
    assert_eq!(pinned.json()["rows_written"], 1);
    let newest = user.embed("hf://datasets/org/news/*.jsonl", "newest.lance").exits_with(0);
    assert_eq!(newest.json()["rows_written"], 2);
}

#[test]
fn hub_errors_name_the_dataset_and_the_remedy() {
    let hub = TestHub::start();
    hub.commit("org/secret", &[("x.jsonl", b"{\"id\": \"1\", \"text\": \"one\"}\n".to_vec())]);
    hub.make_private("org/secret");
    let source = "hf://datasets/org/secret/x.jsonl";
    for token in [None, Some("hf_a_wrong_token")] {
        let user = User::new(&hub, token);
        let embedded = user.embed(source, "docs.lance").exits_with(2).stderr_contains(&["org/secret", "HF_TOKEN"]);
        assert_eq!(embedded.stderr.contains("set HF_TOKEN"), token.is_none(), "{}", embedded.stderr);
        let _ = user
            .run(&["show", "hf://datasets/org/secret/docs.lance"])
            .exits_with(2)
            .stderr_contains(&["org/secret", "HF_TOKEN"]);
    }
    let user = User::new(&hub, Some(HUB_TOKEN));
    let _ = user.embed(source, "docs.lance").exits_with(0);
    for (uri, parts) in [
        ("hf://datasets/org/missing", ["org/missing", "the hub has no dataset"]),
        ("hf://datasets/org/secret@v9/x.jsonl", ["org/secret", "no revision `v9`"]),
        ("hf://datasets/org/secret/y.jsonl", ["org/secret/y.jsonl", "no such file"]),
        ("hf://org/secret", ["hf://org/secret", "hf://datasets/OWNER/NAME"]),
    ] {
        let _ = user.embed(uri, "other.lance").exits_with(2).stderr_contains(&parts);
    }
    let home = user.path("home");
    let offline = [("HF_HUB_OFFLINE", "1"), ("HF_HOME", home.as_str())];
    let table = user.path("offline.lance");
    let _ = polylance_with(&["embed", "--source", source, "--table", &table], &offline, b"")
        .exits_with(2)
        .stderr_contains(&["org/secret", "HF_HUB_OFFLINE"]);
    let missing = user.run(&["show", "hf://datasets/org/secret/docs.lance"]).exits_with(2);
    let _ = missing.stderr_contains(&["no table at hf://datasets/org/secret/docs.lance"]);
}

#[test]
fn pushed_table_is_searched_by_another_user() {
    let hub = TestHub::start();
    let author = User::new(&hub, Some(HUB_TOKEN));
    let table = author.path("udhr.lance");
    let embed = |codes: &str| {
        let source = format!("builtin:udhr?codes={codes}");
        let _ = author.run(&["embed", "--source", &source, "--table", &table, "--keep", "lang"]).exits_with(0);
    };
    embed("eng");
    let _ = author.run(&["index", "words", "--table", &table]).exits_with(0);
    let target = "hf://datasets/org/rights";
    let _ = User::new(&hub, None)
        .run(&["push", &table, target])
        .exits_with(2)
        .stderr_contains(&["org/rights", "set HF_TOKEN"]);

    let first =
        author.run(&["push", &table, target, "--private", "--license", "cc0-1.0", "--json"]).exits_with(0).json();
    assert_eq!(fields(&first, ["created", "table"]), json!([true, "hf://datasets/org/rights/udhr.lance"]));
    assert!(hub.is_private("org/rights"));
    let (files, commits) = hub.files("org/rights");
    assert_eq!(commits, 2, "the hub's own and one of the push");
    assert_eq!(files.keys().filter(|path| path.contains("/_versions/")).count(), 1);
    assert!(files.contains_key(".gitattributes"));
    let card = String::from_utf8(files["README.md"].clone()).unwrap();
    for part in ["license: \"cc0-1.0\"", "- \"en\"", "multilingual-e5-small", "| dimensions | 384 |"] {
        assert!(card.contains(part), "{part} is missing in {card}");
    }
    assert!(
        hub.requests().iter().any(|request| request.contains("storage/complete/")),
        "large files are sent in parts"
    );

    let reader = User::new(&hub, Some(HUB_TOKEN));
    let remote = "hf://datasets/org/rights/udhr.lance";
    for mode in ["vector", "text", "hybrid"] {
        let search = ["search", "--mode", mode, "right to education", "-k", "3", "--json", "--table"];
        let found = |user: &User<'_>, table: &str| user.run(&[&search[..], &[table]].concat()).exits_with(0).stdout;
        assert_eq!(found(&reader, remote), found(&author, &table), "{mode}");
    }
    let count = ["sql", "--json", "SELECT count(*) AS n FROM udhr", "--table"];
    let rows = |user: &User<'_>, table: &str| user.run(&[&count[..], &[table]].concat()).exits_with(0).stdout;
    assert_eq!(rows(&reader, remote), rows(&author, &table));
    let _ = reader.run(&["show", remote]).exits_with(0);
    let _ = User::new(&hub, None).run(&["show", remote]).exits_with(2).stderr_contains(&["set HF_TOKEN"]);

    let again = author.run(&["push", &table, target, "--json"]).exits_with(0).json();
    assert_eq!(fields(&again, ["files_sent", "commit"]), json!([0, first["commit"]]), "{again}");
    embed("eng,fra");
    let pinned = format!("hf://datasets/org/rights@{}/udhr.lance", first["commit"].as_str().unwrap());
    let (before, _) = hub.files("org/rights");
    let next = author.run(&["push", &table, target, "--json"]).exits_with(0).json();
    let (after, _) = hub.files("org/rights");
    let data = |path: &&String| path.contains("/data/");
    assert!(before.keys().filter(data).all(|path| after.contains_key(path)), "rows stay where they are");
    assert!(next["files_unchanged"].as_u64() > Some(0) && next["files_deleted"].as_u64() > Some(0), "{next}");
    assert_eq!(rows(&reader, remote), rows(&author, &table));
    assert_ne!(rows(&reader, &pinned), rows(&reader, remote), "a commit never changes");
}

#[test]
fn tables_on_the_hub_are_not_written() {
    let hub = TestHub::start();
    let user = User::new(&hub, Some(HUB_TOKEN));
    let table = user.path("udhr.lance");
    let _ = user.run(&["embed", "--source", "builtin:udhr?codes=eng", "--table", &table]).exits_with(0);
    let _ = user.run(&["push", &table, "hf://datasets/org/rights"]).exits_with(0);
    let before = hub.files("org/rights");
    let remote = "hf://datasets/org/rights/udhr.lance";
    for command in [
        vec!["embed", "--source", "builtin:udhr?codes=fra", "--table", remote],
        vec!["map", "--table", remote],
        vec!["compact", "--table", remote],
        vec!["index", "words", "--table", remote],
    ] {
        let _ = user.run(&command).exits_with(2).stderr_contains(&["polylance push"]);
    }
    let _ = user
        .run(&["push", &table, "hf://datasets/org/rights", "--private"])
        .exits_with(2)
        .stderr_contains(&["is public", "--private"]);
    assert_eq!(hub.files("org/rights"), before);
}

#[test]
fn push_deletes_only_files_of_the_table() {
    let hub = TestHub::start();
    let foreign = ("x/train.parquet", parquet("a", 40));
    let nested = ("docs.lance/other.lance/data/1.lance", b"rows".to_vec());
    hub.commit("org/news", &[foreign, nested.clone()]);
    let user = User::new(&hub, Some(HUB_TOKEN));
    let table = user.path("docs.lance");
    let embed = |codes: &str| {
        let source = format!("builtin:udhr?codes={codes}");
        let _ = user.run(&["embed", "--source", &source, "--table", &table]).exits_with(0);
    };
    embed("eng");
    let before = hub.files("org/news");
    for folder in ["x", "docs.lance"] {
        let target = format!("hf://datasets/org/news/{folder}");
        let refused = user.run(&["push", &table, &target]).exits_with(2);
        let _ = refused.stderr_contains(&[&format!("the folder `{folder}`"), "not a table"]);
    }
    assert_eq!(hub.files("org/news"), before);

    let target = "hf://datasets/org/news/y";
    let _ = user.run(&["push", &table, target]).exits_with(0);
    let kept = ["y/notes.md", "y/other.lance/_versions/1.manifest", "y/other.lance/data/1.lance"];
    hub.commit("org/news", &kept.map(|path| (path, b"not the table's".to_vec())));
    embed("eng,fra");
    let pushed = user.run(&["push", &table, target, "--json"]).exits_with(0).json();
    assert!(pushed["files_deleted"].as_u64() > Some(0), "{pushed}");
    let (files, _) = hub.files("org/news");
    for path in kept.iter().chain(&["x/train.parquet", nested.0]) {
        assert!(files.contains_key(*path), "{path} was deleted");
    }
}

#[test]
fn commit_is_not_repeated_when_its_response_is_lost() {
    let hub = TestHub::start();
    let user = User::new(&hub, Some(HUB_TOKEN));
    let table = user.path("udhr.lance");
    let _ = user.run(&["embed", "--source", "builtin:udhr?codes=eng", "--table", &table]).exits_with(0);
    let push = ["push", &table, "hf://datasets/org/rights", "--json"];
    hub.lose_next_commit();
    let _ = user.run(&push).exits_with(1).stderr_contains(&["org/rights", "may have a new commit", "504", "again"]);
    let requests = hub.requests();
    assert_eq!(requests.iter().filter(|request| request.contains("/commit/")).count(), 1, "{requests:?}");
    let before = hub.files("org/rights");
    let again = user.run(&push).exits_with(0).json();
    assert_eq!(again["files_sent"], 0, "{again}");
    assert_eq!(hub.files("org/rights"), before);
}
