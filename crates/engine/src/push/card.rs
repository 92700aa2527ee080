//! The card of a dataset with a table: its contents, the contract of its vectors, and the commands that read it.
//!
//! The front matter is written once and then belongs to the user. The rest is a block between two marks, which each push
//! replaces; a card without the marks is left as it is.

use std::fmt::Write;

use polylance_schema::Contract;
use polylance_search::TableDescription;

const BEGIN: &str = "<!-- polylance push: begin -->";
const END: &str = "<!-- polylance push: end -->";

/// The facts of a card.
pub(super) struct Card<'a> {
    pub(super) description: &'a TableDescription,
    /// The table's address on the hub.
    pub(super) address: &'a str,
    /// The table's path in the dataset.
    pub(super) folder: &'a str,
    pub(super) languages: &'a [String],
    pub(super) license: Option<&'a str>,
}

impl Card<'_> {
    /// The card that replaces an old one; `None` where the old one stays.
    pub(super) fn updated(&self, old: Option<&str>) -> Option<String> {
        let Some(old) = old else { return Some(format!("{}\n{}\n", self.front_matter(), self.block())) };
        let (before, rest) = old.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{}{after}", self.block()))
    }

    /// Metadata that the hub reads. A text in JSON is one in YAML too.
    fn front_matter(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut lines = vec!["---".to_owned()];
        lines.extend(self.license.map(|license| format!("license: {}", quoted(license))));
        let codes: Vec<&String> = self.languages.iter().filter(|code| is_language_code(code)).collect();
        if !codes.is_empty() {
            lines.push("language:".to_owned());
            lines.extend(codes.into_iter().map(|code| format!("- {}", quoted(code))));
        }
        lines.extend(["tags:", "- lance", "- embeddings", "- polylance"].map(str::to_owned));
        lines.push("size_categories:".to_owned());
        lines.push(format!("- {}", size_category(self.description.rows)));
        lines.extend(["configs:", "- config_name: default", "  data_files:", "  - split: train"].map(str::to_owned));
        lines.push(format!("    path: {}", quoted(&format!("{}/**", self.folder))));
        lines.push("---\n".to_owned());
        lines.join("\n")
    }

    fn block(&self) -> String {
        let Self { description, address, .. } = self;
        let mut text = format!("{BEGIN}\n# {}\n\n", self.folder);
        text.push_str("A [Lance](https://lance.org) table of texts and their embeddings, written by polylance.\n\n");
        let mut fact = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _written = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        };
        fact("", "");
        fact("---", "---");
        fact("rows", &description.rows.to_string());
        fact("version", &description.version.to_string());
        if let Some(contract) = &description.contract {
            for (name, value) in contract_facts(contract) {
                fact(name, &value);
            }
        }
        let columns: Vec<String> = description.schema.iter().map(|column| format!("`{}`", column.name)).collect();
        fact("columns", &columns.join(", "));
        let indices: Vec<String> =
            description.indices.iter().map(|index| format!("{} on `{}`", index.kind, index.column)).collect();
        let indices = if indices.is_empty() { "none".to_owned() } else { indices.join(", ") };
        fact("indices", &indices);
        let _written = write!(
            text,
            "\n## Search\n\n```console\n$ polylance search --table {address} \"a question\"\n$ polylance sql --table \
             docs={address} \"SELECT count(*) FROM docs\"\n```\n\nVectors are compared only with those of queries that \
             are embedded with the same model, prompts and dtype; polylance reads them from the table.\n\n## \
             Load\n\n```python\nimport lance\n\ndataset = lance.dataset(\"{address}\")\n```\n{END}"
        );
        text
    }
}

fn contract_facts(contract: &Contract) -> [(&'static str, String); 7] {
    let prompts = &contract.prompts;
    [
        ("model", format!("`{}`", contract.model)),
        ("weights (BLAKE3)", format!("`{}`", contract.weights_hash)),
        ("dimensions", contract.dim.to_string()),
        ("dtype", contract.dtype.clone()),
        ("pooling", format!("{:?}, {}normalized", contract.pooling, if contract.normalize { "" } else { "not " })),
        ("prompts", format!("`{:?}` before documents, `{:?}` before queries", prompts.passage, prompts.query)),
        ("documents", contract.chunking.to_string()),
    ]
}

/// The hub's name for a number of rows.
fn size_category(rows: u64) -> &'static str {
    match rows {
        0..1_000 => "n<1K",
        1_000..10_000 => "1K<n<10K",
        10_000..100_000 => "10K<n<100K",
        100_000..1_000_000 => "100K<n<1M",
        1_000_000..10_000_000 => "1M<n<10M",
        10_000_000..100_000_000 => "10M<n<100M",
        100_000_000..1_000_000_000 => "100M<n<1B",
        _ => "n>1B",
    }
}

/// Whether a text is a code of two or three letters, as the hub lists languages.
fn is_language_code(text: &str) -> bool {
    matches!(text.len(), 2 | 3) && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use polylance_schema::{Chunking, Pooling, Prompts};

    use super::*;

    fn description() -> TableDescription {
        let contract = Contract {
            model: "builtin:multilingual-e5-small".into(),
            weights_hash: "7c1e".into(),
            tokenizer_hash: "03fa".into(),
            pooling: Pooling::Mean,
            normalize: true,
            prompts: Prompts { passage: "passage: ".into(), query: "query: ".into() },
            chunking: Chunking::Truncate { max_tokens: 512 },
            dtype: "f32".into(),
            dim: 384,
        };
        TableDescription {
            uri: "docs.lance".into(),
            rows: 1800,
            version: 2,
            versions: 2,
            recent_versions: Vec::new(),
            schema: Vec::new(),
            indices: Vec::new(),
            contract: Some(contract),
            quarantine_rows: 0,
        }
    }

    #[test]
    fn card_names_the_contract_and_keeps_the_words_of_its_author() {
        let description = description();
        let languages = ["en", "zxx", "not a code"].map(str::to_owned);
        let address = "hf://datasets/org/news/docs.lance";
        let card =
            Card { description: &description, address, folder: "docs.lance", languages: &languages, license: None };
        let first = card.updated(None).unwrap();
        assert!(first.starts_with("---\nlanguage:\n- \"en\"\n- \"zxx\"\ntags:\n- lance\n"), "{first}");
        for part in ["1K<n<10K", "path: \"docs.lance/**\"", "| dimensions | 384 |", "| dtype | f32 |", address] {
            assert!(first.contains(part), "{part} is missing in {first}");
        }
        assert!(!first.contains("license:") && !first.contains("not a code"));
        let licensed = Card { license: Some("cc-by-4.0"), ..card }.updated(None).unwrap();
        assert!(licensed.starts_with("---\nlicense: \"cc-by-4.0\"\n"));
        // The author adds a licence and a text, and a later push replaces the block alone.
        let edited = first.replace("tags:", "license: mit\ntags:") + "\nThanks to all.\n";
        let newer = TableDescription { rows: 1900, ..description.clone() };
        let card = Card { description: &newer, address, folder: "docs.lance", languages: &[], license: None };
        let updated = card.updated(Some(&edited)).unwrap();
        assert!(updated.contains("license: mit") && updated.ends_with("\nThanks to all.\n"), "{updated}");
        assert!(updated.contains("| rows | 1900 |") && !updated.contains("| rows | 1800 |"));
        assert_eq!(card.updated(Some("# My own card\n")), None);
    }
}
