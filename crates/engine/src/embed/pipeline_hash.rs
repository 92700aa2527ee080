//! The hash that identifies a pipeline in the table's manifest of unchanged files.

use std::collections::BTreeMap;

use polylance_dataflow::SourceSpec;
use polylance_schema::{OnMissing, TextColumn};
use polylance_sink::TableTarget;

/// The version of [`pipeline_hash`] and its encoding. It is raised whenever the same file may give different rows: then
/// the manifests of existing tables are invalid, and everything is read again.
const PIPELINE_HASH_VERSION: u32 = 3;

/// The hash of everything that decides the rows of a run: two runs with the same hash and source write the same table.
/// It covers names and values as pipeline files spell them, so renames in the code do not change it.
pub(super) fn pipeline_hash(source: &SourceSpec, on_missing: OnMissing, target: &TableTarget) -> String {
    let SourceSpec { uri, format, id, text, keep, condition, max_bytes, csv, memory: _ } = source;
    let heads: Vec<_> = target.heads.iter().map(|head| (head.name(), BTreeMap::from_iter(head.metadata()))).collect();
    // The keys are in alphabetical order: JSON maps may sort them.
    let mut canonical = serde_json::json!({
        "contract": BTreeMap::from_iter(target.contract.to_metadata()),
        "heads": heads,
        "source": {
            "csv": [csv.delimiter, csv.quote, csv.escape],
            "format": format,
            "id": id,
            "keep": keep,
            "max_bytes": max_bytes,
            "removed": on_missing,
            "text": text,
            "uri": uri,
        },
        "text": target.text == TextColumn::Kept,
        "version": PIPELINE_HASH_VERSION,
    });
    // Pipelines without a condition keep the hash that they had before there were conditions.
    if let Some(condition) = condition {
        canonical["source"]["where"] = condition.as_str().into();
    }
    blake3::hash(canonical.to_string().as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use polylance_schema::{Chunking, CommitPolicy};
    use polylance_sink::TableMark;
    use polylance_testkit::fake_contract;

    use super::*;

    /// The manifests of existing tables are valid as long as this hash stays.
    #[test]
    fn hash_of_a_pipeline_is_stable() {
        let source = SourceSpec { keep: vec!["lang".into()], max_bytes: 1 << 20, ..SourceSpec::new("docs.jsonl") };
        let contract = fake_contract(8, Chunking::Truncate { max_tokens: 32 });
        let target = TableTarget {
            uri: "docs.lance".into(),
            text: TextColumn::Kept,
            commit: CommitPolicy::default(),
            contract,
            keep: Vec::new(),
            heads: Vec::new(),
            run_id: "r1".into(),
            mark: TableMark::default(),
            properties: HashMap::new(),
        };
        let hash = pipeline_hash(&source, OnMissing::Keep, &target);
        assert_eq!(hash, "a7c6a6a1f69f49ad");
        assert_ne!(pipeline_hash(&source, OnMissing::Delete, &target), hash);
        let elsewhere = TableTarget { commit: CommitPolicy { rows: 7, seconds: 7 }, uri: "elsewhere".into(), ..target };
        let filtered = SourceSpec { condition: Some("lang = 'fr'".to_owned()), ..source.clone() };
        assert_ne!(pipeline_hash(&filtered, OnMissing::Keep, &elsewhere), hash);
        let smaller = SourceSpec { memory: 1 << 20, ..source };
        assert_eq!(
            pipeline_hash(&smaller, OnMissing::Keep, &elsewhere),
            hash,
            "settings that decide no row do not count"
        );
    }
}
