//! From a pipeline to its job.

use polylance_config::{CsvByte, Pipeline};
use polylance_dataflow::{CsvSpec, SourceSpec};
use polylance_schema::TextColumn;
use polylance_sink::IndexSpec;

use super::job::{Job, Limits};

impl From<&Pipeline> for Job {
    fn from(pipeline: &Pipeline) -> Self {
        let Pipeline { source, table, index, .. } = pipeline;
        Self {
            source: SourceSpec {
                uri: source.uri.clone(),
                format: source.format,
                id: source.id.clone(),
                text: source.text.clone(),
                keep: source.keep.clone(),
                condition: source.condition.clone(),
                max_bytes: source.max_bytes.0,
                csv: CsvSpec {
                    delimiter: source.csv.delimiter.map(CsvByte::byte),
                    quote: source.csv.quote.map(CsvByte::byte),
                    escape: source.csv.escape.map(CsvByte::byte),
                },
                memory: pipeline.run.memory.0,
            },
            table: table.uri.clone(),
            text: if table.text { TextColumn::Kept } else { TextColumn::LeftOut },
            commit: table.commit,
            index: IndexSpec {
                kind: index.kind,
                metric: index.metric,
                min_rows: index.min_rows,
                full_text: index.words,
            },
            upkeep: table.upkeep,
            on_missing: source.removed,
            concurrency: table.concurrent,
            reread: false,
            shard: None,
            cluster: None,
            limits: Limits { rows: pipeline.quarantine.max_rows, share: pipeline.quarantine.max_share },
            memory: usize::try_from(pipeline.run.memory.0).unwrap_or(usize::MAX),
        }
    }
}
