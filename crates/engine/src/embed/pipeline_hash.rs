//! The hash by which a table knows the pipeline that finished a source.

use std::collections::BTreeMap;

use polylance_dataflow::SourceSpec;
use polylance_schema::TextColumn;
use polylance_sink::TableTarget;

use super::Job;

/// The version of [`pipeline_hash`], its encoding included. Raised whenever the same file may give other rows: then what a
/// table notes of finished files no longer holds, and everything is read once more.
const PIPELINE_HASH_VERSION: u32 = 3;

/// What decides the rows of a run: two runs with one hash make the same table of the same source. It is made of names and
/// values as pipeline files write them, so that nothing in the code can be renamed into another hash.
pub(super) fn pipeline_hash(job: &Job, target: &TableTarget) -> String {
    let SourceSpec { uri, format, id, text, keep, max_bytes, csv, memory: _ } = &job.source;
    let heads: Vec<_> = target.heads.iter().map(|head| (head.name(), BTreeMap::from_iter(head.metadata()))).collect();
    // The keys are in the order of the alphabet, in which maps of JSON may put them.
    let canonical = serde_json::json!({
        "contract": BTreeMap::from_iter(target.contract.to_metadata()),
        "heads": heads,
        "source": {
            "csv": [csv.delimiter, csv.quote, csv.escape],
            "format": format,
            "id": id,
            "keep": keep,
            "max_bytes": max_bytes,
            "removed": job.on_missing,
            "text": text,
            "uri": uri,
        },
        "text": job.text == TextColumn::Kept,
        "version": PIPELINE_HASH_VERSION,
    });
    blake3::hash(canonical.to_string().as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use polylance_schema::{Chunking, CommitPolicy, MaintenancePolicy, OnMissing, WriteConcurrency};
    use polylance_sink::{IndexSpec, TableMark};
    use polylance_testkit::fake_contract;

    use super::*;
    use crate::Limits;

    /// What a table notes of finished files holds for as long as this stays.
    #[test]
    fn the_hash_of_a_pipeline_stays() {
        let source = SourceSpec { keep: vec!["lang".into()], max_bytes: 1 << 20, ..SourceSpec::new("docs.jsonl") };
        let job = Job {
            source,
            table: "docs.lance".into(),
            text: TextColumn::Kept,
            commit: CommitPolicy::default(),
            index: IndexSpec::default(),
            upkeep: MaintenancePolicy::OFF,
            on_missing: OnMissing::Keep,
            concurrency: WriteConcurrency::Merge,
            reread: false,
            limits: Limits::NONE,
            memory: 1 << 30,
        };
        let contract = fake_contract(8, Chunking::Truncate { max_tokens: 32 });
        let target = TableTarget {
            uri: job.table.clone(),
            text: job.text,
            commit: job.commit,
            contract,
            keep: Vec::new(),
            heads: Vec::new(),
            run_id: "r1".into(),
            mark: TableMark::default(),
            properties: HashMap::new(),
        };
        let hash = pipeline_hash(&job, &target);
        assert_eq!(hash, "a7c6a6a1f69f49ad");
        let faster = Job { commit: CommitPolicy { rows: 7, seconds: 7 }, table: "elsewhere".into(), ..job.clone() };
        assert_eq!(pipeline_hash(&faster, &target), hash, "what decides no row decides nothing");
        let deleting = Job { on_missing: OnMissing::Delete, ..job };
        assert_ne!(pipeline_hash(&deleting, &target), hash);
    }
}
