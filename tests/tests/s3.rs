//! The same job over a real S3 server: source, table and quarantine are objects.

use polylance_tests::{Row, S3Server, TinyModel, polylance_with, write_parquet};

#[test]
fn source_and_table_live_in_a_bucket() {
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

    let search = ["search", "--table", "s3://corpus/out.lance", "cat", "-k", "2", "--json"];
    let hits = polylance_with(&search, &variables, b"").exits_with(0).json();
    assert_eq!(hits.as_array().unwrap().len(), 2);

    let missing = ["embed", "--source", "s3://corpus/none/", "--table", "s3://corpus/x.lance", "--model", &model];
    let refused = polylance_with(&missing, &variables, b"").exits_with(2).says(&["s3://corpus/none/"]);
    assert!(!refused.stderr.contains(variables[4].1), "a secret reached the log");
}
