//! Fused heads, on the fake device.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{FieldRef, UInt64Type},
};
use datafusion::{
    error::Result,
    execution::TaskContext,
    physical_plan::{collect, displayable},
    prelude::SessionConfig,
};
use polylance_backend::{Backend, BackendHandle, TokenizeSpec};
use polylance_dataflow::{Source, SourceSpec, plan_embeddings};
use polylance_schema::{
    Aggregation, Chunking, ContentRule, Cut, Scores, TaskSpec,
    columns::{DOC_ID, EMBEDDING, ERROR},
    encoded_schema, with_heads,
};
use polylance_testkit::{FakeBackend, fake_head_contract};

const DIM: usize = 4;

fn names() -> TaskSpec {
    TaskSpec::Ner { aggregation: Aggregation::Simple }
}

fn length() -> TaskSpec {
    TaskSpec::Classify { scores: Scores::Best }
}

fn column(name: &str, spec: TaskSpec) -> FieldRef {
    Arc::new(fake_head_contract(spec).field(name).unwrap())
}

async fn encode(
    rows: &[(&str, &str)],
    window_tokens: usize,
    heads: &[FieldRef],
    tasks: Vec<TaskSpec>,
) -> Result<RecordBatch> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("docs.jsonl");
    let lines: Vec<_> = rows.iter().map(|(id, text)| serde_json::json!({"id": id, "text": text}).to_string()).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    let uri = path.display().to_string();
    let spec = SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(uri) };
    let source = Source::open(spec).await.unwrap();
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(DIM).with_heads(tasks));
    let info = polylance_backend::BackendInfo { window_tokens, ..backend.info().clone() };
    let tokenize =
        TokenizeSpec { prefix: String::new(), chunking: Chunking::Split { max_tokens: 5, overlap: 0, cut: Cut::Word } };
    let plan = plan_embeddings(&source, None, None, tokenize, &info, heads, ContentRule::default())?;
    assert!(displayable(plan.as_ref()).indent(false).to_string().contains("heads=people,length"));
    let schema = plan.schema();
    assert_eq!(schema.fields(), with_heads(&encoded_schema(&[], DIM), heads).fields());
    let config = SessionConfig::new().with_extension(Arc::new(BackendHandle(backend)));
    let context = Arc::new(TaskContext::default().with_session_config(config));
    Ok(concat_batches(&schema, &collect(plan, context).await?)?)
}

/// `(text, start)` of the spans of each row.
fn spans(batch: &RecordBatch) -> Vec<Vec<(String, u64)>> {
    let lists = batch["people"].as_list::<i32>();
    let row_spans = |row: usize| {
        let spans = lists.value(row);
        let spans = spans.as_struct();
        let texts = spans.column_by_name("text").unwrap().as_string::<i32>();
        let starts = spans.column_by_name("start").unwrap().as_primitive::<UInt64Type>();
        (0..spans.len()).map(|at| (texts.value(at).to_owned(), starts.value(at))).collect()
    };
    (0..batch.num_rows()).map(row_spans).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_fill_columns_next_to_the_vector_and_spans_are_merged_over_chunks() {
    let refused = format!("d Ada {}", FakeBackend::REFUSED);
    let rows = [("a", "was it you Ada Lovelace it was"), ("b", "so it was"), ("c", &refused), ("d", "by Zoë")];
    let heads = [column("people", names()), column("length", length())];
    let whole = encode(&rows, 1000, &heads, vec![names(), length()]).await.unwrap();
    let ids: Vec<_> = whole[DOC_ID].as_string::<i32>().iter().flatten().collect();
    assert_eq!(ids, ["a", "a", "a", "b", "c", "d"]);
    let found: Vec<Vec<(String, u64)>> = spans(&whole);
    // "Ada" and "Lovelace" have one label and are in one chunk: "was it you" | "Ada Lovelace it" | "was".
    assert_eq!(found[1], [("Ada".to_owned(), 11), ("Lovelace".to_owned(), 15)]);
    assert_eq!(found[5], [("Zoë".to_owned(), 3)]);
    assert!(found[0].is_empty() && found[2].is_empty() && found[3].is_empty());
    // The fake device refuses to tokenize `c`: no vector, no values, an error.
    let valid = |name: &str| (0..6).map(|row| whole[name].is_valid(row)).collect::<Vec<_>>();
    assert_eq!(valid(EMBEDDING), [true, true, true, true, false, true]);
    assert_eq!((valid("people"), valid("length")), (valid(EMBEDDING), valid(EMBEDDING)));
    assert_eq!(valid(ERROR), [false, false, false, false, true, false]);

    // A window has all chunks of a document, however small its limit.
    let small = encode(&rows, 1, &heads, vec![names(), length()]).await.unwrap();
    assert_eq!(spans(&small), found);
    for name in [DOC_ID, EMBEDDING, "length"] {
        assert_eq!(small[name].as_ref(), whole[name].as_ref(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_other_heads_than_the_backend_has_is_refused() {
    let heads = [column("people", names()), column("length", length())];
    let error = encode(&[("a", "Ada")], 10, &heads, vec![names()]).await.unwrap_err();
    assert!(error.to_string().contains("2 heads, the backend has 1"), "{error}");
    let bare = [Arc::new(arrow::datatypes::Field::new("people", arrow::datatypes::DataType::Utf8, true))];
    let error = encode(&[("a", "Ada")], 10, &bare, vec![names()]).await.unwrap_err();
    assert!(error.to_string().contains("\"people\" is no annotation"), "{error}");
}
