//! `docs/reference/errors.md` quotes the program: each of its blocks is the output of a command here, and every error
//! that is provoked here is on the page.

use std::{collections::BTreeSet, fs, path::PathBuf};

use polylance_tests::{Outcome, Row, S3Server, TinyModel, polylance_with, repository, write_parquet};

/// A folder with the files that provoke errors.
struct Folder {
    folder: tempfile::TempDir,
    blocks: BTreeSet<String>,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let this = Self { folder, blocks: BTreeSet::new() };
        for (model, name) in [
            (TinyModel::Whole, "model"),
            (TinyModel::CutOff, "cut-off"),
            (TinyModel::WrongShape, "wrong-shape"),
            (TinyModel::WithoutTokenizer, "no-tokenizer"),
        ] {
            model.write(&this.path(name));
        }
        write_parquet(&this.path("docs.parquet"), &[Row::new("a".to_owned(), "cat"), Row::new("b".to_owned(), "dot")]);
        fs::write(this.path("notes.csv"), "id,text,lang\na,cat,en\n").unwrap();
        fs::write(this.path("numbers.csv"), "n,m\n1,2\n").unwrap();
        fs::write(this.path("broken.parquet"), "PAR1 and then nothing").unwrap();
        fs::create_dir(this.path("photos")).unwrap();
        fs::write(this.path("photos/cat.jpg"), "x").unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the binary and keeps its error message.
    fn fails(&mut self, code: i32, args: &[&str], variables: &[(&str, &str)]) {
        let outcome = self.run(args, variables);
        assert_eq!(outcome.code, code, "{args:?}: {}\n{}", outcome.stdout, outcome.stderr);
        self.keep(&outcome.stderr);
    }

    fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Outcome {
        let at = |arg: &&str| arg.replace("DIR/", &format!("{}/", self.folder.path().display()));
        polylance_with(&args.iter().map(at).collect::<Vec<_>>(), variables, b"")
    }

    fn keep(&mut self, stderr: &str) {
        let from = stderr.find("error: ").unwrap_or_else(|| panic!("no error in {stderr}"));
        let here = format!("{}/", self.folder.path().display());
        let mut message = stderr[from..].replace(&here, "").replace(", bf16, ", ", f32, ").trim().to_owned();
        // The width of columns depends on the length of the folder's name.
        while message.contains("    ") {
            message = message.replace("    ", "   ");
        }
        self.blocks.insert(message);
    }

    fn pipeline(&self, name: &str, more: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        let (docs, model, table) = (at("docs.parquet"), at("model"), at("docs.lance"));
        let text = format!("version = 1\nsource.uri = {docs:?}\nmodel.id = {model:?}\ntable.uri = {table:?}\n{more}");
        fs::write(self.path(name), text).unwrap();
    }
}

const QUIET: [&str; 2] = ["--progress", "none"];

/// `embed` with a source, a table, a model and more.
fn embed<'a>(source: &'a str, table: &'a str, model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["embed", "--source", source, "--table", table, "--model", model], &QUIET[..], more].concat()
}

/// The blocks of the page that are fenced as `text`.
fn page() -> BTreeSet<String> {
    let text = fs::read_to_string(repository().join("docs/reference/errors.md")).unwrap();
    let blocks = text.split("```text\n").skip(1);
    blocks.map(|block| block.split("\n```").next().unwrap().to_owned()).collect()
}

#[test]
fn error_page_quotes_the_output_of_the_program() {
    let mut folder = Folder::new();
    let (docs, table, model) = ("DIR/docs.parquet", "DIR/docs.lance", "DIR/model");

    // Sources.
    folder.fails(2, &embed("DIR/nothing/", table, model, &[]), &[]);
    folder.fails(2, &embed("DIR/notes [2024].csv", table, model, &[]), &[]);
    folder.fails(2, &embed("ftp://host/docs", table, model, &[]), &[]);
    folder.fails(2, &embed("builtin:udhr?codes=xxx", table, model, &[]), &[]);
    folder.fails(2, &embed("-", table, model, &[]), &[]);
    folder.fails(2, &embed("DIR/broken.parquet", table, model, &[]), &[]);
    folder.fails(2, &embed(docs, table, model, &["--text", "txt"]), &[]);
    folder.fails(2, &embed("DIR/notes.csv", table, model, &["--keep", "text_"]), &[]);
    folder.fails(2, &embed("DIR/notes.csv", table, model, &["--id", "id", "--keep", "chunk"]), &[]);
    folder.fails(2, &["init", "DIR/numbers.csv", "--output", "DIR/pipeline.toml"], &[]);
    folder.fails(2, &["init", docs, "--output", "DIR/notes.csv"], &[]);
    folder.fails(2, &embed("DIR/notes.csv", table, model, &["--id", "ref"]), &[]);
    folder.fails(2, &embed("DIR/notes.csv", table, model, &["--where", "langue = 'en'"]), &[]);

    write_parquet(&folder.path("long.parquet"), &[Row::new("a".to_owned(), "cat dot tin ".repeat(50))]);
    assert_eq!(folder.run(&embed("DIR/long.parquet", "DIR/long.lance", model, &[]), &[]).code, 0);
    folder.fails(2, &embed("DIR/long.lance", table, model, &[]), &[]);

    folder.fails(2, &embed("hf://datasets/org/news", table, model, &[]), &[]);
    folder.fails(2, &embed("hf://org/news", table, model, &[]), &[]);

    // Models.
    folder.fails(2, &embed(docs, table, "DIR/nowhere", &[]), &[]);
    folder.fails(2, &embed(docs, table, "DIR/no-tokenizer", &[]), &[]);
    folder.fails(1, &embed(docs, table, "DIR/cut-off", &[]), &[]);
    folder.fails(1, &embed(docs, table, "DIR/wrong-shape", &[]), &[]);
    folder.fails(2, &embed(docs, table, model, &["--devices", "tpu"]), &[]);
    folder.fails(2, &embed(docs, table, model, &["--devices", "cpu,cuda:0"]), &[]);
    folder.pipeline("half.toml", "model.dtype = \"f16\"\nmodel.devices = [\"cpu\"]\n");
    folder.fails(2, &["run", "DIR/half.toml"], &[]);

    // Pipeline files.
    folder.pipeline("typo.toml", "[quarantine]\nmax_row = 5\n");
    folder.fails(2, &["run", "DIR/typo.toml"], &[]);
    folder.pipeline("range.toml", "[quarantine]\nmax_share = 1.5\n");
    folder.fails(2, &["run", "DIR/range.toml"], &[]);
    folder.fails(2, &["run", "DIR/none.toml"], &[]);

    // Tables.
    folder.fails(2, &embed(docs, "DIR/photos", model, &[]), &[]);
    folder.fails(2, &["search", "--table", "DIR/docs.lance", "cat"], &[]);
    assert_eq!(folder.run(&embed(docs, table, model, &[]), &[]).code, 0);
    folder.pipeline("prefixed.toml", "model.prompts.passage = \"x: \"\n");
    folder.fails(2, &["run", "DIR/prefixed.toml"], &[]);
    folder.fails(2, &embed("DIR/notes.csv", table, model, &["--keep", "lang"]), &[]);
    folder.fails(1, &embed(docs, "/proc/docs.lance", model, &[]), &[]);
    folder.fails(2, &["quarantine", "list", "--table", "DIR/other.lance"], &[]);
    folder.fails(2, &["map", "--table", "hf://datasets/org/news/docs.lance"], &[]);
    let no_token = [("HF_HUB_OFFLINE", "0"), ("HF_TOKEN", ""), ("HF_TOKEN_PATH", "/nonexistent")];
    folder.fails(2, &["push", "DIR/docs.lance", "hf://datasets/org/news"], &no_token);

    // Runs.
    let bad: Vec<Row> = (0..4).map(|n| Row::new(format!("d{n}"), if n == 0 { "cat" } else { "" })).collect();
    write_parquet(&folder.path("docs.parquet"), &bad);
    folder.pipeline("strict.toml", "[quarantine]\nmax_rows = 2\n");
    folder.fails(1, &["run", "DIR/strict.toml", "--progress", "none"], &[]);
    folder.fails(2, &["quarantine", "drop", "--table", table, "--all"], &[]);
    folder.pipeline("alone.toml", "table.concurrent = \"refuse\"\n");
    folder.fails(2, &["run", "DIR/alone.toml", "--shard", "0/8"], &[]);
    folder.fails(2, &["run", "DIR/strict.toml", "--shard", "auto"], &[("JOB_COMPLETION_INDEX", "3")]);
    let cluster = ["--cluster", "http://127.0.0.1:50050"];
    folder.fails(2, &[&["run", "DIR/strict.toml"], &cluster[..]].concat(), &[]);
    folder.fails(2, &[&["run", "DIR/strict.toml", "--set", "table.uri=DIR/new.lance"], &cluster[..]].concat(), &[]);
    folder.fails(2, &[&["run", "DIR/strict.toml", "--shard", "0/8"], &cluster[..]].concat(), &[]);
    let holder =
        r#"{"run_id":"019e0000","process":{"host":"night","world":"another","pid":4711,"started":1},"released":false}"#;
    fs::create_dir(folder.path("docs.lease")).unwrap();
    fs::write(folder.path("docs.lease/000000000001.json"), holder).unwrap();
    let held = folder.run(&["run", "DIR/alone.toml", "--progress", "none"], &[]);
    let (before, after) = held.stderr.split_once("last renewed ").unwrap();
    let (_, after) = after.split_once(" s ago").unwrap();
    folder.keep(&format!("{before}last renewed 0 s ago{after}"));
    let many: Vec<Row> = (0..40_000).map(|n| Row::new(format!("d{n}"), "cat")).collect();
    write_parquet(&folder.path("many.parquet"), &many);
    let many = embed("DIR/many.parquet", "DIR/many.lance", model, &[]);
    folder.fails(1, &many, &[("TMPDIR", "/proc/none")]);

    // Stores.
    let guarded = S3Server::start_guarded("corpus");
    for (source, table) in [("s3://corpus/docs/", "s3://corpus/out.lance"), (docs, "s3://corpus/out.lance")] {
        let refused = folder.run(&embed(source, table, model, &[]), &guarded.variables());
        assert_eq!(refused.code, 1);
        folder.keep(&without_store_text(&refused.stderr));
    }

    let (page, printed) = (page(), folder.blocks);
    let join = |blocks: Vec<&String>| {
        let fenced: Vec<String> = blocks
            .iter()
            .map(|block| {
                format!(
                    "
```text
{block}
```"
                )
            })
            .collect();
        fenced.concat()
    };
    let (not_printed, not_quoted) =
        (join(page.difference(&printed).collect()), join(printed.difference(&page).collect()));
    assert!(
        not_printed.is_empty() && not_quoted.is_empty(),
        "on the page but not printed:{not_printed}\n\nprinted but not on the page:{not_quoted}"
    );
}

/// The message without the store's own text, which differs from store to store.
fn without_store_text(stderr: &str) -> String {
    let own = |line: &&str| line.starts_with("error: ") || line.starts_with("hint: ");
    stderr.lines().filter(own).map(|line| line.split(" failed: ").next().unwrap_or(line)).collect::<Vec<_>>().join("\n")
}
