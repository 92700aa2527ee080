//! The prompt of `polylance sql`, on a terminal.

use std::{fs, process::Command};

use polylance_tests::{binary_path, embed_declaration, polylance_with, python, repository};

#[test]
fn sql_prompt_completes_cancels_and_remembers_statements() {
    let folder = tempfile::tempdir().unwrap();
    let table = embed_declaration(folder.path());
    let talk = Command::new(python())
        .arg(repository().join("tests/python/prompt.py"))
        .arg(folder.path())
        .arg(binary_path("polylance"))
        .args(["sql", "--table", &table])
        .output()
        .unwrap();
    assert!(talk.status.success(), "{}", String::from_utf8_lossy(&talk.stderr));
    let history = fs::read_to_string(folder.path().join("polylance/sql_history")).unwrap();
    assert!(history.contains("max(article)") && history.contains("41 + 1") && !history.contains("lost"), "{history}");
}

#[test]
fn sql_without_a_terminal_requires_a_query() {
    let none = polylance_with(&["sql", "--table", "none.lance"], &[], b"SELECT 1;").exits_with(2);
    let _ = none.stderr_contains(&["a query is needed", "--file -"]);
}
