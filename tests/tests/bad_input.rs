//! Bad input causes a clear error or a row in the quarantine, never a panic or a half-written table.

use std::{fs, path::PathBuf};

use polylance_tests::{Outcome, Row, TinyModel, polylance, read_table, strings, write_parquet};

struct Folder {
    folder: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        TinyModel::Whole.write(&folder.path().join("model"));
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn embed(&self, source: &str, more: &[&str]) -> Outcome {
        let (source, table, model) = (self.text(source), self.text("out.lance"), self.text("model"));
        let mut args = vec!["embed", "--source", &source, "--table", &table, "--model", &model, "--progress", "none"];
        args.extend(more);
        polylance(&args)
    }

    /// Documents in the table, and the quarantined rows as `(source's file name, row, error)`.
    fn results(&self) -> (Vec<String>, Vec<(String, String)>) {
        let table = strings(&read_table(&self.text("out.lance"), &["doc_id"]), "doc_id");
        let quarantine = read_table(&self.text("out.quarantine.lance"), &["source", "error"]);
        let file = |source: String| source.rsplit('/').next().unwrap().to_owned();
        let errors = strings(&quarantine, "source").into_iter().map(file).zip(strings(&quarantine, "error")).collect();
        (table, errors)
    }

    fn assert_nothing_was_written(&self) {
        assert!(!self.path("out.lance").exists(), "a refused run left a table");
    }
}

fn rows() -> Vec<Row> {
    vec![Row::new("1", "cat and dot"), Row::new("2", "tin")]
}

#[test]
fn missing_column_error_lists_the_available_columns() {
    let folder = Folder::new();
    write_parquet(&folder.path("docs.parquet"), &rows());
    let _ = folder.embed("docs.parquet", &["--text", "txet"]).exits_with(2).stderr_contains(&[
        "txet",
        "docs.parquet",
        "id",
        "text",
    ]);
    folder.assert_nothing_was_written();
}

#[test]
fn source_without_ids_is_embedded_with_ids_of_its_texts() {
    let folder = Folder::new();
    let lines = ["cat and dot", "tin", "cat and dot"].map(|text| format!("{{\"text\": \"{text}\", \"url\": \"u\"}}\n"));
    fs::write(folder.path("web.jsonl"), lines.concat()).unwrap();
    let _ = folder.embed("web.jsonl", &[]).exits_with(2).stderr_contains(&[
        "no column `id`",
        "text, url",
        "--id @content",
        "--id @row",
    ]);
    folder.assert_nothing_was_written();
    let keep = "upper(url) AS link, length(concat(text, url)) AS size";
    let args = ["--id", "@content", "--keep", keep, "--where", "text <> 'tin'", "--json"];
    let first = folder.embed("web.jsonl", &args).exits_with(0).json();
    assert_eq!((&first["rows_written"], &first["rows_quarantined"]), (&1.into(), &0.into()));
    assert_eq!(strings(&read_table(&folder.text("out.lance"), &["link"]), "link"), ["U"]);
    let second = folder.embed("web.jsonl", &args).exits_with(0).json();
    assert_eq!(second["rows_written"], 0);
    let _ = folder
        .embed("web.jsonl", &["--id", "@content", "--where", "lang = 'fr'"])
        .exits_with(2)
        .stderr_contains(&["`where` of the source", "lang = 'fr'", "no column `lang`"]);
}

#[test]
fn text_column_of_wrong_type_is_refused() {
    let folder = Folder::new();
    fs::write(folder.path("docs.jsonl"), "{\"id\": \"1\", \"text\": 7}\n{\"id\": \"2\", \"text\": 8}\n").unwrap();
    let _ = folder.embed("docs.jsonl", &[]).exits_with(2).stderr_contains(&["text", "docs.jsonl", "Int64"]);
    folder.assert_nothing_was_written();
}

#[test]
fn null_and_empty_texts_are_quarantined() {
    let folder = Folder::new();
    let mut rows = rows();
    rows.push(Row { id: "null".into(), text: None });
    rows.extend([Row::new("empty", ""), Row::new("blank", " \n\u{3000} "), Row::new("last", "nest")]);
    write_parquet(&folder.path("docs.parquet"), &rows);
    let summary = folder.embed("docs.parquet", &["--json"]).exits_with(3).json();
    assert_eq!(summary["rows_quarantined"], 3);
    let (documents, errors) = folder.results();
    assert_eq!(documents, ["1", "2", "last"]);
    assert!(errors.iter().all(|(file, _)| file == "docs.parquet"));
}

#[test]
fn invalid_utf8_quarantines_only_its_row() {
    for (name, content) in [
        ("docs.csv", &b"id,text\n1,cat\n2,d\xffot\n3,tin\n"[..]),
        (
            "docs.jsonl",
            b"{\"id\":\"1\",\"text\":\"cat\"}\n{\"id\":\"2\",\"text\":\"d\xffot\"}\n{\"id\":\"3\",\"text\":\"tin\"}\n",
        ),
    ] {
        let folder = Folder::new();
        fs::write(folder.path(name), content).unwrap();
        let _ = folder.embed(name, &[]).exits_with(3);
        let (documents, errors) = folder.results();
        assert_eq!(documents, ["1", "3"], "{name}");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].1.contains("UTF-8"), "{errors:?}");
    }
}

#[test]
fn malformed_line_quarantines_only_its_row() {
    let folder = Folder::new();
    fs::write(
        folder.path("docs.jsonl"),
        "{\"id\":\"1\",\"text\":\"cat\"}\n{\"id\": \"2\", \"te\n{\"id\":\"3\",\"text\":\"tin\"}\n",
    )
    .unwrap();
    let _ = folder.embed("docs.jsonl", &[]).exits_with(3);
    let (documents, errors) = folder.results();
    assert_eq!((documents, errors.len()), (vec!["1".to_owned(), "3".to_owned()], 1));
}

#[test]
fn truncated_file_does_not_affect_other_files() {
    let folder = Folder::new();
    fs::create_dir(folder.path("docs")).unwrap();
    let rows: Vec<Row> = (0..30).map(|n| Row::new(format!("doc-{n}"), "cat and dot")).collect();
    write_parquet(&folder.path("docs/a.parquet"), &rows[..10]);
    write_parquet(&folder.path("docs/b.parquet"), &rows[10..20]);
    write_parquet(&folder.path("docs/c.parquet"), &rows[20..]);
    let whole = fs::read(folder.path("docs/b.parquet")).unwrap();
    fs::write(folder.path("docs/b.parquet"), &whole[..whole.len() / 2]).unwrap();

    let _ = folder.embed("docs", &[]).exits_with(3);
    let (documents, errors) = folder.results();
    assert_eq!(documents.len(), 20);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].0, "b.parquet");

    // Once the file is repaired, the next run reads it, and the quarantine is empty again.
    fs::write(folder.path("docs/b.parquet"), whole).unwrap();
    let _ = folder.embed("docs", &[]).exits_with(0);
    assert_eq!(strings(&read_table(&folder.text("out.lance"), &["doc_id"]), "doc_id").len(), 30);
}

#[test]
fn duplicate_id_is_quarantined() {
    let folder = Folder::new();
    let mut rows = rows();
    rows.push(Row::new("1", "another text"));
    write_parquet(&folder.path("docs.parquet"), &rows);
    for run in 1..=2 {
        let _ = folder.embed("docs.parquet", &[]).exits_with(3);
        let (documents, errors) = folder.results();
        assert_eq!(documents, ["1", "2"], "run {run}");
        assert_eq!(errors.len(), 1, "run {run}");
        assert!(errors[0].1.contains("duplicate"), "{errors:?}");
    }
}

#[test]
fn document_over_max_bytes_is_quarantined() {
    let folder = Folder::new();
    let mut rows = rows();
    rows.insert(1, Row::new("big", "cat dot tin ".repeat(20_000_000 / 12)));
    write_parquet(&folder.path("docs.parquet"), &rows);
    let _ = folder.embed("docs.parquet", &[]).exits_with(3);
    let (documents, errors) = folder.results();
    assert_eq!(documents, ["1", "2"]);
    assert!(errors[0].1.contains("max_bytes"), "{errors:?}");
}

#[test]
fn broken_model_folder_error_names_the_fault() {
    for (model, says) in [
        (TinyModel::WithoutTokenizer, &["tokenizer.json"][..]),
        (TinyModel::WrongShape, &["attention.self.query.weight", "[16, 16]", "[16, 15]"]),
        (TinyModel::CutOff, &["model.safetensors"]),
    ] {
        let folder = Folder::new();
        write_parquet(&folder.path("docs.parquet"), &rows());
        model.write(&folder.path("broken"));
        let broken = folder.text("broken");
        let (source, table) = (folder.text("docs.parquet"), folder.text("out.lance"));
        let outcome = polylance(&["embed", "--source", &source, "--table", &table, "--model", &broken]);
        assert!(outcome.code == 1 || outcome.code == 2, "{model:?}: {outcome:?}");
        let _ = outcome.stderr_contains(says);
        folder.assert_nothing_was_written();
        assert_ne!(polylance(&["model", "check", &broken]).stderr_contains(says).code, 0);
    }
}

#[test]
fn contract_mismatch_is_refused_and_shows_both_contracts() {
    let folder = Folder::new();
    write_parquet(&folder.path("docs.parquet"), &rows());
    let _ = folder.embed("docs.parquet", &[]).exits_with(0);
    let before = polylance(&["show", &folder.text("out.lance"), "--json"]).exits_with(0).json();

    let (source, table) = (folder.text("docs.parquet"), folder.text("out.lance"));
    let _ = polylance(&["embed", "--source", &source, "--table", &table]).exits_with(2).stderr_contains(&[
        "another",
        &folder.text("model"),
        "builtin:multilingual-e5-small",
        "dim",
        "16",
        "384",
        "hint:",
    ]);
    let after = polylance(&["show", &table, "--json"]).exits_with(0).json();
    assert_eq!(before["version"], after["version"]);
}

#[test]
fn usage_and_configuration_errors_exit_with_2() {
    let folder = Folder::new();
    for (toml, says) in [
        ("version = 1\n[source]\nuri = \"x\"\n[table]\nurl = \"y\"\n", &["url", "uri"][..]),
        ("version = 2\n[source]\nuri = \"x\"\n[table]\nuri = \"y\"\n", &["version", "2", "1"]),
        ("version = 1\n[source]\nuri = 7\n[table]\nuri = \"y\"\n", &["source.uri", "string"]),
        ("version = 1\n[source]\nuri = \"/does/not/exist\"\n[table]\nuri = \"y\"\n", &["/does/not/exist"]),
    ] {
        fs::write(folder.path("job.toml"), toml).unwrap();
        let _ = polylance(&["run", &folder.text("job.toml")]).exits_with(2).stderr_contains(says);
    }
    let _ = polylance(&["serach"]).exits_with(2).stderr_contains(&["serach", "search"]);
    let _ = polylance(&["search", "--table", &folder.text("none.lance"), "x"]).stderr_contains(&["none.lance"]);
}
