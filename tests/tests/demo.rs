//! The README's first command: the quickstart corpus and three searches.

mod container;

use std::process::Command;

use polylance_tests::{binary_path, polylance, repository};

#[test]
fn demo_finds_the_right_article_in_three_languages() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("quickstart.lance");
    let demo = Command::new(repository().join("pipelines/demo.sh"))
        .env("POLYLANCE", binary_path("polylance"))
        .env("DEMO_TABLE", &table)
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(demo.status.success(), "{}", String::from_utf8_lossy(&demo.stderr));

    let table = table.to_str().unwrap();
    let shown = polylance(&["show", table, "--json"]).exits_with(0).json();
    // Some articles are longer than the model's limit and became several rows.
    assert!(shown["rows"].as_u64().unwrap() >= 60 * 30, "{shown}");

    let queries = [
        ("the right to marry and found a family", 16),
        ("nadie será sometido a torturas", 5),
        ("教育を受ける権利", 26),
    ];
    for (query, article) in queries {
        let hits = polylance(&["search", "--table", table, query, "-k", "3", "--json"]).exits_with(0).json();
        assert_eq!(hits.as_array().unwrap().len(), 3);
        assert_eq!(hits[0]["article"], article, "{query}: {hits}");
    }
}
