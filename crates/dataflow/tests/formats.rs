//! Every format yields the same rows, and a bad part of a file costs nothing but itself.

mod expressions;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, AsArray, DictionaryArray, Int64Array, RecordBatch, StringArray, StringViewArray},
    compute::{cast, concat_batches},
    datatypes::{DataType, Field, Int32Type, Schema},
    ipc::writer::{FileWriter, StreamWriter},
};
use async_compression::tokio::bufread::{BzEncoder, GzipEncoder, XzEncoder, ZstdEncoder};
use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
};
use parquet::arrow::ArrowWriter;
use polylance_dataflow::{Source, SourceError, SourceScanExec, SourceSpec};
use polylance_schema::columns::{CONTENT_HASH, DOC_ID, ERROR, SOURCE_ROW, TEXT};
use tokio::io::{AsyncRead, AsyncReadExt};

fn spec(uri: &Path) -> SourceSpec {
    SourceSpec {
        keep: vec!["year".into(), "lang".into()],
        max_bytes: 1 << 20,
        ..SourceSpec::new(uri.display().to_string())
    }
}

async fn scan(source: Source) -> RecordBatch {
    let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(source));
    let schema = scan.schema();
    concat_batches(&schema, &collect(scan, Arc::new(TaskContext::default())).await.unwrap()).unwrap()
}

async fn read(uri: &Path) -> RecordBatch {
    scan(Source::open(spec(uri)).await.unwrap()).await
}

/// Texts with a line break, quotes and several scripts.
fn batch() -> RecordBatch {
    let texts = ["plain", "two\nlines, \"quoted\"", "人間は、自由である", "ته‌نیا 👩‍👩‍👧‍👦", "last"];
    let years = Int64Array::from(vec![Some(1948), None, Some(-3), Some(0), Some(2026)]);
    let langs = StringArray::from(vec![Some("eng"), Some("fra"), None, Some("ckb"), Some("eng")]);
    RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(Int64Array::from(vec![10, 11, 12, 13, 14])) as _, false),
        ("extra", Arc::new(StringArray::from(vec!["x"; 5])) as _, true),
        ("text", Arc::new(StringArray::from(texts.to_vec())) as _, true),
        ("year", Arc::new(years) as _, true),
        ("lang", Arc::new(langs) as _, true),
    ])
    .unwrap()
}

fn write_all(folder: &Path) {
    let batch = batch();
    let mut parquet =
        ArrowWriter::try_new(File::create(folder.join("a.parquet")).unwrap(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    parquet.close().unwrap();
    let mut file = FileWriter::try_new(File::create(folder.join("a.arrow")).unwrap(), &batch.schema()).unwrap();
    file.write(&batch).unwrap();
    file.finish().unwrap();
    let mut stream = StreamWriter::try_new(File::create(folder.join("a.arrows")).unwrap(), &batch.schema()).unwrap();
    stream.write(&batch).unwrap();
    stream.finish().unwrap();
    let mut json = arrow::json::LineDelimitedWriter::new(File::create(folder.join("a.jsonl")).unwrap());
    json.write(&batch).unwrap();
    json.finish().unwrap();
    let mut csv = arrow::csv::Writer::new(File::create(folder.join("a.csv")).unwrap());
    csv.write(&batch).unwrap();
}

async fn compressed(mut reader: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_yields_the_same_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let text = fs::read(folder.path().join("a.jsonl")).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("gz.jsonl"), compressed(GzipEncoder::new(&text[..])).await).unwrap();
    fs::write(path("zst.jsonl"), compressed(ZstdEncoder::new(&text[..])).await).unwrap();
    fs::write(path("bz2.jsonl"), compressed(BzEncoder::new(&text[..])).await).unwrap();
    fs::write(path("xz.jsonl"), compressed(XzEncoder::new(&text[..])).await).unwrap();
    let csv = fs::read(path("a.csv")).unwrap();
    fs::write(path("gz.csv"), compressed(GzipEncoder::new(&csv[..])).await).unwrap();
    fs::write(path("zst.csv"), compressed(ZstdEncoder::new(&csv[..])).await).unwrap();

    let expected = read(&path("a.parquet")).await;
    assert_eq!(expected.num_rows(), 5);
    assert_eq!(expected[ERROR].null_count(), 5);
    for name in [
        "a.arrow",
        "a.arrows",
        "a.jsonl",
        "a.csv",
        "gz.jsonl",
        "zst.jsonl",
        "bz2.jsonl",
        "xz.jsonl",
        "gz.csv",
        "zst.csv",
    ] {
        let found = read(&path(name)).await;
        for column in [DOC_ID, "year", "lang", TEXT, CONTENT_HASH, SOURCE_ROW, ERROR] {
            assert_eq!(&found[column], &expected[column], "{name}: {column}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_and_dictionaries_are_read_as_plain_text() {
    let folder = tempfile::tempdir().unwrap();
    let plain = batch();
    let dictionary: DictionaryArray<Int32Type> = plain["lang"].as_string::<i32>().iter().collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", cast(&plain["id"], &DataType::LargeUtf8).unwrap(), false),
        ("text", Arc::new(plain["text"].as_string::<i32>().iter().collect::<StringViewArray>()) as _, true),
        ("year", Arc::clone(&plain["year"]), true),
        ("lang", Arc::new(dictionary) as _, true),
    ])
    .unwrap();
    let path = folder.path().join("views.arrow");
    let mut writer = FileWriter::try_new(File::create(&path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let found = read(&path).await;
    write_all(folder.path());
    assert_eq!(&found[CONTENT_HASH], &read(&folder.path().join("a.parquet")).await[CONTENT_HASH]);
    assert_eq!(found.schema().field_with_name("lang").unwrap().data_type(), &DataType::Utf8);
}

fn errors(batch: &RecordBatch) -> Vec<(u64, String)> {
    let errors = batch[ERROR].as_struct();
    let rows = batch[SOURCE_ROW].as_primitive::<arrow::datatypes::UInt64Type>();
    let refused = (0..batch.num_rows()).filter(|&row| errors.is_valid(row));
    refused.map(|row| (rows.value(row), errors.column(1).as_string::<i32>().value(row).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_a_refused_row_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{{\"id\":7,\"text\":\"{}\"}}\n", "x".repeat(4 << 20));
    let lines = [
        "{\"id\":\"1\",\"text\":\"good\",\"year\":1,\"lang\":\"a\"}\n",
        "\n",
        "{\"id\":2,\"text\":7}\n",
        "{\"id\":3.5,\"text\":\"x\"}\n",
        "{\"text\":\"no id\"}\n",
        "{\"id\":5}\n",
        "[1,2]\n",
        &long,
        "{\"id\":8,\"text\":\"y\",\"year\":\"not a year\"}\n",
        "{\"id\":9,\"text\":\"good too\",\"year\":2}",
    ];
    let path = folder.path().join("bad.jsonl");
    fs::write(&path, lines.concat()).unwrap();
    let batch = scan(
        Source::open(SourceSpec { format: Some(polylance_schema::SourceFormat::Jsonl), ..spec(&path) }).await.unwrap(),
    )
    .await;
    let errors = errors(&batch);
    let expected = [
        (2, "expected text"),
        (3, "whole number"),
        (4, "the id is null"),
        (5, "the text is null"),
        (6, "not a JSON object"),
        (7, "max_bytes"),
    ];
    for ((row, message), (expected_row, part)) in errors.iter().zip(expected) {
        assert_eq!(*row, expected_row);
        assert!(message.contains(part), "{message}");
    }
    // The years of all rows make the column text, so row 8 is good.
    assert_eq!(errors.len(), expected.len());
    assert_eq!(batch.num_rows(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_csv_record_with_too_few_fields_or_an_unclosed_quote_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.csv");
    fs::write(&path, "id,text,year,lang\n1,good,1,a\n2,short\n3,year,soon,a\n4,good,4,a\n").unwrap();
    let found = errors(&read(&path).await);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("expected 4 fields, found 2"), "{found:?}");

    let long = "x\n".repeat(3 << 20);
    fs::write(
        &path,
        format!("id,text,year,lang\n1,good,1,a\n2,\"{long}\",1,a\n3,good,1,a\n4,\"open,1,a\n5,good,1,a\n"),
    )
    .unwrap();
    let batch = read(&path).await;
    let found = errors(&batch);
    assert_eq!(found.iter().map(|error| error.0).collect::<Vec<_>>(), [1, 3], "{found:?}");
    assert!(found[0].1.contains("max_bytes") && found[1].1.contains("never closed"), "{found:?}");
    assert_eq!(
        batch[DOC_ID].as_string::<i32>().iter().collect::<Vec<_>>(),
        [Some("1"), Some("2"), Some("3"), Some("4"), Some("5")]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compressed_file_longer_than_its_head_is_read_and_a_truncated_one_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    // Hexadecimal digits of hashes compress badly, so that one block of bzip2 is longer than the head.
    let line =
        |n: u32| format!("{{\"id\":{n},\"text\":\"{}\",\"year\":1,\"lang\":\"a\"}}\n", blake3::hash(&n.to_le_bytes()));
    let text: String = (0..20_000).map(line).collect();
    for bytes in
        [compressed(BzEncoder::new(text.as_bytes())).await, compressed(ZstdEncoder::new(text.as_bytes())).await]
    {
        fs::write(&path, &bytes).unwrap();
        let batch = read(&path).await;
        assert_eq!((batch.num_rows(), errors(&batch).len()), (20_000, 0));

        fs::write(&path, &bytes[..bytes.len() * 3 / 4]).unwrap();
        let batch = read(&path).await;
        assert!(batch.num_rows() > 1000, "{}", batch.num_rows());
        assert!(matches!(&errors(&batch)[..], [.., (_, last)] if last.contains("cannot be read from here on")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_limit_does_not_overflow() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    for name in ["a.jsonl", "a.csv", "a.parquet"] {
        let spec = SourceSpec { max_bytes: u64::MAX, ..spec(&folder.path().join(name)) };
        assert_eq!(scan(Source::open(spec).await.unwrap()).await[ERROR].null_count(), 5, "{name}");
    }
}

#[tokio::test]
async fn columns_are_checked_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let path = folder.path().join("a.parquet");
    let open = async |change: &dyn Fn(&mut SourceSpec)| {
        let mut spec = spec(&path);
        change(&mut spec);
        Source::open(spec).await
    };
    let error = open(&|spec| spec.text = "txt".into()).await.unwrap_err();
    assert!(
        matches!(&error, SourceError::MissingColumn { nearest: Some(nearest), .. } if nearest == "text"),
        "{error}"
    );
    assert!(matches!(open(&|spec| spec.text = "year".into()).await, Err(SourceError::ColumnType { .. })));
    assert!(matches!(open(&|spec| spec.keep = vec!["chunk".into()]).await, Err(SourceError::ReservedColumn { .. })));
    let all = open(&|spec| spec.keep = vec!["*".into()]).await.unwrap();
    let names: Vec<_> = all.keep_fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["extra", "year", "lang"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn translations_of_the_builtin_corpus_are_selected_by_code() {
    let mut spec = spec(Path::new(""));
    spec.uri = "builtin:udhr?codes=eng,jpn".into();
    spec.keep = vec!["article".into()];
    let batch = scan(Source::open(spec.clone()).await.unwrap()).await;
    assert_eq!(batch.num_rows(), 60);
    assert_eq!(batch.schema().field(1), &Field::new("article", DataType::Int32, true));
    spec.uri = "builtin:udhr?codes=eng,xyz".into();
    assert!(matches!(Source::open(spec).await, Err(SourceError::UnknownCode { codes }) if codes == ["xyz"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_the_columns_is_one_refused_row() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    for name in ["a.arrow", "a.arrows", "a.jsonl", "a.csv"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let other = RecordBatch::new_empty(Arc::new(Schema::new(vec![Field::new("body", DataType::Utf8, true)])));
    let mut writer =
        ArrowWriter::try_new(File::create(folder.path().join("b.parquet")).unwrap(), other.schema(), None).unwrap();
    writer.write(&other).unwrap();
    writer.close().unwrap();
    fs::write(folder.path().join("c.parquet"), b"").unwrap();
    let batch = read(folder.path()).await;
    let errors = errors(&batch);
    assert_eq!((batch.num_rows(), errors.len()), (7, 2));
    assert!(errors[0].1.contains("no column `id`") && errors[1].1.contains("empty"), "{errors:?}");
}
