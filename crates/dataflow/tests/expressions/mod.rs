//! SQL over the columns of a source, ids that are no column, and partitions.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray},
    compute::concat_batches,
    datatypes::{DataType, UInt64Type},
};
use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
};
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use polylance_dataflow::{ColumnUse, Source, SourceError, SourceScanExec, SourceSpec};
use polylance_schema::{
    Explain,
    columns::{CONTENT_HASH, DOC_ID, ERROR, SOURCE_ROW, TEXT},
};

use super::{errors, scan, write_all};

fn spec(uri: &Path) -> SourceSpec {
    SourceSpec::new(uri.display().to_string())
}

async fn read(spec: SourceSpec) -> RecordBatch {
    scan(Source::open(spec).await.unwrap()).await
}

/// The rows, and a metric of the scan.
async fn measured(spec: SourceSpec, metric: &str) -> (RecordBatch, usize) {
    let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(Source::open(spec).await.unwrap()));
    let batches = collect(Arc::clone(&scan), Arc::new(TaskContext::default())).await.unwrap();
    let metrics = scan.metrics().unwrap();
    let value = metrics.sum_by_name(metric).map_or(0, |value| value.as_usize());
    (concat_batches(&scan.schema(), &batches).unwrap(), value)
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<String> {
    batch[column].as_string::<i32>().iter().map(|value| value.unwrap_or("-").to_owned()).collect()
}

fn rows(batch: &RecordBatch) -> Vec<u64> {
    batch[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec()
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>, rows_per_group: usize) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_per_group)).build();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn strings(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn expressions_and_a_condition_yield_the_same_rows_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let of = |name: &str| SourceSpec {
        id: "'doc-' || CAST(id AS VARCHAR)".into(),
        text: "text || E'\\n' || lang".into(),
        keep: vec!["upper(lang) AS language".into(), "year AS y".into(), "lang".into(), "year + 1 AS next".into()],
        condition: Some("year >= 0 AND lang IS NOT NULL".into()),
        ..spec(&folder.path().join(name))
    };
    let expected = read(of("a.parquet")).await;
    assert_eq!(texts(&expected, DOC_ID), ["doc-10", "doc-13", "doc-14"]);
    assert_eq!(texts(&expected, TEXT)[2], "last\neng");
    assert_eq!(texts(&expected, "language"), ["ENG", "CKB", "ENG"]);
    assert_eq!(rows(&expected), [0, 3, 4]);
    assert_eq!(&expected["next"], &(Arc::new(Int64Array::from(vec![1949, 1, 2027])) as ArrayRef));
    for name in ["a.arrow", "a.arrows", "a.jsonl", "a.csv"] {
        let found = read(of(name)).await;
        for column in [DOC_ID, "language", "y", "lang", "next", TEXT, CONTENT_HASH, SOURCE_ROW, ERROR] {
            assert_eq!(&found[column], &expected[column], "{name}: {column}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_for_which_an_expression_fails_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    for name in ["a.parquet", "a.arrow", "a.jsonl", "a.csv"] {
        let path = folder.path().join(name);
        let text = "text || CAST(6000 / coalesce(year, 1) AS VARCHAR)".to_owned();
        let batch = read(SourceSpec { text: text.clone(), ..spec(&path) }).await;
        let found = errors(&batch);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        assert!(found[0].0 == 3 && found[0].1.starts_with("`text` of the source: "), "{name}: {found:?}");
        assert_eq!(texts(&batch, TEXT)[0], "plain3", "{name}");
        // The condition is computed first: it guards the other expressions.
        let condition = Some("year <> 0".to_owned());
        assert_eq!(rows(&read(SourceSpec { text, condition, ..spec(&path) }).await), [0, 2, 4], "{name}");
        let condition = Some("6000 / coalesce(year, 1) > 5".to_owned());
        let batch = read(SourceSpec { condition, ..spec(&path) }).await;
        assert_eq!(rows(&batch), [1, 3], "{name}");
        assert!(errors(&batch)[0].1.starts_with("`where` of the source: "), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_that_is_the_name_of_a_column_is_the_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.parquet");
    let (ids, texts_) = (strings(&["1", "2"]), strings(&["one", "two"]));
    let columns =
        [("a || b", ids), ("upper(x)", texts_), ("@content", strings(&["p", "q"])), ("x - y", strings(&["u", "v"]))];
    write_parquet(&path, columns.into(), 100);
    let of = |id: &str| SourceSpec {
        id: id.into(),
        text: "upper(x)".into(),
        keep: vec!["x - y".into(), "\"a || b\" AS ab".into()],
        ..spec(&path)
    };
    let batch = read(of("a || b")).await;
    assert_eq!((texts(&batch, DOC_ID), texts(&batch, TEXT)), (texts(&batch, "ab"), vec!["one".into(), "two".into()]));
    assert_eq!(texts(&batch, "x - y"), ["u", "v"]);
    assert_eq!(texts(&read(of("@content")).await, DOC_ID), ["p", "q"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_are_made_of_texts_or_of_files_and_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let with = |name: &str, id: &str| SourceSpec { id: id.into(), ..spec(&folder.path().join(name)) };
    let expected = texts(&read(with("a.parquet", "@content")).await, DOC_ID);
    assert_eq!(expected[0], blake3::hash(b"plain").to_hex()[..32]);
    for name in ["a.arrow", "a.arrows", "a.jsonl", "a.csv"] {
        assert_eq!(texts(&read(with(name, "@content")).await, DOC_ID), expected, "{name}");
        assert_eq!(texts(&read(with(name, "@row")).await, DOC_ID)[4], format!("{name}#4"));
    }
    let other = folder.path().join("sub/year=2024/b.parquet");
    write_parquet(&other, vec![("text", strings(&["one"]))], 100);
    assert_eq!(texts(&read(with("sub", "@row")).await, DOC_ID), ["year=2024/b.parquet#0"]);
    assert_eq!(texts(&read(with("sub/*/b.parquet", "@row")).await, DOC_ID), ["year=2024/b.parquet#0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_text_has_no_document_and_is_no_missing_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    fs::write(&path, "{\"text\": \"one\"}\n{\"text\": null}\n{\"text\": \"\"}\nbroken\n{\"text\": 7}\n").unwrap();
    let batch = read(SourceSpec { id: "@content".into(), ..spec(&path) }).await;
    let found: Vec<String> = errors(&batch).into_iter().map(|(_, message)| message).collect();
    assert_eq!(found[..2], ["the text is null", "the text is empty"]);
    let has_id: Vec<bool> = (0..5).map(|row| batch[DOC_ID].is_valid(row)).collect();
    assert_eq!(has_id, [true, true, true, false, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_rows_have_no_computed_id_and_no_id_of_a_computed_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let row = |n: u8| format!("{{\"id\": \"{n}\", \"text\": \"text {n}\", \"n\": {n}}}");
    fs::write(&path, format!("{}\nbroken\n{}\n", row(1), row(0))).unwrap();
    // The last row is read, and refused by the condition alone.
    let with = |id: &str, text: &str| SourceSpec {
        id: id.into(),
        text: text.into(),
        condition: Some("6 / n > 1".into()),
        ..spec(&path)
    };
    let batch = read(with("concat('doc-', id)", "text")).await;
    assert_eq!(texts(&batch, DOC_ID), ["doc-1", "-", "doc-0"]);
    assert_eq!(errors(&batch).len(), 2);
    let batch = read(with("@content", "coalesce(text, 'none')")).await;
    let has_id: Vec<bool> = (0..3).map(|row| batch[DOC_ID].is_valid(row)).collect();
    assert_eq!((has_id, &*texts(&batch, TEXT)[1]), (vec![true, false, true], "-"));
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_record_with_shifted_fields_has_no_id_of_its_text_and_is_not_excluded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(&path, "title,text,lang\na,one,fr\nb,t,wo,fr\nc,three\nd,four,de\n").unwrap();
    let condition = Some("lang = 'fr'".to_owned());
    let batch = read(SourceSpec { id: "@content".into(), condition, ..spec(&path) }).await;
    assert_eq!((rows(&batch), errors(&batch).len()), (vec![0, 1, 2], 2));
    let has_id: Vec<bool> = (0..3).map(|row| batch[DOC_ID].is_valid(row)).collect();
    assert_eq!(has_id, [true, false, false]);
    let named = read(SourceSpec { id: "title".into(), ..spec(&path) }).await;
    assert_eq!(texts(&named, TEXT), ["one", "t", "three", "four"], "the quarantine shows the text");
    let last = read(SourceSpec { id: "lang".into(), ..spec(&path) }).await;
    assert_eq!((0..4).map(|row| last[DOC_ID].is_valid(row)).collect::<Vec<_>>(), [true, false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_condition_excludes_are_not_refused_for_other_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let lines = [
        r#"{"id": "0", "text": "zero", "lang": "fr"}"#,
        r#"{"id": "1", "text": 1, "lang": "de"}"#,
        r#"{"id": "2", "text": 2, "lang": "fr"}"#,
        r#"{"id": "3", "text": 3}"#,
        "broken",
    ];
    fs::write(&path, lines.join("\n")).unwrap();
    let with = |condition: &str| SourceSpec { condition: Some(condition.into()), ..spec(&path) };
    for condition in ["lang = 'fr'", "coalesce(lang, 'de') = 'fr'"] {
        let batch = read(with(condition)).await;
        assert_eq!((rows(&batch), errors(&batch).len()), (vec![0, 2, 3, 4], 3), "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_that_the_condition_excludes_are_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    let ids: Vec<String> = (0..10).map(|n| format!("{n}")).collect();
    let ids = strings(&ids.iter().map(String::as_str).collect::<Vec<_>>());
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10));
    let langs = strings(&["de", "de", "de", "de", "en", "en", "fr", "fr", "fr", "fr"]);
    let columns = vec![("id", Arc::clone(&ids)), ("text", ids), ("n", numbers), ("lang", langs)];
    write_parquet(&path, columns, 2);
    let size = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    for (condition, expected, pruned) in [
        ("n >= 7", &[7, 8, 9][..], 3),
        ("n IN (0, 9)", &[0, 9], 3),
        ("lang = 'fr' AND length(text) = 1", &[6, 7, 8, 9], 3),
        ("n % 5 = 1", &[1, 6], 0),
        ("n < 0", &[], 5),
    ] {
        let of = || SourceSpec { condition: Some(condition.into()), ..spec(&path) };
        let (batch, groups) = measured(of(), "row_groups_pruned").await;
        assert_eq!((rows(&batch).as_slice(), groups), (expected, pruned), "{condition}");
        let (_, bytes) = measured(of(), "bytes_read").await;
        assert_eq!(bytes < size, pruned > 0, "{condition}: {bytes} of {size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_exclude_no_row_group_by_a_time_of_day() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.parquet");
    // 23 o'clock, one o'clock on the next day; ten and eleven o'clock on the day after it.
    let hours = [23, 25, 58, 59].map(|hour: i64| hour * 3_600_000_000);
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(hours.to_vec()));
    let ids = strings(&["a", "b", "c", "d"]);
    write_parquet(&path, vec![("id", Arc::clone(&ids)), ("text", ids), ("moment", times)], 2);
    for (condition, expected, pruned) in [
        ("CAST(moment AS TIME) > TIME '12:00:00'", &[0][..], 0),
        ("CAST(moment AS DATE) = DATE '1970-01-03'", &[2, 3], 1),
        ("moment < TIMESTAMP '1970-01-02T00:00:00'", &[0], 1),
    ] {
        let of = SourceSpec { condition: Some(condition.into()), ..spec(&path) };
        let (batch, groups) = measured(of, "row_groups_pruned").await;
        assert_eq!((rows(&batch).as_slice(), groups), (expected, pruned), "{condition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_columns_and_files_that_contradict_the_condition_are_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let file = |name: &str, text: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{{\"id\": \"{text}\", \"text\": \"{text}\"}}\n")).unwrap();
    };
    file("year=2023/lang=__HIVE_DEFAULT_PARTITION__/a.jsonl", "old");
    file("year=2024/lang=fr%2Fca/b.jsonl", "french");
    file("year=2024/lang=en/c.jsonl", "english");
    let keep = vec!["year".to_owned(), "upper(lang) AS lang".to_owned()];
    let all = SourceSpec { keep: keep.clone(), ..spec(root) };
    let batch = read(all.clone()).await;
    assert_eq!(batch["year"].data_type(), &DataType::Int64);
    let mut found: Vec<_> = texts(&batch, DOC_ID).into_iter().zip(texts(&batch, "lang")).collect();
    found.sort();
    let pair = |id: &str, lang: &str| (id.to_owned(), lang.to_owned());
    assert_eq!(found, [pair("english", "EN"), pair("french", "FR/CA"), pair("old", "-")]);
    let names = |spec: SourceSpec| async move {
        let source = Source::open(spec).await.unwrap();
        source.keep_fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(SourceSpec { keep: vec!["*".into()], ..spec(root) }).await, ["year", "lang"]);

    // Opening this file would be an error, and one of its rows.
    fs::write(root.join("year=2023/lang=__HIVE_DEFAULT_PARTITION__/a.jsonl"), "PAR1 and no more").unwrap();
    let condition = Some("year = 2024 AND (text = 'english' OR lang LIKE 'fr%')".to_owned());
    let source = Source::open(SourceSpec { condition, ..all.clone() }).await.unwrap();
    assert_eq!(source.files(), 2);
    let batch = scan(source).await;
    assert_eq!((batch.num_rows(), errors(&batch).len()), (2, 0));
    let none = Source::open(SourceSpec { condition: Some("year > 2024".into()), ..all }).await.unwrap();
    assert_eq!((none.files(), none.total_bytes()), (0, 0));
    assert_eq!(scan(none).await.num_rows(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_of_the_files_hides_a_partition_of_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lang=fr/a.jsonl");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{\"id\": \"1\", \"text\": \"one\", \"lang\": \"de\"}\n").unwrap();
    let of = |condition: &str| SourceSpec {
        keep: vec!["lang".into()],
        condition: Some(condition.into()),
        ..spec(folder.path())
    };
    assert_eq!(texts(&read(of("lang = 'de'")).await, "lang"), ["de"]);
    assert_eq!(read(of("lang = 'fr'")).await.num_rows(), 0);
}

#[tokio::test]
async fn wrong_expressions_are_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path());
    let open = async |change: &dyn Fn(&mut SourceSpec)| {
        let mut spec = spec(&folder.path().join("a.csv"));
        change(&mut spec);
        Source::open(spec).await.map(drop).unwrap_err()
    };
    let refused = async |change: &dyn Fn(&mut SourceSpec), parts: &[&str]| {
        let error = open(change).await;
        let text = error.to_string();
        assert!(matches!(error, SourceError::Expression { .. }), "{text}");
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    refused(&|spec| spec.condition = Some("year >".into()), &["`where` of the source, `year >`", "Expected"]).await;
    refused(&|spec| spec.condition = Some("year + 1".into()), &["Int64", "true or false"]).await;
    refused(&|spec| spec.condition = Some("random() < 0.5".into()), &["random"]).await;
    refused(&|spec| spec.text = "count(text)".into(), &["`text`", "many rows"]).await;
    refused(&|spec| spec.text = "year * 2".into(), &["Int64, expected text"]).await;
    refused(&|spec| spec.text = "title || text".into(), &["no column `title`", "id, extra, text, year, lang"]).await;
    refused(&|spec| spec.id = "year > 1".into(), &["Boolean, expected text or whole numbers"]).await;
    refused(&|spec| spec.keep = vec!["lang".into(), "upper(lang)".into()], &["`keep[1]`", "AS name"]).await;
    let twice = open(&|spec| spec.keep = vec!["lang".into(), "year AS lang".into()]).await;
    assert!(matches!(&twice, SourceError::KeptTwice { column } if column == "lang"), "{twice}");
    let reserved = open(&|spec| spec.keep = vec!["lang AS embedding".into()]).await;
    assert!(matches!(&reserved, SourceError::ReservedColumn { column } if column == "embedding"), "{reserved}");

    let without_id = open(&|spec| spec.id = "url".into()).await;
    assert!(matches!(without_id, SourceError::MissingColumn { usage: ColumnUse::Id, .. }), "{without_id}");
    let hint = without_id.hint().unwrap();
    for part in ["id = \"@content\"", "id = \"@row\"", "--id @content", "--id @row"] {
        assert!(hint.contains(part), "{hint}");
    }
}
