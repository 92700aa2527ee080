use datafusion::physical_plan::empty::EmptyExec;

use crate::tests::*;
use crate::{SinkError, Table};

fn found(error: &datafusion::error::DataFusionError) -> &SinkError {
    SinkError::find(error).unwrap_or_else(|| panic!("not a sink error: {error}"))
}

#[tokio::test]
async fn another_contract_is_refused_and_both_are_shown() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let other = Contract { model: "other".into(), weights_hash: "ffff".into(), ..contract() };
    let target = TableTarget { contract: other, ..fixture.target("r2", 1) };
    let error = run(vec![batch(&[Doc::new(1, "b", &["1"])])], target).await.unwrap_err();
    let SinkError::ContractMismatch(mismatch) = found(&error) else { panic!("{error}") };
    assert_eq!(mismatch.table, "fake @ 7c1e, mean, f32, 8");
    assert_eq!(mismatch.run, "other @ ffff, mean, f32, 8");
    assert_eq!(fixture.dataset().await.version_id(), 1);
}

#[tokio::test]
async fn other_columns_are_refused_by_name() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    let keep = vec![Arc::new(Field::new("title", DataType::Utf8, true))];
    let target = TableTarget { keep, text: TextColumn::LeftOut, ..fixture.target("r2", 1) };
    let SinkError::SchemaMismatch { columns, .. } = table.check(&target).unwrap_err() else { panic!("columns") };
    assert_eq!(columns.iter().map(|c| c.column.as_str()).collect::<Vec<_>>(), ["lang", "text", "title"]);
}

#[tokio::test]
async fn address_with_foreign_files_is_refused() {
    let fixture = TestTable::new();
    assert!(Table::open(&fixture.uri()).await.unwrap().is_none());
    std::fs::create_dir_all(fixture.uri()).unwrap();
    assert!(Table::open(&fixture.uri()).await.unwrap().is_none());
    std::fs::write(format!("{}/thesis.tex", fixture.uri()), "x").unwrap();
    let error = Table::open(&fixture.uri()).await.unwrap_err();
    assert!(matches!(&error, SinkError::NotATable { found, .. } if found == "`thesis.tex`"), "{error}");

    let file = fixture.folder.path().join("file.lance");
    std::fs::write(&file, "x").unwrap();
    let error = Table::open(file.to_str().unwrap()).await.unwrap_err();
    assert!(matches!(&error, SinkError::NotATable { found, .. } if found == "a file"), "{error}");
}

#[tokio::test]
async fn lance_table_without_a_contract_is_refused() {
    let fixture = TestTable::new();
    let rows = RecordBatch::try_from_iter([("x", Arc::new(UInt32Array::from(vec![1])) as ArrayRef)]).unwrap();
    lance::dataset::InsertBuilder::new(fixture.uri().as_str()).execute(vec![rows]).await.unwrap();
    let error = run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap_err();
    assert!(matches!(found(&error), SinkError::NoContract { .. }));
    let table = Table::open(&fixture.uri()).await.unwrap().unwrap();
    assert!(matches!(table.keys(), Err(SinkError::SchemaMismatch { .. })));
}

#[test]
fn plan_with_other_columns_is_refused_before_it_runs() {
    let fixture = TestTable::new();
    let input = Arc::new(EmptyExec::new(encoded_schema(&[], DIM)));
    let error = plan_commit(input, fixture.target("r1", 1)).unwrap_err();
    assert!(error.to_string().contains("LanceWriteExec expected columns"), "{error}");
}

#[test]
fn kept_column_that_lance_cannot_store_is_refused_before_it_runs() {
    let fixture = TestTable::new();
    let month = DataType::Interval(arrow::datatypes::IntervalUnit::YearMonth);
    let keep = vec![Arc::new(Field::new("age", month, true))];
    let input = Arc::new(EmptyExec::new(encoded_schema(&keep, DIM)));
    let error = plan_commit(input, TableTarget { keep, ..fixture.target("r1", 1) }).unwrap_err();
    assert!(error.to_string().contains("cannot be stored in a lance table"), "{error}");
}

#[tokio::test]
async fn kept_columns_of_many_types_are_read_back_unchanged() {
    let fixture = TestTable::new();
    let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let zoned = DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, Some("UTC".into()));
    let types =
        [DataType::Int64, DataType::Float64, DataType::Date32, DataType::Boolean, DataType::LargeUtf8, zoned, list];
    let keep: Vec<FieldRef> =
        types.into_iter().enumerate().map(|(i, t)| Arc::new(Field::new(format!("k{i}"), t, true))).collect();
    let schema = encoded_schema(&keep, DIM);
    let plain = batch(&[Doc::new(0, "a", &["1"])]);
    let columns = schema.fields().iter().map(|field| match plain.column_by_name(field.name()) {
        Some(column) => Arc::clone(column),
        None => arrow::array::new_null_array(field.data_type(), 1),
    });
    let rows = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).unwrap();
    for run_id in ["r1", "r2"] {
        let input = MemorySourceConfig::try_new_exec(&[vec![rows.clone()]], Arc::clone(&schema), None).unwrap();
        let target = TableTarget { keep: keep.clone(), ..fixture.target(run_id, 1) };
        collect(plan_commit(input, target).unwrap(), SessionContext::new().task_ctx()).await.unwrap();
    }
    let found = fixture.dataset().await.scan().try_into_batch().await.unwrap();
    assert_eq!(found.num_rows(), 1);
    for field in &keep {
        assert_eq!(found.column_by_name(field.name()).unwrap().null_count(), 1, "{field}");
    }
}

#[tokio::test]
async fn error_of_a_truncated_data_file_names_the_table() {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    let data = std::path::Path::new(&fixture.uri()).join("data");
    for file in std::fs::read_dir(data).unwrap() {
        std::fs::File::create(file.unwrap().path()).unwrap();
    }
    let keys = Table::open(&fixture.uri()).await.unwrap().unwrap().keys().unwrap();
    let error = collect(keys, SessionContext::new().task_ctx()).await.unwrap_err();
    let error = found(&error).to_string();
    assert!(error.contains(&fixture.uri()) && error.contains("reading the table's ids"), "{error}");
}
