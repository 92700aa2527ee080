//! Laws that hold for every input of the operators.

use std::{fs, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, FixedSizeBinaryArray, RecordBatch, StringArray, StructArray, UInt64Array, new_null_array,
    },
    compute::concat_batches,
    datatypes::{DataType, Field, FieldRef},
    util::pretty::pretty_format_batches,
};
use datafusion::{
    catalog::memory::MemorySourceConfig,
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
    prelude::SessionConfig,
};
use polylance_backend::{Backend, BackendHandle, TokenizeSpec};
use polylance_dataflow::{AntiJoinExec, DistinctIdExec, EncodeExec, Source, SourceScanExec, SourceSpec, TokenizeExec};
use polylance_schema::{Chunking, Cut, columns::DOC_ID, error_fields, key_schema, source_schema};
use polylance_testkit::FakeBackend;
use proptest::prelude::*;
use tokio::runtime::Runtime;

fn keep() -> Vec<FieldRef> {
    vec![Arc::new(Field::new("lang", DataType::Utf8, true))]
}

/// Documents as a scan yields them, with hashes of their texts.
fn documents(rows: &[(String, String)]) -> RecordBatch {
    let ids = StringArray::from_iter_values(rows.iter().map(|row| &row.0));
    let texts = StringArray::from_iter_values(rows.iter().map(|row| &row.1));
    let hash = |text: &String| <[u8; 16]>::try_from(&blake3::hash(text.as_bytes()).as_bytes()[..16]).unwrap();
    let hashes = FixedSizeBinaryArray::try_from_iter(rows.iter().map(|row| hash(&row.1))).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.clone()),
        Arc::new(ids),
        Arc::new(texts),
        Arc::new(hashes),
        Arc::new(StringArray::from(vec!["file"; rows.len()])),
        Arc::new(UInt64Array::from_iter_values(0..rows.len() as u64)),
        Arc::new(StructArray::from(new_null_array(&DataType::Struct(error_fields()), rows.len()).to_data())),
    ];
    RecordBatch::try_new(source_schema(&keep()), columns).unwrap()
}

/// The batch in parts of these lengths, which are repeated.
fn split(batch: &RecordBatch, lengths: &[usize]) -> Vec<RecordBatch> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for &length in lengths.iter().cycle() {
        let length = length.min(batch.num_rows() - start);
        parts.push(batch.slice(start, length));
        start += length;
        if start == batch.num_rows() {
            break;
        }
    }
    parts
}

fn run(batches: Vec<RecordBatch>, keys: &[RecordBatch]) -> Vec<RecordBatch> {
    let backend: Arc<dyn Backend> = Arc::new(FakeBackend::new(4));
    let input = MemorySourceConfig::try_new_exec(&[batches], source_schema(&keep()), None).unwrap();
    let keys = MemorySourceConfig::try_new_exec(&[keys.to_vec()], key_schema(), None).unwrap();
    let chunking = Chunking::Split { max_tokens: 5, overlap: 1, cut: Cut::Word };
    let fresh = AntiJoinExec::try_new(keys, Arc::new(DistinctIdExec::new(input))).unwrap();
    let chunks = TokenizeExec::try_new(Arc::new(fresh), TokenizeSpec { prefix: "p".into(), chunking }).unwrap();
    let encode: Arc<dyn ExecutionPlan> = Arc::new(EncodeExec::try_new(Arc::new(chunks), backend.info(), &[]).unwrap());
    let config = SessionConfig::new().with_extension(Arc::new(BackendHandle(backend)));
    let context = Arc::new(TaskContext::default().with_session_config(config));
    Runtime::new().unwrap().block_on(collect(encode, context)).unwrap()
}

fn whole(batches: &[RecordBatch]) -> String {
    pretty_format_batches(batches).unwrap().to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn rows_do_not_depend_on_how_they_are_batched(
        rows in prop::collection::vec(("[a-h]", "([a-z]{1,3} ){0,12}|\u{0}refused"), 1..40),
        lengths in prop::collection::vec(1_usize..9, 1..4),
        known in 0_usize..6,
    ) {
        let batch = documents(&rows);
        let keys = batch.project(&[0, 3]).unwrap().slice(0, known.min(rows.len()));
        let keys = RecordBatch::try_new(key_schema(), keys.columns().to_vec()).unwrap();
        let at_once = run(vec![batch.clone()], std::slice::from_ref(&keys));
        let in_parts = run(split(&batch, &lengths), &[keys]);
        prop_assert_eq!(whole(&at_once), whole(&in_parts));
    }

    #[test]
    fn a_changed_or_missing_byte_never_ends_a_scan(format in 0_usize..6, at in 0.0..1.0_f64, byte: u8, cut: bool) {
        let folder = tempfile::tempdir().unwrap();
        let good = "{\"id\":\"good\",\"text\":\"a good row\"}\n";
        fs::write(folder.path().join("a.jsonl"), good).unwrap();
        fs::write(folder.path().join("z.jsonl"), good.replace("\"good\"", "\"last\"")).unwrap();
        let mut bytes = file(format);
        let at = (at * bytes.len() as f64) as usize;
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        fs::write(folder.path().join("b"), bytes).unwrap();
        let rows = Runtime::new().unwrap().block_on(scan(folder.path().display().to_string()));
        let ids: Vec<_> = rows[DOC_ID].as_string::<i32>().iter().flatten().collect();
        prop_assert_eq!((ids.first(), ids.last()), (Some(&"good"), Some(&"last")));
    }
}

/// A small file of each kind.
fn file(format: usize) -> Vec<u8> {
    let rows: Vec<(String, String)> = (0..50).map(|n| (format!("row-{n}"), format!("text {n}"))).collect();
    let batch = documents(&rows).project(&[0, 2]).unwrap();
    let names = ["id", "text"].map(|name| Field::new(name, DataType::Utf8, true));
    let schema = Arc::new(arrow::datatypes::Schema::new(names.to_vec()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).unwrap();
    let mut bytes = Vec::new();
    match format {
        0 => {
            let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
        }
        1 => {
            let mut writer = arrow::ipc::writer::FileWriter::try_new(&mut bytes, &schema).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        2 => {
            let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &schema).unwrap();
            writer.write(&batch).unwrap();
            writer.finish().unwrap();
        }
        3 => arrow::csv::Writer::new(&mut bytes).write(&batch).unwrap(),
        4 => arrow::json::LineDelimitedWriter::new(&mut bytes).write(&batch).unwrap(),
        _ => {
            use tokio::io::AsyncReadExt;
            let plain = file(4);
            let mut encoder = async_compression::tokio::bufread::GzipEncoder::new(&plain[..]);
            Runtime::new().unwrap().block_on(encoder.read_to_end(&mut bytes)).unwrap();
        }
    }
    bytes
}

async fn scan(uri: String) -> RecordBatch {
    let spec = SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(uri) };
    let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(Source::open(spec).await.unwrap()));
    let schema = scan.schema();
    concat_batches(&schema, &collect(scan, Arc::new(TaskContext::default())).await.unwrap()).unwrap()
}
