//! Commands on a terminal: the prompt of `polylance sql`, and a source that nobody pipes in.

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

#[test]
fn source_on_a_terminal_is_refused_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    let spawn = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let refused = Command::new(python())
        .args(["-c", spawn])
        .arg(binary_path("polylance"))
        .args(["embed", "--source", "-", "--progress", "none", "--table"])
        .arg(folder.path().join("docs.lance"))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&refused.stdout);
    assert!(shown.contains("which is a terminal") && shown.contains("| polylance embed --source -"), "{shown}");
    assert_eq!(refused.status.code(), Some(2), "{shown}");
}
