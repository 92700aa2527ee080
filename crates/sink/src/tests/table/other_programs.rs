//! A table that other programs change: foreign columns, and another table at its address.

use std::fs;

use lance::dataset::{InsertBuilder, NewColumnTransform, WriteMode, WriteParams};
use polylance_schema::ContentRule;

use crate::tests::*;
use crate::{
    LanceCommitExec, LanceWriteExec, OnConflict, SinkError, Table, compact, data_files_exist,
    table::identity::advance_to_latest, write::window::max_window_duration,
};

fn text_columns(names: &[&str]) -> Vec<FieldRef> {
    names.iter().map(|name| Arc::new(Field::new(*name, DataType::Utf8, true)) as FieldRef).collect()
}

/// Rows with kept columns of these names, each value the name of its column.
fn rows_of(docs: &[Doc], keep: &[FieldRef]) -> RecordBatch {
    let (plain, schema) = (batch(docs), encoded_schema(keep, DIM));
    let columns = schema.fields().iter().map(|field| match keep.iter().find(|kept| kept.name() == field.name()) {
        Some(kept) => Arc::new(StringArray::from(vec![kept.name().as_str(); plain.num_rows()])) as ArrayRef,
        None => Arc::clone(plain.column_by_name(field.name()).unwrap()),
    });
    RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap()
}

/// Data files that wait for their commit.
async fn write(rows: RecordBatch, target: &TableTarget) -> Vec<RecordBatch> {
    let schema = rows.schema();
    let input = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None).unwrap();
    let writer = LanceWriteExec::try_new(input, target.clone()).unwrap();
    collect(Arc::new(writer), SessionContext::new().task_ctx()).await.unwrap()
}

async fn commit(windows: &[RecordBatch], target: &TableTarget) -> datafusion::error::Result<Vec<RecordBatch>> {
    let input = MemorySourceConfig::try_new_exec(&[windows.to_vec()], windows[0].schema(), None).unwrap();
    let commits = LanceCommitExec::try_new(input, target.clone()).unwrap();
    collect(Arc::new(commits), SessionContext::new().task_ctx()).await
}

fn failure(error: &datafusion::error::DataFusionError) -> &SinkError {
    SinkError::find(error).unwrap_or_else(|| panic!("not a sink error: {error}"))
}

async fn texts(fixture: &TestTable, column: &str) -> Vec<Option<String>> {
    let rows = fixture.dataset().await.scan().try_into_batch().await.unwrap();
    rows.column_by_name(column).unwrap().as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[tokio::test]
async fn concurrent_first_runs_with_different_column_orders_keep_their_values() {
    let fixture = TestTable::new();
    let targets = [["lang", "title"], ["title", "lang"]]
        .map(|names| TableTarget { keep: text_columns(&names), ..fixture.target(names[0], 0) });
    let mut windows = Vec::new();
    for (row, target) in targets.iter().enumerate() {
        let docs = [Doc::new(row as u64, &format!("d{row}"), &["1"])];
        windows.push(write(rows_of(&docs, &target.keep), target).await);
    }
    for (windows, target) in windows.iter().zip(&targets).rev() {
        commit(windows, target).await.unwrap();
    }
    assert_eq!(fixture.keys().await.len(), 2);
    for column in ["lang", "title"] {
        assert_eq!(texts(&fixture, column).await, vec![Some(column.to_owned()); 2]);
    }
}

#[tokio::test]
async fn files_with_a_column_of_another_type_are_refused() {
    let fixture = TestTable::new();
    let target = TableTarget { keep: text_columns(&["lang"]), ..fixture.target("r1", 0) };
    let windows = write(rows_of(&[Doc::new(0, "a", &["1"])], &target.keep), &target).await;
    let other =
        TableTarget { keep: vec![Arc::new(Field::new("lang", DataType::Int64, true))], ..fixture.target("r2", 0) };
    let numbers = encoded_schema(&other.keep, DIM);
    let plain = batch(&[Doc::new(1, "b", &["1"])]);
    let columns = numbers.fields().iter().map(|field| match field.name().as_str() {
        "lang" => Arc::new(arrow::array::Int64Array::from(vec![7])) as ArrayRef,
        name => Arc::clone(plain.column_by_name(name).unwrap()),
    });
    let rows = RecordBatch::try_new(Arc::clone(&numbers), columns.collect()).unwrap();
    commit(&write(rows, &other).await, &other).await.unwrap();
    let error = commit(&windows, &target).await.unwrap_err();
    let SinkError::SchemaMismatch { columns, .. } = failure(&error) else { panic!("{error}") };
    assert_eq!(columns[0].column, "lang");
    assert_eq!(fixture.dataset().await.version_id(), 1);
}

#[tokio::test]
async fn files_written_before_a_column_was_dropped_and_added_again_keep_its_values() {
    let fixture = TestTable::new();
    let target = fixture.target("r1", 1);
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], target.clone()).await.unwrap();
    let target = TableTarget { run_id: "r2".into(), ..target };
    let windows = write(batch(&[Doc::new(1, "b", &["1"])]), &target).await;
    let mut dataset = fixture.dataset().await;
    dataset.drop_columns(&["lang"]).await.unwrap();
    let error = commit(&windows, &target).await.unwrap_err();
    assert!(failure(&error).to_string().contains("`lang` is only in the run"), "{error}");
    let lang = Arc::new(arrow::datatypes::Schema::new(text_columns(&["lang"])));
    dataset.add_columns(NewColumnTransform::AllNulls(lang), None, None).await.unwrap();
    commit(&windows, &target).await.unwrap();
    assert_eq!(texts(&fixture, "lang").await, [None, Some("fra".to_owned())]);
}

#[tokio::test]
async fn foreign_column_is_kept_and_null_in_new_rows() {
    let fixture = TestTable::new();
    let docs = |text: &str| [Doc::new(0, "a", &[text]), Doc::new(1, "b", &["1"])];
    run(vec![batch(&docs("1"))], fixture.target("r1", 1)).await.unwrap();
    let theirs = NewColumnTransform::SqlExpressions(vec![("note".to_owned(), "lower(text)".to_owned())]);
    fixture.dataset().await.add_columns(theirs, None, None).await.unwrap();

    let target = fixture.target("r2", 1);
    Table::open(&fixture.uri()).await.unwrap().unwrap().check(&target).unwrap();
    run(vec![batch(&[Doc::new(0, "a", &["2"]), Doc::new(2, "c", &["1"])])], target).await.unwrap();
    let expected = [Some("1".to_owned()), None, None];
    assert_eq!(texts(&fixture, "note").await, expected);
    compact(&fixture.uri(), 0, OnConflict::Retry).await.unwrap();
    assert_eq!(texts(&fixture, "note").await, expected);
    assert_eq!(fixture.keys().await.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["b", "a", "c"]);

    // A column that the table was created with is not foreign, although the run does not have it.
    let without = TableTarget { keep: Vec::new(), ..fixture.target("r3", 1) };
    let error = Table::open(&fixture.uri()).await.unwrap().unwrap().check(&without).unwrap_err();
    assert!(error.to_string().contains("`lang` is only in the table"), "{error}");
}

#[tokio::test]
async fn table_that_was_created_again_is_not_written_to() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let mark = Table::open(&fixture.uri()).await.unwrap().unwrap().mark().unwrap();
    assert!(mark.id.is_some());
    assert_eq!(mark.rule, ContentRule::Encoded);
    let target = TableTarget { mark, ..fixture.target("r2", 1) };

    fs::remove_dir_all(fixture.uri()).unwrap();
    let error = run(vec![batch(&[Doc::new(1, "b", &["1"])])], target.clone()).await.unwrap_err();
    assert!(failure(&error).to_string().contains("it was removed"), "{error}");

    run(vec![batch(&[Doc::new(0, "z", &["1"])])], fixture.target("r3", 1)).await.unwrap();
    let error = run(vec![batch(&[Doc::new(1, "b", &["1"])])], target).await.unwrap_err();
    assert!(matches!(failure(&error), SinkError::Replaced { .. }), "{error}");
    assert_eq!(fixture.keys().await, [("z".to_owned(), 0)]);
}

#[tokio::test]
async fn overwritten_restored_and_removed_tables_are_detected() {
    let fixture = TestTable::new();
    for (round, run_id) in ["r1", "r2"].into_iter().enumerate() {
        let doc = Doc::new(round as u64, &format!("d{round}"), &["1"]);
        run(vec![batch(&[doc])], fixture.target(run_id, 1)).await.unwrap();
    }
    let seen = fixture.dataset().await;
    let advanced = async || advance_to_latest(&fixture.uri(), &mut seen.clone()).await;
    advanced().await.unwrap();

    compact(&fixture.uri(), 0, OnConflict::Retry).await.unwrap();
    advanced().await.unwrap();

    let mut restored = fixture.dataset().await.checkout_version(1).await.unwrap();
    restored.restore().await.unwrap();
    assert!(advanced().await.unwrap_err().to_string().contains("an older version was restored"));

    let rows = fixture.dataset().await.scan().try_into_batch().await.unwrap();
    let params = WriteParams { mode: WriteMode::Overwrite, ..WriteParams::default() };
    InsertBuilder::new(fixture.uri().as_str()).with_params(&params).execute(vec![rows]).await.unwrap();
    let mut seen = restored.clone();
    let error = advance_to_latest(&fixture.uri(), &mut seen).await.unwrap_err().to_string();
    assert!(error.contains("overwritten"), "{error}");

    fs::remove_dir_all(fixture.uri()).unwrap();
    assert!(matches!(advanced().await.unwrap_err(), SinkError::Replaced { .. }));
}

#[tokio::test]
async fn data_files_removed_by_a_cleanup_are_not_committed() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let target = fixture.target("r2", 1);
    let before: Vec<_> = fs::read_dir(format!("{}/data", fixture.uri())).unwrap().map(|f| f.unwrap().path()).collect();
    let windows = write(batch(&[Doc::new(1, "b", &["1"])]), &target).await;
    assert!(data_files_exist(&fixture.uri(), &windows).await.unwrap());
    for file in fs::read_dir(format!("{}/data", fixture.uri())).unwrap().map(|file| file.unwrap().path()) {
        if !before.contains(&file) {
            fs::remove_file(file).unwrap();
        }
    }
    assert!(!data_files_exist(&fixture.uri(), &windows).await.unwrap());
    let error = commit(&windows, &target).await.unwrap_err();
    assert!(matches!(failure(&error), SinkError::FilesGone { .. }), "{error}");
    assert_eq!(fixture.keys().await, [("a".to_owned(), 0)]);
}

#[tokio::test]
async fn hashes_of_another_rule_are_refused() {
    let fixture = TestTable::new();
    let printed = TableMark { rule: ContentRule::Printed, ..TableMark::default() };
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], TableTarget { mark: printed, ..fixture.target("r1", 1) })
        .await
        .unwrap();
    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    assert_eq!(table.mark().unwrap().rule, ContentRule::Printed);
    let error = table.check(&fixture.target("r2", 1)).unwrap_err();
    assert!(error.to_string().contains("by rule 1, and the run uses rule 2"), "{error}");
}

#[test]
fn window_closes_long_before_its_files_count_as_orphaned() {
    let longest = |seconds: u64| max_window_duration(CommitPolicy { rows: 0, seconds }).as_secs();
    assert_eq!([0, 300, 86_400].map(longest), [1800, 300, 1800]);
}
