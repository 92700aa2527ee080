//! The name of a table for a source.

use std::path::Path;

/// A local table with the name of the source: `docs.lance` for `s3://bucket/docs.jsonl.gz`.
pub(super) fn of_source(source: &str) -> String {
    let path = match source.split_once("://") {
        Some((_, path)) => path.split(['?', '#']).next().unwrap_or_default(),
        None => match source.strip_prefix("builtin:") {
            Some(name) => name.split('?').next().unwrap_or_default(),
            None => source,
        },
    };
    let is_plain = |part: &&str| part.chars().any(char::is_alphanumeric) && !part.contains(['*', '?', '[', '{']);
    let last = path.split('/').rev().find(is_plain).unwrap_or("table");
    let stem = last.split('.').find(|part| !part.is_empty()).unwrap_or("table");
    // A port, a space or a quote in a name would need quotes in a shell.
    let plain = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' };
    // A Lance table is not its own source.
    let suffix =
        if Path::new(last).extension().is_some_and(|extension| extension == "lance") { "-embedded" } else { "" };
    format!("{}{suffix}.lance", stem.chars().map(plain).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_the_name_of_the_source() {
        for (source, table) in [
            ("docs.jsonl.gz", "docs.lance"),
            ("corpus/", "corpus.lance"),
            ("s3://bucket/notes.lance/", "notes-embedded.lance"),
            ("/data/news/2024/*.parquet", "2024.lance"),
            ("s3://bucket/*.parquet", "bucket.lance"),
            ("s3://bucket/**/part-{0,1}.parquet", "bucket.lance"),
            ("https://host:8080/a/docs.csv?token=a/b", "docs.lance"),
            ("https://host:8080/?token=a", "host-8080.lance"),
            ("builtin:udhr?codes=eng,fra", "udhr.lance"),
            ("my \"notes\".csv", "my--notes-.lance"),
            ("données_日本.csv", "données_日本.lance"),
            (".hidden.csv", "hidden.lance"),
            (".", "table.lance"),
            ("../*", "table.lance"),
            ("-", "table.lance"),
        ] {
            assert_eq!(of_source(source), table, "{source}");
        }
    }
}
