//! A table beside other programs: columns of theirs, and another table in its place.

use std::fs;

use lance::dataset::{InsertBuilder, NewColumnTransform, WriteMode, WriteParams};
use polylance_schema::ContentRule;

use crate::tests::*;
use crate::{
    Contention, LanceCommitExec, LanceWriteExec, SinkError, Table, compact, table::identity::advance,
    write::window::longest_window,
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

async fn texts(place: &Place, column: &str) -> Vec<Option<String>> {
    let rows = place.dataset().await.scan().try_into_batch().await.unwrap();
    rows.column_by_name(column).unwrap().as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

#[tokio::test]
async fn two_first_runs_with_columns_in_another_order_keep_their_values() {
    let place = Place::new();
    let targets = [["lang", "title"], ["title", "lang"]]
        .map(|names| TableTarget { keep: text_columns(&names), ..place.target(names[0], 0) });
    let mut windows = Vec::new();
    for (row, target) in targets.iter().enumerate() {
        let docs = [Doc::new(row as u64, &format!("d{row}"), &["1"])];
        windows.push(write(rows_of(&docs, &target.keep), target).await);
    }
    for (windows, target) in windows.iter().zip(&targets).rev() {
        commit(windows, target).await.unwrap();
    }
    assert_eq!(place.keys().await.len(), 2);
    for column in ["lang", "title"] {
        assert_eq!(texts(&place, column).await, vec![Some(column.to_owned()); 2]);
    }
}

#[tokio::test]
async fn files_with_a_column_that_the_table_has_in_another_type_are_refused() {
    let place = Place::new();
    let target = TableTarget { keep: text_columns(&["lang"]), ..place.target("r1", 0) };
    let windows = write(rows_of(&[Doc::new(0, "a", &["1"])], &target.keep), &target).await;
    let other =
        TableTarget { keep: vec![Arc::new(Field::new("lang", DataType::Int64, true))], ..place.target("r2", 0) };
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
    assert_eq!(place.dataset().await.version_id(), 1);
}

#[tokio::test]
async fn a_column_that_was_taken_away_and_added_again_gets_the_values_of_files_begun_before() {
    let place = Place::new();
    let target = place.target("r1", 1);
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], target.clone()).await.unwrap();
    let target = TableTarget { run_id: "r2".into(), ..target };
    let windows = write(batch(&[Doc::new(1, "b", &["1"])]), &target).await;
    let mut dataset = place.dataset().await;
    dataset.drop_columns(&["lang"]).await.unwrap();
    let error = commit(&windows, &target).await.unwrap_err();
    assert!(failure(&error).to_string().contains("`lang` is only in the run"), "{error}");
    let lang = Arc::new(arrow::datatypes::Schema::new(text_columns(&["lang"])));
    dataset.add_columns(NewColumnTransform::AllNulls(lang), None, None).await.unwrap();
    commit(&windows, &target).await.unwrap();
    assert_eq!(texts(&place, "lang").await, [None, Some("fra".to_owned())]);
}

#[tokio::test]
async fn a_column_of_others_is_left_alone_and_null_in_new_rows() {
    let place = Place::new();
    let docs = |text: &str| [Doc::new(0, "a", &[text]), Doc::new(1, "b", &["1"])];
    run(vec![batch(&docs("1"))], place.target("r1", 1)).await.unwrap();
    let theirs = NewColumnTransform::SqlExpressions(vec![("note".to_owned(), "lower(text)".to_owned())]);
    place.dataset().await.add_columns(theirs, None, None).await.unwrap();

    let target = place.target("r2", 1);
    Table::open(&place.uri()).await.unwrap().unwrap().check(&target).unwrap();
    run(vec![batch(&[Doc::new(0, "a", &["2"]), Doc::new(2, "c", &["1"])])], target).await.unwrap();
    let expected = [Some("1".to_owned()), None, None];
    assert_eq!(texts(&place, "note").await, expected);
    compact(&place.uri(), 0, Contention::Retry).await.unwrap();
    assert_eq!(texts(&place, "note").await, expected);
    assert_eq!(place.keys().await.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), ["b", "a", "c"]);

    // A column that the table was made with is no column of others, though the run does not name it.
    let without = TableTarget { keep: Vec::new(), ..place.target("r3", 1) };
    let error = Table::open(&place.uri()).await.unwrap().unwrap().check(&without).unwrap_err();
    assert!(error.to_string().contains("`lang` is only in the table"), "{error}");
}

#[tokio::test]
async fn a_table_that_was_made_anew_is_not_written_to() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], place.target("r1", 1)).await.unwrap();
    let mark = Table::open(&place.uri()).await.unwrap().unwrap().mark().unwrap();
    assert!(mark.id.is_some());
    assert_eq!(mark.rule, ContentRule::Encoded);
    let target = TableTarget { mark, ..place.target("r2", 1) };

    fs::remove_dir_all(place.uri()).unwrap();
    let error = run(vec![batch(&[Doc::new(1, "b", &["1"])])], target.clone()).await.unwrap_err();
    assert!(failure(&error).to_string().contains("it was removed"), "{error}");

    run(vec![batch(&[Doc::new(0, "z", &["1"])])], place.target("r3", 1)).await.unwrap();
    let error = run(vec![batch(&[Doc::new(1, "b", &["1"])])], target).await.unwrap_err();
    assert!(matches!(failure(&error), SinkError::Replaced { .. }), "{error}");
    assert_eq!(place.keys().await, [("z".to_owned(), 0)]);
}

#[tokio::test]
async fn a_run_notices_that_its_table_was_overwritten_restored_or_removed() {
    let place = Place::new();
    for (round, run_id) in ["r1", "r2"].into_iter().enumerate() {
        let doc = Doc::new(round as u64, &format!("d{round}"), &["1"]);
        run(vec![batch(&[doc])], place.target(run_id, 1)).await.unwrap();
    }
    let seen = place.dataset().await;
    let advanced = async || advance(&place.uri(), &mut seen.clone()).await;
    advanced().await.unwrap();

    compact(&place.uri(), 0, Contention::Retry).await.unwrap();
    advanced().await.unwrap();

    let mut restored = place.dataset().await.checkout_version(1).await.unwrap();
    restored.restore().await.unwrap();
    assert!(advanced().await.unwrap_err().to_string().contains("an older version was restored"));

    let rows = place.dataset().await.scan().try_into_batch().await.unwrap();
    let params = WriteParams { mode: WriteMode::Overwrite, ..WriteParams::default() };
    InsertBuilder::new(place.uri().as_str()).with_params(&params).execute(vec![rows]).await.unwrap();
    let mut seen = restored.clone();
    let error = advance(&place.uri(), &mut seen).await.unwrap_err().to_string();
    assert!(error.contains("overwritten"), "{error}");

    fs::remove_dir_all(place.uri()).unwrap();
    assert!(matches!(advanced().await.unwrap_err(), SinkError::Replaced { .. }));
}

#[tokio::test]
async fn data_files_that_a_cleanup_has_taken_are_not_committed() {
    let place = Place::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], place.target("r1", 1)).await.unwrap();
    let target = place.target("r2", 1);
    let before: Vec<_> = fs::read_dir(format!("{}/data", place.uri())).unwrap().map(|f| f.unwrap().path()).collect();
    let windows = write(batch(&[Doc::new(1, "b", &["1"])]), &target).await;
    for file in fs::read_dir(format!("{}/data", place.uri())).unwrap().map(|file| file.unwrap().path()) {
        if !before.contains(&file) {
            fs::remove_file(file).unwrap();
        }
    }
    let error = commit(&windows, &target).await.unwrap_err();
    assert!(matches!(failure(&error), SinkError::FilesGone { .. }), "{error}");
    assert_eq!(place.keys().await, [("a".to_owned(), 0)]);
}

#[tokio::test]
async fn rows_with_hashes_of_another_rule_do_not_go_to_a_table() {
    let place = Place::new();
    let printed = TableMark { rule: ContentRule::Printed, ..TableMark::default() };
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], TableTarget { mark: printed, ..place.target("r1", 1) })
        .await
        .unwrap();
    let table = Table::open(&place.uri()).await.unwrap().unwrap();
    assert_eq!(table.mark().unwrap().rule, ContentRule::Printed);
    let error = table.check(&place.target("r2", 1)).unwrap_err();
    assert!(error.to_string().contains("by rule 1, and the run makes rule 2"), "{error}");
}

#[test]
fn no_window_is_open_for_so_long_that_a_cleanup_may_take_its_files() {
    let longest = |seconds: u64| longest_window(CommitPolicy { rows: 0, seconds }).as_secs();
    assert_eq!([0, 300, 86_400].map(longest), [1800, 300, 1800]);
}
