//! A kept value is never changed: types are inferred from all files, and a row with a value that does not fit is
//! refused.

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array,
        Int64Array, ListArray, RecordBatch, StringArray, UInt64Array,
    },
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef, Int32Type, UInt64Type},
    util::display::array_value_to_string,
};
use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
};
use parquet::arrow::ArrowWriter;
use polylance_dataflow::{Source, SourceError, SourceScanExec, SourceSpec};
use polylance_schema::Explain;
use polylance_schema::columns::{DOC_ID, ERROR, SOURCE_ROW, TEXT};

fn spec(uri: &Path, keep: &[&str]) -> SourceSpec {
    SourceSpec {
        keep: keep.iter().map(|&name| name.into()).collect(),
        max_bytes: 1 << 20,
        ..SourceSpec::new(uri.display().to_string())
    }
}

async fn scan(source: Source) -> RecordBatch {
    let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(source));
    let schema = scan.schema();
    concat_batches(&schema, &collect(scan, Arc::new(TaskContext::default())).await.unwrap()).unwrap()
}

/// Writes files into a folder and reads the folder.
async fn read(files: &[(&str, &str)], keep: &[&str]) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    scan(Source::open(spec(folder.path(), keep)).await.unwrap()).await
}

async fn read_batches(batches: &[RecordBatch], keep: &[&str]) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    for (number, batch) in batches.iter().enumerate() {
        let file = File::create(folder.path().join(format!("{number}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(batch).unwrap();
        writer.close().unwrap();
    }
    scan(Source::open(spec(folder.path(), keep)).await.unwrap()).await
}

/// The values of a column as text; null is `None`.
fn values(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let array = &batch[column];
    let value = |row| array.is_valid(row).then(|| array_value_to_string(array, row).unwrap());
    (0..array.len()).map(value).collect()
}

fn texts(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|&value| (value != "-").then(|| value.to_owned())).collect()
}

/// Ids and messages of refused rows.
fn refused(batch: &RecordBatch) -> Vec<(Option<String>, String)> {
    let errors = batch[ERROR].as_struct();
    let ids = values(batch, DOC_ID);
    let message = |row| errors.column(1).as_string::<i32>().value(row).to_owned();
    (0..batch.num_rows()).filter(|&row| errors.is_valid(row)).map(|row| (ids[row].clone(), message(row))).collect()
}

fn parquet(ids: &[&str], kept: ArrayRef) -> RecordBatch {
    let text: ArrayRef = Arc::new(StringArray::from_iter_values(ids.iter().map(|id| format!("text {id}"))));
    let id: ArrayRef = Arc::new(StringArray::from_iter_values(ids));
    RecordBatch::try_from_iter_with_nullable([("id", id, true), ("text", text, true), ("v", kept, true)]).unwrap()
}

/// Values of a first and a second file, the type of both, and how the values are kept.
type Case<'a> = (&'a [&'a str], &'a [&'a str], DataType, &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn types_of_text_formats_are_inferred_from_all_values() {
    let json = |values: &[&str]| -> String {
        let row = |(n, v): (usize, &&str)| format!("{{\"id\":\"{n}\",\"text\":\"x\",\"v\":{v}}}\n");
        values.iter().enumerate().map(row).collect::<Vec<_>>().concat()
    };
    let csv = |values: &[&str]| -> String {
        let rows = values.iter().enumerate().map(|(n, value)| format!("{n},x,{value}\n"));
        ["id,text,v\n".to_owned()].into_iter().chain(rows).collect()
    };
    let cases: [Case<'_>; 10] = [
        (&["1", "0"], &["0.75", "2.5", "3"], DataType::Float64, &["1.0", "0.0", "0.75", "2.5", "3.0"]),
        (&["12"], &["\"012\"", "14"], DataType::Utf8, &["12", "012", "14"]),
        (&["11898508762506083287"], &["7"], DataType::UInt64, &["11898508762506083287", "7"]),
        (&["9007199254740993"], &["0.5"], DataType::Utf8, &["9007199254740993", "0.5"]),
        (&["36893488147419103233"], &["1"], DataType::Utf8, &["36893488147419103233", "1"]),
        (&["true"], &["1"], DataType::Utf8, &["true", "1"]),
        (&["NaN", "1.5"], &["Infinity"], DataType::Float64, &["NaN", "1.5", "inf"]),
        (&["[1, 2]"], &["\"a\""], DataType::Utf8, &["[1, 2]", "a"]),
        (&["{\"a.b\":1}"], &["{}"], DataType::Utf8, &["{\"a.b\":1}", "{}"]),
        (&["null"], &["false"], DataType::Boolean, &["-", "false"]),
    ];
    for (first, second, data_type, expected) in cases {
        let batch = read(&[("0.jsonl", &json(first)), ("1.jsonl", &json(second))], &["v"]).await;
        assert_eq!(batch["v"].data_type(), &data_type, "{first:?} and {second:?}");
        assert_eq!((values(&batch, "v"), refused(&batch)), (texts(expected), vec![]), "{first:?} and {second:?}");
    }
    let cases: [Case<'_>; 7] = [
        (&["10115"], &["01067"], DataType::Utf8, &["10115", "01067"]),
        (&["2301.00010"], &["2301.001"], DataType::Utf8, &["2301.00010", "2301.001"]),
        (&["1.1"], &["1.10"], DataType::Utf8, &["1.1", "1.10"]),
        (&["1234567"], &["12e4567", "7654e21"], DataType::Utf8, &["1234567", "12e4567", "7654e21"]),
        (&["2"], &["2.0"], DataType::Utf8, &["2", "2.0"]),
        (&["11898508762506083287", ""], &["7"], DataType::UInt64, &["11898508762506083287", "-", "7"]),
        (&["0.5"], &["1e-05", "2"], DataType::Float64, &["0.5", "0.00001", "2.0"]),
    ];
    for (first, second, data_type, expected) in cases {
        let batch = read(&[("0.csv", &csv(first)), ("1.csv", &csv(second))], &["v"]).await;
        assert_eq!(batch["v"].data_type(), &data_type, "{first:?} and {second:?}");
        assert_eq!(refused(&batch), [], "{first:?} and {second:?}");
        if data_type != DataType::Float64 {
            assert_eq!(values(&batch, "v"), texts(expected), "{first:?} and {second:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_json_keeps_its_types_and_its_numbers() {
    let lines = "{\"id\":1,\"text\":\"a\",\"v\":[{\"n\":1,\"s\":\"x\"},null],\"u\":[]}\n\
                 {\"id\":2,\"text\":\"b\",\"v\":[{\"n\":2.5}],\"u\":[\"\"]}\n{\"id\":3,\"text\":\"c\",\"v\":null}\n";
    let batch = read(&[("a.jsonl", lines)], &["v", "u"]).await;
    let item = batch["v"].as_list::<i32>().values().as_struct().clone();
    assert_eq!(item.column_by_name("n").unwrap().as_ref(), &Float64Array::from(vec![Some(1.0), None, Some(2.5)]));
    assert_eq!(values(&batch, "u"), texts(&["[]", "[]", "-"]));
    assert_eq!(batch["u"].as_list::<i32>().value(1).len(), 1);
    assert_eq!((batch["v"].null_count(), refused(&batch)), (1, vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_existing_table_keeps_its_types() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let field = |data_type| -> FieldRef { Arc::new(Field::new("v", data_type, true)) };
    let open = async |data_type| {
        let table = [field(data_type)];
        scan(Source::open_for(spec(&path, &["v"]), &table).await.unwrap()).await
    };
    fs::write(&path, "{\"id\":1,\"text\":\"a\",\"v\":7}\n{\"id\":2,\"text\":\"b\",\"v\":7.5}\n{\"id\":3,\"text\":\"c\",\"v\":\"07\"}\n")
        .unwrap();
    for (data_type, expected, bad) in [
        (DataType::Int64, ["7", "-", "-"], &["2", "3"][..]),
        (DataType::Float64, ["7.0", "7.5", "-"], &["3"]),
        (DataType::Utf8, ["7", "7.5", "07"], &[]),
        (DataType::Int32, ["7", "-", "-"], &["2", "3"]),
    ] {
        let batch = open(data_type.clone()).await;
        assert_eq!(batch["v"].data_type(), &data_type);
        let refused = refused(&batch);
        assert_eq!(refused.iter().map(|(id, _)| id.as_deref().unwrap()).collect::<Vec<_>>(), bad, "{refused:?}");
        assert!(refused.iter().all(|(_, message)| message.contains("`v`") && message.contains('7')), "{refused:?}");
        for (found, expected) in values(&batch, "v").iter().zip(texts(&expected)) {
            assert!(expected.is_none() || *found == expected, "{data_type}: {found:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parquet_columns_widen_and_rows_with_other_values_are_refused() {
    let ints = |values: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(values.to_vec())) };
    let floats = Arc::new(Float64Array::from(vec![Some(4.5), Some(1.5), None]));
    let batch = read_batches(&[parquet(&["a", "b"], ints(&[5, 2])), parquet(&["c", "d", "e"], floats)], &["v"]).await;
    assert_eq!(values(&batch, "v"), texts(&["5.0", "2.0", "4.5", "1.5", "-"]));
    assert_eq!(refused(&batch), []);

    // More digits than a double has.
    let floats = Arc::new(Float64Array::from(vec![0.5]));
    let batch = read_batches(&[parquet(&["a", "b"], ints(&[(1 << 53) + 1, 3])), parquet(&["c"], floats)], &["v"]).await;
    let bad = refused(&batch);
    assert_eq!((bad.len(), bad[0].0.as_deref()), (1, Some("a")), "{bad:?}");
    assert!(bad[0].1.contains("9007199254740993"), "{bad:?}");

    let odd: ArrayRef = Arc::new(StringArray::from(vec!["1900", "n.d.", "1902", "007"]));
    let batch = read_batches(&[parquet(&["a"], ints(&[1901])), parquet(&["b", "c", "d", "e"], odd)], &["v"]).await;
    assert_eq!(values(&batch, "v")[..2], texts(&["1901", "1900"]));
    let bad = refused(&batch);
    assert_eq!(bad.iter().map(|(id, _)| id.as_deref().unwrap()).collect::<Vec<_>>(), ["c", "e"]);
    assert!(bad[0].1.contains("n.d.") && bad[1].1.contains("007"), "{bad:?}");

    let small: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let large: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
    let batch = read_batches(&[parquet(&["a"], small), parquet(&["b"], large)], &["v"]).await;
    assert_eq!(values(&batch, "v"), texts(&["1", "18446744073709551615"]));

    // A list is refused for text, and a missing kept column is null.
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]));
    let without = parquet(&["c"], ints(&[1])).project(&[0, 1]).unwrap();
    let text: ArrayRef = Arc::new(StringArray::from(vec!["x"]));
    let batch = read_batches(&[parquet(&["a"], text), parquet(&["b"], list), without], &["v"]).await;
    assert_eq!(values(&batch, "v"), texts(&["x", "-", "-"]));
    assert_eq!(refused(&batch).iter().map(|(id, _)| id.as_deref().unwrap()).collect::<Vec<_>>(), ["b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uuids_decimals_and_binary_are_ids_and_texts() {
    let text = |values: &[&[u8]]| -> ArrayRef { Arc::new(BinaryArray::from_iter_values(values)) };
    let batch = |id: ArrayRef, text: ArrayRef| {
        RecordBatch::try_from_iter_with_nullable([("id", id, true), ("text", text, true)]).unwrap()
    };
    let uuid: ArrayRef = Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8; 16], [255; 16]].into_iter()).unwrap());
    let found = read_batches(&[batch(uuid, text(&[b"a", b"b"]))], &[]).await;
    let expected = ["01010101-0101-0101-0101-010101010101", "ffffffff-ffff-ffff-ffff-ffffffffffff"];
    assert_eq!(values(&found, DOC_ID), texts(&expected));
    let digits = Decimal128Array::from(vec![1, 12_345_678_901_234_567_890, -3]);
    let decimal: ArrayRef = Arc::new(digits.with_precision_and_scale(20, 0).unwrap());
    let found = read_batches(&[batch(decimal, text(&[b"a", "ä".as_bytes(), b"c"]))], &[]).await;
    assert_eq!(values(&found, DOC_ID), texts(&["1", "12345678901234567890", "-3"]));
    assert_eq!(values(&found, TEXT), texts(&["a", "ä", "c"]));

    let id = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let plain = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]));
    let number: ArrayRef = Arc::new(Int64Array::from(vec![2026]));
    let doubles: ArrayRef = Arc::new(Float64Array::from(vec![Some(3.0), Some(3.5), None]));
    let found = read_batches(
        &[
            batch(id(&["a"]), plain(&["oats"])),
            batch(id(&["b", "c", "d"]), text(&[b"hops", b"a f\xffeld", b"hemp"])),
            batch(id(&["e"]), list),
            batch(id(&["f"]), number),
            batch(doubles, plain(&["x", "y", "z"])),
        ],
        &[],
    )
    .await;
    let bad = refused(&found);
    assert_eq!(bad.iter().map(|(id, _)| id.as_deref().unwrap_or("-")).collect::<Vec<_>>(), ["c", "-", "-", "-", "-"]);
    for ((_, message), part) in bad.iter().zip(["UTF-8", "expected text", "expected text", "3.5", "the id is null"]) {
        assert!(message.contains(part), "{message}");
    }
    assert!(values(&found, DOC_ID).contains(&Some("3".into())));
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_text_formats_keep_their_digits() {
    let ids = ["11898508762506083287", "36893488147419103233", "-1", "2301.00010"];
    let json = ids[..3].iter().map(|id| format!("{{\"id\":{id},\"text\":\"x\"}}\n")).collect::<Vec<_>>().concat();
    let batch = read(&[("a.jsonl", &format!("{json}{{\"id\":\"2301.00010\",\"text\":\"x\"}}\n"))], &[]).await;
    assert_eq!(values(&batch, DOC_ID), texts(&ids));
    let csv = format!("id,text\n{}", ids.map(|id| format!("{id},x\n")).concat());
    let batch = read(&[("a.csv", &csv)], &["*"]).await;
    assert_eq!((values(&batch, DOC_ID), refused(&batch)), (texts(&ids), vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn json_of_python_is_read() {
    let lines = "{\"id\":\"1\",\"text\":\"a\",\"score\":NaN}\n{\"id\":\"2\",\"text\":\"cut \\ud83d\",\"score\":-Infinity}\n\
                 {\"id\":\"3\",\"text\":\"b\",\"score\":1.5,}\n{\"id\":4,\"text\":[\"a\"]}\n{\"id\":5,\"text\":7}\n";
    for keep in [&[][..], &["score"]] {
        let batch = read(&[("a.jsonl", lines)], keep).await;
        assert_eq!(values(&batch, TEXT)[..2], texts(&["a", "cut \u{fffd}"]));
        let bad = refused(&batch);
        assert_eq!(bad.iter().map(|(id, _)| id.as_deref().unwrap()).collect::<Vec<_>>(), ["3", "4", "5"], "{bad:?}");
        if !keep.is_empty() {
            assert_eq!(values(&batch, "score")[..2], texts(&["NaN", "-inf"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_a_table_cannot_have_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |name: &str, content: &str, keep: &[&str]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        Source::open(spec(&path, keep)).await
    };
    let dots = "{\"id\":\"1\",\"text\":\"a\",\"meta.lang\":\"en\"}\n";
    assert!(open("a.jsonl", dots, &[]).await.is_ok());
    for keep in ["meta.lang", "*"] {
        let error = open("a.jsonl", dots, &[keep]).await.unwrap_err();
        assert!(matches!(&error, SourceError::ColumnName { column } if column == "meta.lang"), "{error}");
        assert!(error.hint().is_some());
    }
    let twins = "id,text,lang,lang,x\n1,a,en,de,1\n";
    assert!(open("b.csv", twins, &["x"]).await.is_ok());
    for keep in ["lang", "*"] {
        let error = open("b.csv", twins, &[keep]).await.unwrap_err();
        assert!(matches!(&error, SourceError::AmbiguousColumn { column, .. } if column == "lang"), "{error}");
    }
    for content in ["id,text,text\n1,a,b\n", "id,text,id\n1,a,2\n"] {
        assert!(matches!(open("c.csv", content, &[]).await, Err(SourceError::AmbiguousColumn { .. })), "{content}");
    }
    assert!(matches!(open("d.csv", twins, &["x", "x"]).await, Err(SourceError::KeptTwice { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_later_files_are_kept_and_ambiguous_ones_ignored() {
    let files = [("0.csv", "id,text,a\n1,x,1\n"), ("1.csv", "id,text,b,c,c\n2,y,7,1,2\n")];
    let batch = read(&files, &["b", "a"]).await;
    assert_eq!((values(&batch, "a"), values(&batch, "b")), (texts(&["1", "-"]), texts(&["-", "7"])));
    let batch = read(&[files[0], ("1.csv", "id,text,b\n2,y,7\n")], &["*"]).await;
    assert_eq!((values(&batch, "a"), values(&batch, "b")), (texts(&["1", "-"]), texts(&["-", "7"])));
    assert_eq!(refused(&batch), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_dialects_and_unclosed_quotes_are_read() {
    let open = "id,text,lang\n1,first,en\n2,\"an open remark\u{201d},en\n3,third,en\n4,\"the \"\"fourth\"\"\",en\n";
    let batch = read(&[("a.csv", open)], &["lang"]).await;
    assert_eq!(values(&batch, DOC_ID), texts(&["1", "2", "3", "4"]));
    assert_eq!(values(&batch, TEXT), texts(&["first", "-", "third", "the \"fourth\""]));
    let rows = batch[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec();
    assert_eq!((refused(&batch), rows), (vec![(Some("2".into()), "a quote is never closed".into())], vec![0, 1, 2, 3]));

    for (content, text) in [
        ("id\ttext\tlang\n1\tone, two\ten\n", "one, two"),
        ("id;text;lang\r\n1;\"a;b\";en\r\n", "a;b"),
        ("id|text|lang\n1|a b|en\n", "a b"),
        ("id,text,lang\n1,\"he said \\\"hi\\\", twice\\\\\",en\n", "he said \"hi\", twice\\"),
    ] {
        let batch = read(&[("a.csv", content)], &["lang"]).await;
        assert_eq!((values(&batch, TEXT), values(&batch, "lang")), (texts(&[text]), texts(&["en"])), "{content:?}");
    }
}
