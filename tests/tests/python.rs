//! Python clients from `PyPI` read the table: pylance, lancedb and Polars.

use std::process::Command;

use polylance_tests::{polylance, python, repository};

#[test]
fn pylance_lancedb_and_polars_read_and_search_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("docs.lance").display().to_string();
    let source = "builtin:udhr?codes=eng,fra,jpn";
    let _ = polylance(&["embed", "--source", source, "--table", &table, "--keep", "lang,article"]).exits_with(0);

    let script = repository().join("tests/python/open_table.py");
    let output = Command::new(python()).arg(script).arg(&table).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let shown = polylance(&["show", &table, "--json"]).exits_with(0).json();
    assert_eq!(read["rows"], shown["rows"]);
    assert_eq!(read["polars_rows"], shown["rows"]);
    assert_eq!(read["dim"], 384);
    assert_eq!(read["pylance_first"], read["lancedb_first"]);
}
