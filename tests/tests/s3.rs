//! Jobs over a real S3 server: source, table and quarantine are objects.

use std::{fs, process::Command, thread, time::Duration};

use polylance_tests::{
    CloudServer, Row, S3Server, TinyModel, fake_job, polylance_with, python, read_contents, read_table, repository,
    strings, write_fake_corpus, write_parquet,
};

#[test]
fn source_and_table_can_be_in_a_bucket() {
    let server = S3Server::start("corpus");
    let folder = tempfile::tempdir().unwrap();
    TinyModel::Whole.write(&folder.path().join("model"));
    let model = folder.path().join("model").display().to_string();
    let rows: Vec<Row> = (0..200).map(|n| Row::new(format!("doc-{n}"), "cat and dot")).collect();
    for (part, rows) in rows.chunks(100).enumerate() {
        let path = folder.path().join(format!("part-{part}.parquet"));
        write_parquet(&path, rows);
        server.upload(&path, &format!("docs/part-{part}.parquet"));
    }

    let variables = server.variables();
    let embed =
        ["embed", "--source", "s3://corpus/docs/", "--table", "s3://corpus/out.lance", "--model", &model, "--json"];
    let first = polylance_with(&embed, &variables, b"").exits_with(0);
    assert_eq!(first.json()["rows_written"], 200);
    assert!(!first.stderr.contains(variables[4].1), "a secret reached the log");
    assert_eq!(polylance_with(&embed, &variables, b"").exits_with(0).json()["rows_skipped"], 200);

    // The table is a source too, with the same keys.
    let copy = [
        "embed",
        "--source",
        "s3://corpus/out.lance/",
        "--table",
        "s3://corpus/copy.lance",
        "--model",
        &model,
        "--json",
    ];
    assert_eq!(polylance_with(&copy, &variables, b"").exits_with(0).json()["rows_written"], 200);
    assert_eq!(polylance_with(&copy, &variables, b"").exits_with(0).json()["source_unchanged"], true);

    let search = ["search", "--table", "s3://corpus/out.lance", "cat", "-k", "2", "--json"];
    let hits = polylance_with(&search, &variables, b"").exits_with(0).json();
    assert_eq!(hits.as_array().unwrap().len(), 2);

    let missing = ["embed", "--source", "s3://corpus/none/", "--table", "s3://corpus/x.lance", "--model", &model];
    let refused = polylance_with(&missing, &variables, b"").exits_with(2).stderr_contains(&["s3://corpus/none/"]);
    assert!(!refused.stderr.contains(variables[4].1), "a secret reached the log");
}

#[test]
fn aws_profile_applies_to_source_and_table() {
    let server = S3Server::start("corpus");
    let (folder, docs, model) = one_row_corpus();
    server.upload(docs.as_ref(), "docs/docs.parquet");
    let (config, keys) = (folder.path().join("config"), folder.path().join("credentials"));
    let endpoint = server.endpoint();
    fs::write(&config, format!("[profile work]\nregion = eu-west-1\nendpoint_url = {endpoint}\n")).unwrap();
    fs::write(&keys, "[work]\naws_access_key_id = of-the-profile\naws_secret_access_key = any\n").unwrap();
    let variables = [
        ("AWS_CONFIG_FILE", config.to_str().unwrap()),
        ("AWS_SHARED_CREDENTIALS_FILE", keys.to_str().unwrap()),
        ("AWS_PROFILE", "work"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let embed = ["embed", "--source", "s3://corpus/docs/", "--table", "s3://corpus/out.lance", "--model", &model];
    let run = polylance_with(&[&embed[..], &["--json"]].concat(), &variables, b"").exits_with(0);
    assert_eq!(run.json()["rows_written"], 1);
}

/// A local corpus of one row and a model, for runs whose table is in a bucket.
fn one_row_corpus() -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (docs, model) = (at("docs.parquet"), at("model"));
    TinyModel::Whole.write(model.as_ref());
    write_parquet(docs.as_ref(), &[Row::new("a".to_owned(), "cat")]);
    (folder, docs, model)
}

#[test]
fn refused_credentials_and_missing_buckets_are_reported() {
    let (_folder, docs, model) = one_row_corpus();
    let guarded = S3Server::start_guarded("corpus");
    let variables = guarded.variables();
    let embed = |source: &str, table: &str| {
        polylance_with(&["embed", "--source", source, "--table", table, "--model", &model], &variables, b"")
    };
    for (source, table) in [("s3://corpus/docs/", "s3://corpus/out.lance"), (&docs, "s3://corpus/out.lance")] {
        let refused = embed(source, table).exits_with(1).stderr_contains(&[
            "s3://corpus/",
            "AWS_ACCESS_KEY_ID",
            "AWS_ENDPOINT_URL",
        ]);
        assert!(!refused.stderr.contains(variables[4].1), "a secret reached the log");
    }

    let open = S3Server::start("corpus");
    let variables = open.variables();
    let embed = |source: &str, table: &str| {
        polylance_with(&["embed", "--source", source, "--table", table, "--model", &model], &variables, b"")
    };
    drop(embed("s3://nothing/docs/", "s3://corpus/out.lance").stderr_contains(&["s3://nothing/docs/", "NoSuchBucket"]));
    drop(
        embed(&docs, "s3://nothing/out.lance")
            .exits_with(1)
            .stderr_contains(&["s3://nothing/out.lance", "NoSuchBucket"]),
    );
}

#[test]
fn unreadable_s3_keys_are_quarantined_and_special_characters_are_read() {
    let server = S3Server::start("corpus");
    let (folder, _, model) = one_row_corpus();
    let variables = server.variables();
    let keys =
        ["docs/a b.jsonl", "docs/c+d.jsonl", "docs/g%20h.jsonl", "docs/lang=zh%2DHans/[i].jsonl", "docs/文.jsonl"];
    let odd = ["docs//y.jsonl", "docs/./z.jsonl"];
    for key in keys.iter().chain(&odd) {
        let path = folder.path().join("one.jsonl");
        fs::write(&path, format!("{{\"id\":{key:?},\"text\":\"cat\"}}\n")).unwrap();
        server.upload(&path, key);
    }
    let embed = |source: &str, table: &str| {
        let table = folder.path().join(table).display().to_string();
        let args = ["embed", "--source", source, "--table", &table, "--model", &model, "--progress", "none", "--json"];
        polylance_with(&args, &variables, b"")
    };
    for (number, key) in keys.iter().enumerate() {
        let run = embed(&format!("s3://corpus/{key}"), &format!("{number}.lance")).exits_with(0);
        assert_eq!(run.json()["rows_written"], 1, "{key}");
    }
    let all = embed("s3://corpus/docs/", "all.lance").exits_with(3).json();
    assert_eq!((&all["rows_written"], &all["rows_quarantined"]), (&keys.len().into(), &odd.len().into()));
    let table = folder.path().join("all.quarantine.lance").display().to_string();
    let refused = read_table(&table, &["source", "error"]);
    let mut sources = strings(&refused, "source");
    sources.sort();
    assert_eq!(sources, ["s3://corpus/docs/./z.jsonl", "s3://corpus/docs//y.jsonl"]);
    assert!(strings(&refused, "error").iter().all(|error| error.contains("copy the object to another key")));
    let again = embed("s3://corpus/docs/", "all.lance").exits_with(3).json();
    assert_eq!((&again["rows_written"], &again["files_unchanged"]), (&0.into(), &keys.len().into()));
}

#[test]
fn unreadable_google_and_azure_keys_are_quarantined() {
    let good = ["docs/a b.jsonl", "docs/文&.jsonl"];
    let odd = ["docs//y.jsonl", "docs/../z.jsonl"];
    let (folder, _, model) = one_row_corpus();
    for (kind, scheme) in [("google", "gs"), ("azure", "az")] {
        let server = CloudServer::start(kind, &[&good[..], &odd].concat());
        let table = folder.path().join(format!("{kind}.lance")).display().to_string();
        let source = format!("{scheme}://corpus/docs/");
        let args = ["embed", "--source", &source, "--table", &table, "--model", &model, "--progress", "none", "--json"];
        let run = polylance_with(&args, &server.variables(), b"").exits_with(3).json();
        assert_eq!((&run["rows_written"], &run["rows_quarantined"]), (&2.into(), &2.into()), "{kind}");
        let quarantine = table.replace(".lance", ".quarantine.lance");
        let mut sources = strings(&read_table(&quarantine, &["source"]), "source");
        sources.sort();
        assert_eq!(sources, odd.map(|key| format!("{scheme}://corpus/{key}")).into_iter().rev().collect::<Vec<_>>());
    }
}

/// A job on the fake device from a local file into a bucket.
struct IntoBucket {
    server: S3Server,
    folder: tempfile::TempDir,
}

impl IntoBucket {
    fn new(documents: usize) -> Self {
        let this = Self { server: S3Server::start("corpus"), folder: tempfile::tempdir().unwrap() };
        write_fake_corpus(this.at("docs.jsonl").as_ref(), documents);
        this
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn run(&self) -> Command {
        let mut command = fake_job(&self.at("docs.jsonl"), "s3://corpus/docs.lance", 50);
        command.envs(self.server.variables());
        command
    }

    /// Runs once more and compares the table with that of an undisturbed run.
    fn assert_completes_like_undisturbed(&self) {
        assert!(self.run().output().unwrap().status.success());
        for name in ["docs.lance", "docs.quarantine.lance"] {
            self.server.download(name, self.folder.path());
        }
        let whole = self.at("whole.lance");
        assert!(fake_job(&self.at("docs.jsonl"), &whole, 500).output().unwrap().status.success());
        assert_eq!(read_contents(&self.at("docs.lance")), read_contents(&whole));
    }
}

#[test]
fn removed_bucket_ends_the_run_and_the_next_run_starts_over() {
    let job = IntoBucket::new(2000);
    let mut child = job.run().spawn().unwrap();
    while !job.server.has("docs.lance/_versions/") {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before the bucket was removed");
        thread::sleep(Duration::from_millis(5));
    }
    job.server.remove_bucket();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("s3://corpus/docs"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    job.server.make_bucket();
    job.assert_completes_like_undisturbed();
}

#[test]
fn runs_killed_while_writing_to_a_bucket_resume_to_the_same_table() {
    let job = IntoBucket::new(500);
    for millis in [150, 300, 450, 600, 750, 900, 1050, 1200] {
        let mut child = job.run().spawn().unwrap();
        thread::sleep(Duration::from_millis(millis));
        // It may have ended already.
        drop(child.kill());
        child.wait().unwrap();
    }
    job.assert_completes_like_undisturbed();
}

#[test]
fn compose_file_creates_the_bucket_and_keys_it_documents() {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let path = repository().join("docker-compose.yml");
    let output = Command::new(python()).args(["-c", script]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compose: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let store = &compose["services"]["s3"];
    assert!(store["image"].as_str().unwrap().starts_with("minio/minio:RELEASE."));
    assert_eq!(store["ports"][0], "127.0.0.1:9000:9000");
    let text = fs::read_to_string(&path).unwrap();
    for (key, variable) in [("MINIO_ROOT_USER", "AWS_ACCESS_KEY_ID"), ("MINIO_ROOT_PASSWORD", "AWS_SECRET_ACCESS_KEY")]
    {
        let value = store["environment"][key].as_str().unwrap();
        assert!(text.contains(&format!("{variable}={value}")), "{variable}");
    }
    let bucket = compose["services"]["bucket"]["entrypoint"][2].as_str().unwrap();
    assert!(bucket.contains("mc mb --ignore-existing s3/corpus") && text.contains("s3://corpus/docs.lance"));
}
