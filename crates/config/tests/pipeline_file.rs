//! Valid and invalid pipeline files, and the messages for the latter.

use polylance_config::{ByteSize, ConfigError, Pipeline, Source, Table};
use polylance_schema::{ChunkMode, Explain};
use serde_json::json;

const SHORTEST: &str = "version = 1\n[source]\nuri = \"builtin:udhr\"\n[table]\nuri = \"udhr.lance\"\n";

fn parse(text: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::parse("p.toml", text, &[""; 0])
}

fn with(set: &str) -> Result<Pipeline, ConfigError> {
    Pipeline::parse("p.toml", SHORTEST, &[set])
}

/// The message and the hint, as the binary prints them.
fn message(result: Result<Pipeline, ConfigError>) -> String {
    let error = result.expect_err("the file is wrong");
    match error.hint() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

#[test]
fn shortest_valid_file_has_five_lines() {
    assert_eq!(SHORTEST.lines().count(), 5);
    assert_eq!(parse(SHORTEST).unwrap(), Pipeline::new(Source::new("builtin:udhr"), Table::new("udhr.lance")));
}

#[test]
fn sql_is_set_without_quotes_around_it() {
    let condition = with("source.where=lang = 'fr' AND n >= 2").unwrap().source.condition;
    assert_eq!(condition.as_deref(), Some("lang = 'fr' AND n >= 2"));
    assert!(with("source.where=").is_err());
    assert_eq!(with("source.keep=[\"_a || b AS c\"]").unwrap().source.keep, ["_a || b AS c"]);
}

#[test]
fn every_key_can_be_set() {
    let text = r#"
version = 1
[source]
uri = "s3://corpus/*.parquet"
format = "parquet"
id = "url"
text = "body"
keep = ["lang", "date"]
where = "lang = 'fr'"
max_bytes = "1 MiB"
[model]
id = "intfloat/multilingual-e5-base"
dtype = "bf16"
devices = ["cuda:0", "cuda:1"]
max_tokens = 256
pooling = "mean"
normalize = true
prompts = { passage = "passage: ", query = "query: " }
dims = 128
tokenizer_threads = 2
batch_tokens = 8192
[chunk]
mode = "split"
tokens = 200
overlap = 20
cut = "word"
[table]
uri = "s3://tables/corpus.lance"
text = false
commit = { rows = 5000, seconds = 60 }
[index]
kind = "ivf_pq"
metric = "dot"
min_rows = 1000
"#;
    let file = parse(text).unwrap();
    assert_eq!(file.source.max_bytes, ByteSize(1 << 20));
    assert_eq!(file.source.condition.as_deref(), Some("lang = 'fr'"));
    assert_eq!((file.chunk.mode, file.chunk.tokens), (ChunkMode::Split, Some(200)));
    assert_eq!(file.table.commit.rows, 5000);
    let written = toml::to_string(&file).unwrap();
    assert_eq!(parse(&written).unwrap(), file, "a written file can be read");
}

#[test]
fn overrides_set_values_of_the_file() {
    let sets =
        ["table.commit.rows=10", "source.text=body", "model.devices=[\"cpu:0\", \"cpu:1\"]", "source.max_bytes=1 MiB"];
    let file = Pipeline::parse("p.toml", SHORTEST, &sets).unwrap();
    assert_eq!((file.table.commit.rows, file.table.commit.seconds), (10, 300));
    assert_eq!(file.source.text, "body");
    assert_eq!(file.model.devices, ["cpu:0", "cpu:1"]);
    assert_eq!(file.source.max_bytes, ByteSize(1 << 20));
    assert!(Pipeline::parse("p.toml", "", &["version=1", "source.uri=a", "table.uri=b"]).is_ok());
}

#[test]
fn invalid_file_error_names_line_key_expected_and_found() {
    let cases = [
        ("misspelled key", SHORTEST.replace("uri = \"b", "uir = \"b")),
        ("misspelled section", SHORTEST.replace("[table]", "[tabel]")),
        ("key far from any", SHORTEST.replace("[table]", "zzz = 1\n[table]")),
        ("nested key", format!("{SHORTEST}commit = {{ row = 1 }}\n")),
        ("another version", SHORTEST.replace("version = 1", "version = 2")),
        ("version as text", SHORTEST.replace("version = 1", "version = \"1\"")),
        ("no version", SHORTEST.replace("version = 1", "")),
        ("no section", SHORTEST.replace("[source]\nuri = \"builtin:udhr\"\n", "")),
        ("no key", SHORTEST.replace("uri = \"udhr.lance\"", "text = true")),
        ("wrong type", SHORTEST.replace("\"udhr.lance\"", "3")),
        ("a section as a value", format!("model = 3\n{SHORTEST}")),
        ("wrong item type", SHORTEST.replace("[table]", "keep = [\"lang\", 3]\n[table]")),
        ("wrong choice", format!("{SHORTEST}[index]\nkind = \"ivfpq\"\n")),
        ("too small", format!("{SHORTEST}[table.commit]\nrows = 0\n")),
        ("negative", format!("{SHORTEST}[index]\nmin_rows = -1\n")),
        ("not a size", SHORTEST.replace("[table]", "max_bytes = \"lots\"\n[table]")),
        ("size of another type", SHORTEST.replace("[table]", "max_bytes = true\n[table]")),
        ("empty", SHORTEST.replace("\"udhr.lance\"", "\"\"")),
        ("no device", format!("{SHORTEST}[model]\ndevices = []\n")),
        ("two kinds of devices", format!("{SHORTEST}[model]\ndevices = [\"cuda:0\", \"cpu:0-3\"]\n")),
        ("not TOML", SHORTEST.replace("[table]", "[table")),
        ("twice", SHORTEST.replace("[table]", "uri = \"other\"\n[table]")),
        ("reserved column", SHORTEST.replace("[table]", "keep = [\"lang\", \"embedding\"]\n[table]")),
        ("overlap with truncate", format!("{SHORTEST}[chunk]\nmode = \"truncate\"\noverlap = 3\n")),
        ("overlap too large", format!("{SHORTEST}[chunk]\ntokens = 100\noverlap = 60\n")),
        ("chunk above the limit", format!("{SHORTEST}[chunk]\ntokens = 100\n[model]\nmax_tokens = 64\n")),
        ("table that cannot be written", SHORTEST.replace("\"udhr.lance\"", "\"https://x/y.lance\"")),
    ];
    let seen: Vec<String> =
        cases.into_iter().map(|(name, text)| format!("# {name}\n{}\n", message(parse(&text)))).collect();
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn invalid_override_is_refused_like_a_file() {
    let cases =
        ["table.urii=x", "table.commit.rows=many", "source=3", "source.uri.x=3", "no-equals", ".=3", "version=2"];
    let seen: Vec<String> = cases.into_iter().map(|set| format!("{}\n", message(with(set)))).collect();
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn unreadable_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nightly.toml");
    let error = Pipeline::read(&missing, &[""; 0]).unwrap_err();
    assert!(error.to_string().ends_with("nightly.toml"), "{error}");
    std::fs::write(&missing, b"version = 1\n# \xff\n").unwrap();
    let error = Pipeline::read(&missing, &[""; 0]).unwrap_err();
    assert!(error.to_string().ends_with("nightly.toml:2: not TOML: the text is not UTF-8"), "{error}");
}

#[test]
fn values_without_a_file_are_checked_like_a_file() {
    let values = |key: &str| {
        let (source, table) = (json!({"uri": "builtin:udhr", key: "text"}), json!({"uri": "udhr.lance"}));
        Pipeline::from_values("settings", &json!({"version": 1, "source": source, "table": table}))
    };
    assert_eq!(values("text").unwrap(), parse(SHORTEST).unwrap());
    let refused = message(values("txt"));
    assert!(refused.starts_with("settings: unknown key `source.txt`\nhint: did you mean `text`?"), "{refused}");
}
