use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use arrow::array::{Float32Array, StructArray};
use polylance_schema::{HeadContract, HeadInputs, Scores, TaskSpec, annotated_schema, chunk_schema, with_heads};

use super::*;
use crate::{Declared, FillReport, FillTarget, LanceFillExec, SinkError, TableRowsExec, declare_columns, missing_rows};

fn head(weights: &str) -> HeadContract {
    HeadContract {
        model: "./topic".into(),
        weights_hash: weights.into(),
        tokenizer_hash: "03fa".into(),
        spec: TaskSpec::Classify { scores: Scores::Best },
        labels: vec!["a".into(), "b".into()],
        prefix: String::new(),
        inputs: HeadInputs::default(),
        dtype: "f32".into(),
    }
}

pub(super) fn topic(weights: &str) -> Field {
    head(weights).field("topic").unwrap()
}

/// Labels each row of `rows` with its text; texts that begin with `bad` are refused.
fn answers(rows: &[RecordBatch], column: &Field) -> Vec<RecordBatch> {
    let DataType::Struct(fields) = column.data_type() else { panic!("a class is a struct") };
    let answer = |batch: &RecordBatch| {
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>();
        let bad: Vec<bool> = texts.iter().map(|text| text.unwrap().starts_with("bad")).collect();
        let good: NullBuffer = bad.iter().map(|bad| !bad).collect();
        let scores = Float32Array::from(vec![0.5; batch.num_rows()]);
        let values = StructArray::new(fields.clone(), vec![Arc::new(texts.clone()), Arc::new(scores)], Some(good));
        let in_all_rows = |text: &str| Arc::new(StringArray::from_iter_values(bad.iter().map(|_| text))) as ArrayRef;
        let errors = StructArray::new(
            error_fields(),
            vec![in_all_rows("annotate"), in_all_rows("refused")],
            Some(bad.iter().copied().collect::<NullBuffer>()),
        );
        let passed = |name: &str| Arc::clone(batch.column_by_name(name).unwrap());
        let columns = vec![passed("_rowaddr"), passed("doc_id"), passed("text"), Arc::new(values), Arc::new(errors)];
        RecordBatch::try_new(annotated_schema(column), columns).unwrap()
    };
    rows.iter().map(answer).collect()
}

/// A new run id.
fn run_id() -> String {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    format!("run-{}", RUNS.fetch_add(1, Ordering::Relaxed))
}

impl TestTable {
    pub(super) async fn missing(&self) -> Vec<RecordBatch> {
        let rows = TableRowsExec::open(&self.uri(), "topic", &HeadInputs::default()).await.unwrap();
        assert_eq!(rows.schema(), chunk_schema(&[]));
        read(Arc::new(rows)).await
    }

    /// Fills the first `max_rows` missing rows; the reports of the commits.
    pub(super) async fn fill(&self, column: &Field, max_rows: usize) -> Vec<FillReport> {
        let missing = arrow::compute::concat_batches(&chunk_schema(&[]), &self.missing().await).unwrap();
        let missing = missing.slice(0, max_rows.min(missing.num_rows()));
        self.write(column, answers(&[missing], column)).await.unwrap()
    }

    /// Writes answers to rows that were read before a compaction; the reports of the commits.
    pub(super) async fn write_moved(&self, column: &Field, rows: &[RecordBatch]) -> Vec<FillReport> {
        self.write(column, answers(rows, column)).await.unwrap()
    }

    async fn write(&self, column: &Field, batches: Vec<RecordBatch>) -> datafusion::error::Result<Vec<FillReport>> {
        let input = MemorySourceConfig::try_new_exec(&[batches], annotated_schema(column), None).unwrap();
        let target = FillTarget {
            uri: self.uri(),
            column: column.clone(),
            run_id: run_id(),
            commit: CommitPolicy { rows: 2, seconds: 0 },
        };
        let plan = Arc::new(LanceFillExec::try_new(input, target).unwrap());
        let commits = collect(plan, SessionContext::new().task_ctx()).await?;
        Ok(commits.iter().flat_map(|batch| FillReport::from_batch(batch).unwrap()).collect())
    }

    /// `(text, topic)` of every row.
    pub(super) async fn topics(&self) -> Vec<(String, Option<String>)> {
        let batch = self.dataset().await.scan().try_into_batch().await.unwrap();
        let texts = batch.column_by_name("text").unwrap().as_string::<i32>().clone();
        let topics = batch.column_by_name("topic").unwrap().as_struct().clone();
        let labels = topics.column(0).as_string::<i32>();
        let topic = |row: usize| topics.is_valid(row).then(|| labels.value(row).to_owned());
        (0..batch.num_rows()).map(|row| (texts.value(row).to_owned(), topic(row))).collect()
    }

    pub(super) fn data_files(&self) -> BTreeSet<String> {
        let files = std::fs::read_dir(Path::new(&self.uri()).join("data")).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn docs(ids: &[&str]) -> Vec<Doc> {
    let texts = |id: &str| [format!("{id}0"), format!("{id}1")];
    ids.iter()
        .enumerate()
        .map(|(row, id)| Doc::new(row as u64, id, &texts(id).each_ref().map(String::as_str)))
        .collect()
}

fn labelled(ids: &[&str]) -> Vec<(String, Option<String>)> {
    let texts = ids.iter().flat_map(|id| [format!("{id}0"), format!("{id}1")]);
    texts.map(|text| (text.clone(), Some(text))).collect()
}

#[tokio::test]
async fn column_is_added_and_filled_without_touching_a_file() {
    let fixture = TestTable::new();
    run(vec![batch(&docs(&["a", "b", "c"]))], fixture.target("r1", 2)).await.unwrap();
    let before = fixture.data_files();
    let column = topic("1");
    assert_eq!(declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap(), [Declared::Added]);
    assert_eq!(fixture.data_files(), before);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 6);

    let commits = fixture.fill(&column, 6).await;
    assert_eq!(commits.iter().map(|commit| commit.rows).sum::<u64>(), 6);
    assert_eq!(fixture.topics().await, labelled(&["a", "b", "c"]));
    assert!(fixture.data_files().is_superset(&before));
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
    assert!(fixture.missing().await.is_empty());
    assert_eq!(declare_columns(&fixture.uri(), &[column]).await.unwrap(), [Declared::Kept]);
    fixture.dataset().await.validate().await.unwrap();
}

#[tokio::test]
async fn stopped_fill_continues_inside_a_fragment() {
    let fixture = TestTable::new();
    run(vec![batch(&docs(&["a", "b", "c"]))], fixture.target("r1", 100)).await.unwrap();
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    fixture.fill(&column, 3).await;
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 3);
    assert_eq!(fixture.missing().await.iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    fixture.fill(&column, 100).await;
    assert_eq!(fixture.topics().await, labelled(&["a", "b", "c"]));
}

#[tokio::test]
async fn rows_written_later_and_replaced_rows_are_missing() {
    let fixture = TestTable::new();
    run(vec![batch(&docs(&["a", "b"]))], fixture.target("r1", 100)).await.unwrap();
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    fixture.fill(&column, 100).await;
    // The run does not fill the column: its rows have no value.
    let changed = Doc::new(0, "a", &["new"]);
    run(vec![batch(&[changed, docs(&["", "", "c"]).remove(2)])], fixture.target("r2", 100)).await.unwrap();
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 3);
    fixture.fill(&column, 100).await;
    let mut topics = fixture.topics().await;
    topics.sort();
    let expected = [("b0", "b0"), ("b1", "b1"), ("c0", "c0"), ("c1", "c1"), ("new", "new")];
    assert_eq!(topics, expected.map(|(text, topic)| (text.to_owned(), Some(topic.to_owned()))));
}

#[tokio::test]
async fn another_head_rebuilds_the_column_and_the_first_is_refused() {
    let fixture = TestTable::new();
    run(vec![batch(&docs(&["a"]))], fixture.target("r1", 100)).await.unwrap();
    let (first, second) = (topic("1"), topic("2"));
    declare_columns(&fixture.uri(), std::slice::from_ref(&first)).await.unwrap();
    let rows = fixture.missing().await;
    fixture.fill(&first, 100).await;
    assert_eq!(declare_columns(&fixture.uri(), std::slice::from_ref(&second)).await.unwrap(), [Declared::Replaced]);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 2);
    let error = fixture.write(&first, answers(&rows, &first)).await.unwrap_err().to_string();
    assert!(error.contains("assigned to another head"), "{error}");
    fixture.fill(&second, 100).await;
    assert_eq!(fixture.topics().await, labelled(&["a"]));
}

#[tokio::test]
async fn refused_row_stays_in_the_quarantine_until_it_succeeds() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "x", &["good", "bad"])])], fixture.target("r1", 100)).await.unwrap();
    let column = topic("1");
    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    let commits = fixture.fill(&column, 100).await;
    assert_eq!((commits[0].rows, commits[0].quarantined), (1, 1));
    let quarantine = || async {
        let uri = crate::quarantine_uri(&fixture.uri());
        Dataset::open(&uri).await.unwrap().scan().try_into_batch().await.unwrap()
    };
    let quarantined = quarantine().await;
    assert_eq!(quarantined.num_rows(), 1);
    assert_eq!(quarantined.column_by_name("text").unwrap().as_string::<i32>().value(0), "bad");
    assert_eq!(
        quarantined.column_by_name("source").unwrap().as_string::<i32>().value(0),
        format!("{}#topic", fixture.uri())
    );

    let mut rows = fixture.missing().await;
    let texts = Arc::new(StringArray::from(vec!["better"])) as ArrayRef;
    let mut columns = rows[0].columns().to_vec();
    columns[4] = texts;
    rows[0] = RecordBatch::try_new(chunk_schema(&[]), columns).unwrap();
    fixture.write(&column, answers(&rows[..1], &column)).await.unwrap();
    assert_eq!(quarantine().await.num_rows(), 0);
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
}

#[tokio::test]
async fn column_that_is_not_an_annotation_is_refused() {
    let fixture = TestTable::new();
    let declare = |name: &str| {
        let (uri, field) = (fixture.uri(), head("1").field(name).unwrap());
        async move { declare_columns(&uri, &[field]).await.unwrap_err() }
    };
    assert!(matches!(declare("topic").await, SinkError::NoTable { .. }));
    run(vec![batch(&docs(&["a"]))], fixture.target("r1", 100)).await.unwrap();
    assert!(matches!(declare("lang").await, SinkError::NotAnAnnotation { .. }));
    assert!(matches!(declare("embedding").await, SinkError::NotAnAnnotation { .. }));
    let inputs = HeadInputs { question_column: Some("ask".into()), ..HeadInputs::default() };
    let error = TableRowsExec::open(&fixture.uri(), "topic", &inputs).await.unwrap_err();
    assert!(error.to_string().contains("no column \"ask\""), "{error}");
}

/// A batch of the encoder's pass with a head: the label of each row is its text.
fn with_topics(docs: &[Doc], column: &Field) -> RecordBatch {
    let rows = batch(docs);
    let DataType::Struct(fields) = column.data_type() else { panic!("a class is a struct") };
    let texts = Arc::clone(rows.column_by_name("text").unwrap());
    let scores = Arc::new(Float32Array::from(vec![0.5; rows.num_rows()]));
    let schema = with_heads(&rows.schema(), &[Arc::new(column.clone())]);
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(StructArray::new(fields.clone(), vec![texts, scores], None)));
    RecordBatch::try_new(schema, columns).unwrap()
}

async fn run_with_head(fixture: &TestTable, docs: &[Doc], column: &Field) -> datafusion::error::Result<()> {
    let rows = with_topics(docs, column);
    let schema = rows.schema();
    let input = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None).unwrap();
    let target = TableTarget { heads: vec![Arc::new(column.clone())], ..fixture.target(&run_id(), 2) };
    let plan = plan_commit(input, target).unwrap();
    collect(plan, SessionContext::new().task_ctx()).await.map(drop)
}

#[tokio::test]
async fn run_with_a_head_writes_vectors_and_values_to_the_same_files() {
    let fixture = TestTable::new();
    let column = topic("1");
    run_with_head(&fixture, &docs(&["a", "b"]), &column).await.unwrap();
    assert_eq!(fixture.topics().await, labelled(&["a", "b"]));
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 0);
    assert_eq!(declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap(), [Declared::Kept]);
    let files = fixture.data_files().len();
    assert_eq!(files, fixture.dataset().await.get_fragments().len(), "one file per fragment, with the column");

    // Rows of a document that is written again are replaced with their values.
    run_with_head(&fixture, &docs(&["b", "c"]), &column).await.unwrap();
    assert_eq!(fixture.topics().await, labelled(&["a", "b", "c"]));
}

#[tokio::test]
async fn head_is_added_to_an_existing_table_once_declared() {
    let fixture = TestTable::new();
    let column = topic("1");
    run(vec![batch(&docs(&["a"]))], fixture.target("r1", 2)).await.unwrap();
    let undeclared = run_with_head(&fixture, &docs(&["b"]), &column).await.unwrap_err();
    let root = polylance_schema::with_causes(undeclared.find_root());
    assert!(root.contains("topic"), "{root}");

    declare_columns(&fixture.uri(), std::slice::from_ref(&column)).await.unwrap();
    run_with_head(&fixture, &docs(&["b"]), &column).await.unwrap();
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 2);
    fixture.fill(&column, 2).await;
    assert_eq!(fixture.topics().await, labelled(&["a", "b"]));
    // A run without the head leaves its column null.
    run(vec![batch(&docs(&["c"]))], fixture.target("r3", 2)).await.unwrap();
    assert_eq!(missing_rows(&fixture.uri(), "topic").await.unwrap(), 2);

    let other = run_with_head(&fixture, &docs(&["d"]), &topic("2")).await.unwrap_err().find_root().to_string();
    assert!(other.contains("topic"), "{other}");
}
