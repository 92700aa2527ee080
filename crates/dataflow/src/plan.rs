//! The plan from a source to embeddings.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::{error::Result, physical_plan::ExecutionPlan};
use polylance_backend::{BackendInfo, TokenizeSpec};
use polylance_schema::ContentRule;

use crate::{
    exec::{
        anti_join::{AntiJoinExec, KnownDocuments},
        distinct::{DistinctIdExec, RepeatedId},
        encode::EncodeExec,
        filter_rows::{FilterRowsExec, RowSet},
        scan::SourceScanExec,
        tokenize::TokenizeExec,
    },
    source::open::Source,
};

/// Scans, drops the documents that the table has, tokenizes and encodes. `keys` yields `key_schema()`: the table's
/// documents. With `only`, other rows of the source are read and dropped. Of the files before a shard the ids are read.
///
/// The plan yields `encoded_schema(keep, dim)` in one partition, followed by `heads`: the columns of the backend's
/// heads, with their contracts. `rule` is the rule of the table's content hashes.
///
/// # Errors
/// When the parts do not fit together, which is a defect of the caller.
pub fn plan_embeddings(
    source: &Source,
    keys: Option<Arc<dyn ExecutionPlan>>,
    only: Option<Arc<RowSet>>,
    tokenize: TokenizeSpec,
    info: &BackendInfo,
    heads: &[FieldRef],
    rule: ContentRule,
) -> Result<Arc<dyn ExecutionPlan>> {
    let earlier = SourceScanExec::earlier_ids(source).map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>);
    let mut documents: Arc<dyn ExecutionPlan> = Arc::new(distinct_rows(source, rule).with_earlier(earlier));
    if let Some(only) = only {
        documents = Arc::new(FilterRowsExec::new(documents, only));
    }
    if let Some(keys) = keys {
        documents = Arc::new(AntiJoinExec::try_new(keys, documents)?);
    }
    let chunks = Arc::new(TokenizeExec::try_new(documents, tokenize)?);
    Ok(Arc::new(EncodeExec::try_new(chunks, info, heads)?))
}

/// As [`plan_embeddings`], for a split: ids of the rows before it are `taken`, and `known` are the table's documents.
///
/// # Errors
/// When the parts do not fit together, which is a defect of the caller.
pub fn plan_split_embeddings(
    split: &Source,
    known: Option<Arc<KnownDocuments>>,
    taken: Arc<[u128]>,
    tokenize: TokenizeSpec,
    info: &BackendInfo,
    heads: &[FieldRef],
    rule: ContentRule,
) -> Result<Arc<dyn ExecutionPlan>> {
    let mut documents: Arc<dyn ExecutionPlan> = Arc::new(distinct_rows(split, rule).with_taken(taken));
    if let Some(known) = known {
        documents = Arc::new(AntiJoinExec::with_known(known, documents));
    }
    let chunks = Arc::new(TokenizeExec::try_new(documents, tokenize)?);
    Ok(Arc::new(EncodeExec::try_new(chunks, info, heads)?))
}

/// Reads a split for the list of its ids in the session. The texts are read too: a row with a text that is refused does
/// not use its id.
pub fn plan_split_ids(split: &Source, rule: ContentRule) -> Arc<dyn ExecutionPlan> {
    Arc::new(distinct_rows(split, rule))
}

/// The rows of a source, each id once.
fn distinct_rows(source: &Source, rule: ContentRule) -> DistinctIdExec {
    let scan = Arc::new(SourceScanExec::new(source.clone()).with_rule(rule));
    let repeated = if source.has_content_ids() { RepeatedId::Dropped } else { RepeatedId::Refused };
    DistinctIdExec::new(scan).with_repeated(repeated)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use arrow::{
        array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray},
        compute::concat_batches,
        datatypes::{UInt32Type, UInt64Type},
    };
    use datafusion::{
        catalog::memory::MemorySourceConfig,
        execution::TaskContext,
        physical_plan::{collect, displayable},
        prelude::SessionConfig,
    };
    use parquet::arrow::ArrowWriter;
    use polylance_backend::{Backend, BackendHandle};
    use polylance_schema::{
        Chunking, Cut,
        columns::{CHUNK, CONTENT_HASH, DOC_ID, EMBEDDING, ERROR, N_TOKENS, SOURCE_ROW, TEXT},
        encoded_schema, key_schema,
    };
    use polylance_testkit::FakeBackend;

    use super::*;
    use crate::{exec::testing::texts, progress::progress, source::spec::SourceSpec};

    const DIM: usize = 4;

    fn write(path: &Path, rows: &[(&str, &str)]) {
        let batch = RecordBatch::try_from_iter([
            ("id", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))) as _),
            ("text", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))) as _),
        ])
        .unwrap();
        let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    async fn plan(
        rows: &[(&str, &str)],
        keys: Option<Arc<dyn ExecutionPlan>>,
    ) -> (Arc<dyn ExecutionPlan>, RecordBatch) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("docs.parquet");
        write(&path, rows);
        let spec = SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(path.display().to_string()) };
        let source = Source::open(spec).await.unwrap();
        let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM));
        let chunking = Chunking::Split { max_tokens: 6, overlap: 0, cut: Cut::Word };
        let tokenize = TokenizeSpec { prefix: "passage: ".into(), chunking };
        let plan = plan_embeddings(&source, keys, None, tokenize, backend.info(), &[], ContentRule::default()).unwrap();
        let config = SessionConfig::new().with_extension(Arc::new(BackendHandle(backend)));
        let context = Arc::new(TaskContext::default().with_session_config(config));
        let batches = collect(Arc::clone(&plan), context).await.unwrap();
        let schema = plan.schema();
        assert_eq!(schema.fields(), encoded_schema(&[], DIM).fields());
        (plan, concat_batches(&schema, &batches).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_chunk_has_a_vector_in_the_order_of_the_source() {
        let (plan, batch) =
            plan(&[("a", "one two three four five"), ("b", "six"), ("c", "seven eight nine ten")], None).await;
        assert_eq!(texts(&batch, DOC_ID), ["a", "a", "b", "c", "c"]);
        assert_eq!(texts(&batch, TEXT), ["one two three", "four five", "six", "seven eight nine", "ten"]);
        assert_eq!(batch[CHUNK].as_primitive::<UInt32Type>().values(), &[0, 1, 0, 0, 1]);
        assert_eq!(batch[N_TOKENS].as_primitive::<UInt32Type>().values(), &[6, 5, 4, 6, 4]);
        assert_eq!((batch[EMBEDDING].null_count(), batch[ERROR].null_count()), (0, 5));

        let progress = progress(plan.as_ref());
        assert_eq!(
            (progress.rows_read, progress.rows_skipped, progress.chunks_encoded, progress.tokens_encoded),
            (3, 0, 5, 25)
        );
        assert_eq!(progress.bytes_read, progress.bytes_total);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn documents_of_the_table_are_not_encoded_again() {
        let rows = [("a", "one"), ("b", "two"), ("c", "three"), ("d", "four")];
        let (_, all) = plan(&rows, None).await;
        let hashes: &FixedSizeBinaryArray = all[CONTENT_HASH].as_fixed_size_binary();
        // The table has `a` and `c` as they are, and an older `b`.
        let hashes =
            FixedSizeBinaryArray::try_from_iter([hashes.value(0), hashes.value(2), hashes.value(3)].into_iter())
                .unwrap();
        let keys = RecordBatch::try_new(
            key_schema(),
            vec![Arc::new(StringArray::from(vec!["a", "c", "b"])), Arc::new(hashes)],
        )
        .unwrap();
        let keys = MemorySourceConfig::try_new_exec(&[vec![keys]], key_schema(), None).unwrap();
        let (plan, rest) = plan(&rows, Some(keys)).await;
        assert_eq!(texts(&rest, DOC_ID), ["b", "d"]);
        assert_eq!(progress(plan.as_ref()).rows_skipped, 2);
        let shown = displayable(plan.as_ref()).indent(false).to_string();
        for operator in ["EncodeExec", "TokenizeExec", "AntiJoinExec", "DistinctIdExec", "SourceScanExec"] {
            assert!(shown.contains(operator), "{shown}");
        }
        let tree = displayable(plan.as_ref()).tree_render().to_string();
        for field in ["EncodeExec", "window_tokens", "chunking", "files"] {
            assert!(tree.contains(field), "{tree}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn refused_rows_keep_their_error_and_do_not_affect_others() {
        let refused = format!("a text with {}", FakeBackend::REFUSED);
        let rows = [("a", "one"), ("b", ""), ("a", "one"), ("c", refused.as_str()), ("d", "four")];
        let keys = MemorySourceConfig::try_new_exec(&[vec![]], key_schema(), None).unwrap();
        let (_, batch) = plan(&rows, Some(keys)).await;
        assert_eq!(batch[SOURCE_ROW].as_primitive::<UInt64Type>().values(), &[0, 1, 2, 3, 4]);
        let errors = batch[ERROR].as_struct();
        let stages: Vec<_> =
            (0..5).map(|row| errors.is_valid(row).then(|| errors.column(0).as_string::<i32>().value(row))).collect();
        assert_eq!(stages, [None, Some("scan"), Some("distinct"), Some("tokenize"), None]);
        let vectors: Vec<bool> = (0..5).map(|row| batch[EMBEDDING].is_valid(row)).collect();
        assert_eq!(vectors, [true, false, false, false, true]);
    }
}
