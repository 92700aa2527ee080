//! Iceberg tables as sources, written by `PyIceberg` to a folder and to a bucket.

use std::{fs, path::Path, process::Command};

use polylance_tests::{Outcome, S3Server, TinyModel, polylance_with, python, read_table, repository, strings};
use tempfile::TempDir;

/// A table with its catalog, and a model.
struct Catalog<'s> {
    folder: TempDir,
    warehouse: String,
    server: Option<&'s S3Server>,
}

impl<'s> Catalog<'s> {
    fn new(server: Option<&'s S3Server>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::Whole.write(&folder.path().join("model"));
        let warehouse = match server {
            Some(_) => "s3://corpus/warehouse".to_owned(),
            None => folder.path().join("warehouse").display().to_string(),
        };
        Self { folder, warehouse, server }
    }

    /// Makes commits, and returns the address of the table.
    fn change(&self, steps: &[&str]) -> String {
        let mut command = Command::new(python());
        command.arg(repository().join("tests/python/write_iceberg.py")).arg(&self.warehouse);
        command.arg(self.folder.path().join("catalog.db")).args(steps);
        command.envs(self.server.iter().flat_map(|server| server.variables()));
        let output = command.output().expect("python starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn embed(&self, source: &str, table: &str, options: &[&str]) -> Outcome {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let (table, model) = (path(table), path("model"));
        let command = ["embed", "--source", source, "--table", &table, "--model", &model, "--json"];
        let variables: Vec<_> = self.server.iter().flat_map(|server| server.variables()).collect();
        polylance_with(&[&command, options].concat(), &variables, b"")
    }

    /// The ids, texts and languages that a new table has, sorted.
    fn rows(&self, source: &str, options: &[&str]) -> Vec<String> {
        let table = format!("{}.lance", fs::read_dir(self.folder.path()).unwrap().count());
        let _ = self.embed(source, &table, &[options, &["--keep", "lang"]].concat()).exits_with(0);
        let read = read_table(&self.folder.path().join(table).display().to_string(), &["doc_id", "text", "lang"]);
        let columns = ["doc_id", "text", "lang"].map(|column| strings(&read, column));
        let mut rows: Vec<_> =
            (0..read.num_rows()).map(|row| columns.each_ref().map(|column| column[row].clone()).join(" | ")).collect();
        rows.sort();
        rows
    }
}

#[test]
fn newest_snapshot_of_a_table_is_read_without_deleted_rows() {
    let catalog = Catalog::new(None);
    let source = catalog.change(&["create", "append:en:a:b:c", "append:fr:d:e"]);
    let body = ["--text", "body"];
    let all = ["a | text a | en", "b | text b | en", "c | text c | en", "d | text d | fr", "e | text e | fr"];
    assert_eq!(catalog.rows(&source, &body), all);
    assert_eq!(catalog.rows(&format!("file://{source}/"), &body), all);

    let first = newest_metadata(&source);
    catalog.change(&["delete:a", "append:de:f"]);
    assert_eq!(catalog.rows(&source, &body), [&all[1..], &["f | text f | de"]].concat());
    assert_eq!(catalog.rows(&first, &body), all, "the named snapshot is read");

    catalog.change(&["mask:b:fr", "rename"]);
    assert_eq!(catalog.rows(&source, &["--text", "content"]), ["c | text c | en", "f | text f | de"]);
    let where_clause = ["--text", "content", "--where", "lang <> 'de'"];
    assert_eq!(catalog.rows(&source, &where_clause), ["c | text c | en"]);
    let refused = catalog.embed(&source, "refused.lance", &["--text", "content", "--id", "@row"]).exits_with(2);
    let _ = refused.stderr_contains(&["`@row`", "take `@content`"]);
}

#[test]
fn run_reads_only_the_data_files_that_changed() {
    let catalog = Catalog::new(None);
    let source = catalog.change(&["create", "append:en:a:b:c", "append:fr:d:e"]);
    let run = |text: &str| catalog.embed(&source, "docs.lance", &["--text", text]).exits_with(0).json();
    assert_eq!(run("body")["rows_written"], 5);
    assert_eq!(run("body")["source_unchanged"], true);
    catalog.change(&["append:de:f"]);
    let after_append = run("body");
    assert_eq!((&after_append["rows_written"], &after_append["rows_skipped"]), (&1.into(), &5.into()));
    // The columns have changed, and no document.
    catalog.change(&["rename"]);
    let renamed = run("content");
    assert_eq!((&renamed["rows_written"], &renamed["rows_skipped"]), (&0.into(), &6.into()));
}

#[test]
fn table_in_a_bucket_is_read_with_the_keys_of_the_source() {
    let server = S3Server::start("corpus");
    let catalog = Catalog::new(Some(&server));
    let source = catalog.change(&["create", "append:en:a:b", "append:fr:d", "mask:b:fr"]);
    assert_eq!(source, "s3://corpus/warehouse/texts/pages");
    assert_eq!(catalog.rows(&source, &["--text", "body"]), ["a | text a | en"]);
    let outcome = catalog.embed(&source, "docs.lance", &["--text", "body", "--id", "@content"]).exits_with(0);
    assert_eq!(outcome.json()["rows_written"], 1);
    assert!(!outcome.stderr.contains(server.variables()[4].1), "a secret reached the log");
}

#[test]
fn table_that_cannot_be_a_source_is_refused() {
    let catalog = Catalog::new(None);
    let source = catalog.change(&["create"]);
    let empty = catalog.embed(&source, "docs.lance", &["--text", "body"]).exits_with(2);
    let _ = empty.stderr_contains(&["the Iceberg table", "has no rows"]);
    catalog.change(&["append:en:a"]);
    let newest = newest_metadata(&source);
    let (folder, name) = newest.rsplit_once('/').unwrap();
    let other = format!("{}-zzz.metadata.json", name.split('-').next().unwrap());
    fs::copy(&newest, Path::new(folder).join(&other)).unwrap();
    let ambiguous = catalog.embed(&source, "docs.lance", &["--text", "body"]).exits_with(2);
    let _ = ambiguous.stderr_contains(&["have the same number", &other, "the table's catalog"]);
    fs::write(&newest, "{").unwrap();
    let damaged = catalog.embed(&newest, "docs.lance", &["--text", "body"]);
    let _ = damaged.exits_with(1).stderr_contains(&["the Iceberg table", "cannot be opened"]);
}

/// The path of the newest metadata file of a table.
fn newest_metadata(table: &str) -> String {
    let files = fs::read_dir(Path::new(table).join("metadata")).unwrap();
    let files = files.map(|file| file.unwrap().path().display().to_string());
    files.filter(|path| path.ends_with(".metadata.json")).max().unwrap()
}
