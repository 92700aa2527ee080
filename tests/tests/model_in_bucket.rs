//! Models in object storage, over a real S3 server: fetched into the cache, found again from a table, used without the
//! store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use polylance_encoder::HeadKind;
use polylance_tests::{Outcome, Row, S3Server, TinyModel, polylance, polylance_with, write_head_model, write_parquet};

const ADDRESS: &str = "s3://corpus/models/tiny";

/// A folder with a corpus, a model, a cache of models and a list of trusted ones.
struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap() };
        TinyModel::Whole.write(&this.path("tiny"));
        let rows: Vec<Row> = (0..20).map(|n| Row::new(format!("doc-{n}"), "cat and dot")).collect();
        write_parquet(&this.path("docs.parquet"), &rows);
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Runs the binary with the server's variables and this folder's cache. No output has the server's secret.
    fn run(&self, server: &S3Server, args: &[&str], stdin: &[u8]) -> Outcome {
        let (cache, state) = (self.at("cache"), self.at("state"));
        let own = [("XDG_CACHE_HOME", cache.as_str()), ("XDG_STATE_HOME", state.as_str())];
        let outcome = polylance_with(args, &[&server.variables()[..], &own].concat(), stdin);
        let secret = server.variables()[4].1;
        assert!(!outcome.stdout.contains(secret) && !outcome.stderr.contains(secret), "{args:?} shows a secret");
        outcome
    }

    fn embed(&self, server: &S3Server, model: &str) -> Outcome {
        let (docs, table) = (self.at("docs.parquet"), self.at("docs.lance"));
        self.run(server, &["embed", "--source", &docs, "--table", &table, "--model", model, "--json"], b"")
    }

    fn search(&self, server: &S3Server) -> Outcome {
        self.run(server, &["search", "--table", &self.at("docs.lance"), "cat", "-k", "2", "--json"], b"")
    }
}

/// Uploads the files of a folder.
fn upload(server: &S3Server, folder: &Path, prefix: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        server.upload(&path, &format!("{prefix}/{}", path.file_name().unwrap().to_str().unwrap()));
    }
}

#[test]
fn table_finds_its_model_in_the_bucket_and_without_it_in_the_cache() {
    let (folder, server) = (Folder::new(), S3Server::start("corpus"));
    upload(&server, &folder.path("tiny"), "models/tiny");
    assert_eq!(folder.embed(&server, ADDRESS).exits_with(0).json()["rows_written"], 20);
    let shown = folder.run(&server, &["show", &folder.at("docs.lance"), "--json"], b"").exits_with(0).json();
    assert_eq!(shown["contract"]["model"], ADDRESS);
    let online = folder.search(&server).exits_with(0);
    assert_eq!(online.json().as_array().unwrap().len(), 2);

    // Nobody else has named the model.
    let (state, cache) = (folder.at("other"), folder.at("empty"));
    let other = [("XDG_STATE_HOME", state.as_str()), ("XDG_CACHE_HOME", cache.as_str())];
    let variables = [&server.variables()[..], &other].concat();
    let table = folder.at("docs.lance");
    let search = ["search", "--table", &table, "cat"];
    let refused = polylance_with(&search, &variables, b"").exits_with(2);
    drop(refused.stderr_contains(&[ADDRESS, "--trust-table-model"]));
    assert!(!folder.path("empty").exists(), "something was fetched");

    server.remove_bucket();
    server.make_bucket();
    let without_model = folder.search(&server).exits_with(0).stderr_contains(&[ADDRESS, "using the cache"]);
    assert_eq!(without_model.stdout, online.stdout);

    let (cache, state) = (folder.at("cache"), folder.at("state"));
    let unreachable = [
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:9"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "polylance"),
        ("AWS_SECRET_ACCESS_KEY", "hidden-key"),
        ("XDG_CACHE_HOME", cache.as_str()),
        ("XDG_STATE_HOME", state.as_str()),
    ];
    let offline = polylance_with(&[&search[..], &["-k", "2", "--json"]].concat(), &unreachable, b"").exits_with(0);
    assert_eq!(offline.stdout, online.stdout);
    let offline = offline.stderr_contains(&[ADDRESS, "using the cache"]);
    assert!(!offline.stderr.contains("hidden-key"), "{}", offline.stderr);

    // The model is the same wherever its files are.
    assert_eq!(folder.embed(&server, &folder.at("tiny")).exits_with(0).json()["rows_written"], 0);
}

#[test]
fn changed_model_is_fetched_again_and_refused_for_the_table() {
    let (folder, server) = (Folder::new(), S3Server::start("corpus"));
    upload(&server, &folder.path("tiny"), "models/tiny");
    let _ = folder.embed(&server, ADDRESS).exits_with(0);
    let weights = folder.path("tiny/model.safetensors");
    let before = fs::read(&weights).unwrap();
    let mut changed = before.clone();
    let last = changed.len() - 2;
    changed[last] ^= 1;
    fs::write(&weights, changed).unwrap();
    server.upload(&weights, "models/tiny/model.safetensors");
    drop(folder.search(&server).exits_with(2).stderr_contains(&[ADDRESS, "its files have changed"]));
    fs::write(&weights, before).unwrap();
    server.upload(&weights, "models/tiny/model.safetensors");
    let _ = folder.search(&server).exits_with(0);
}

#[test]
fn heads_and_gguf_files_are_read_from_the_bucket() {
    let (folder, server) = (Folder::new(), S3Server::start("corpus"));
    write_head_model(&folder.path("topic"), HeadKind::SequenceClassification, &["sport", "law"]);
    upload(&server, &folder.path("topic"), "models/topic");
    let predict = |model: &str| {
        let args = ["predict", "--task", "classify", "--model", model];
        folder.run(&server, &args, b"everyone has the right\n").exits_with(0).stdout
    };
    assert_eq!(predict("s3://corpus/models/topic/"), predict(&folder.at("topic")));

    let _ = folder.embed(&server, &folder.at("tiny")).exits_with(0);
    let table = folder.at("docs.lance");
    let annotate =
        ["annotate", "--table", &table, "--name", "topic", "--task", "classify", "--model", "s3://corpus/models/topic"];
    let _ = folder.run(&server, &annotate, b"").exits_with(0);

    let gguf = folder.path("gguf");
    fs::create_dir(&gguf).unwrap();
    fs::write(gguf.join("e5.gguf"), polylance_builtin::model_gguf().unwrap()).unwrap();
    fs::write(gguf.join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
    upload(&server, &gguf, "models");
    let check = |model: &str| folder.run(&server, &["model", "check", model, "--json"], b"").exits_with(0).json();
    let (fetched, builtin) = (check("s3://corpus/models/e5.gguf"), check("builtin:multilingual-e5-small"));
    assert_eq!(fetched["model"], "s3://corpus/models/e5.gguf");
    for same in ["weights_hash", "tokenizer_hash", "defaults"] {
        assert_eq!(fetched[same], builtin[same], "{same}");
    }
}

#[test]
fn missing_models_and_refused_credentials_are_reported() {
    let (folder, server) = (Folder::new(), S3Server::start("corpus"));
    let missing = folder.embed(&server, "s3://key:hidden@corpus/models/none").exits_with(2);
    let missing = missing.stderr_contains(&["no model at s3://corpus/models/none: nothing is there", "config.json"]);
    assert!(!missing.stderr.contains("hidden"), "{}", missing.stderr);

    TinyModel::WithoutTokenizer.write(&folder.path("half"));
    upload(&server, &folder.path("half"), "models/half");
    let half = folder.embed(&server, "s3://corpus/models/half").exits_with(2);
    drop(half.stderr_contains(&["s3://corpus/models/half", "missing tokenizer.json", "save_pretrained"]));

    let guarded = S3Server::start_guarded("corpus");
    let refused = folder.embed(&guarded, ADDRESS).exits_with(1);
    drop(refused.stderr_contains(&[ADDRESS, "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"]));

    let elsewhere = polylance(&["model", "check", "ftp://host/models/tiny"]).exits_with(2);
    drop(elsewhere.stderr_contains(&["ftp://host/models/tiny", "s3://"]));
}
