//! Encodes rows in the format of a file.

use std::{io::Write, sync::Arc};

use anyhow::Context;
use arrow::{
    array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder, new_null_array},
    csv,
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::StreamWriter,
    json::writer::{EncoderOptions, LineDelimited, Writer as JsonWriter, make_encoder},
};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use polylance_search::SearchError;

use super::format::Format;
use crate::{
    error::{Result, UsageError},
    output::rows::explicit_nulls,
};

pub(super) type Destination = Box<dyn Write + Send>;

/// The encoder of a format.
enum Writer {
    Json(Box<JsonWriter<Destination, LineDelimited>>),
    Csv(Box<csv::Writer<Destination>>),
    Arrow(Box<StreamWriter<Destination>>),
    Parquet(Box<ArrowWriter<Destination>>),
}

impl Writer {
    fn new(format: Format, schema: &SchemaRef, destination: Destination) -> Result<Self> {
        Ok(match format {
            Format::Json | Format::Table => Self::Json(Box::new(explicit_nulls().build(destination))),
            Format::Csv => {
                let mut writer = csv::Writer::new(destination);
                // The header is written even if there are no rows.
                writer.write(&cells(&RecordBatch::new_empty(Arc::clone(schema)))?)?;
                Self::Csv(Box::new(writer))
            }
            Format::Arrow => Self::Arrow(Box::new(StreamWriter::try_new(destination, schema)?)),
            Format::Parquet => {
                let compression = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(compression).build();
                Self::Parquet(Box::new(ArrowWriter::try_new(destination, Arc::clone(schema), Some(properties))?))
            }
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Self::Json(writer) => writer.write(batch)?,
            Self::Csv(writer) => writer.write(&cells(batch)?)?,
            Self::Arrow(writer) => writer.write(batch)?,
            Self::Parquet(writer) => writer.write(batch)?,
        }
        Ok(())
    }

    fn finish(self) -> Result<Destination> {
        Ok(match self {
            Self::Json(mut writer) => {
                writer.finish()?;
                writer.into_inner()
            }
            Self::Csv(writer) => writer.into_inner(),
            Self::Arrow(writer) => writer.into_inner()?,
            Self::Parquet(writer) => writer.into_inner()?,
        })
    }
}

/// Refuses a column whose type the format does not support.
pub(super) fn check(format: Format, schema: &SchemaRef) -> Result<()> {
    for field in schema.fields() {
        if let Err(error) = trial(format, field) {
            let name = match format {
                Format::Json | Format::Table => "JSON",
                Format::Csv => "CSV",
                Format::Arrow => "Arrow",
                Format::Parquet => "Parquet",
            };
            let message = format!("the column {} is {}, which {name} cannot hold", field.name(), field.data_type());
            let hint = format!("leave it out, or cast it: CAST({} AS VARCHAR) ({error})", field.name());
            return Err(UsageError::new(message).with_hint(hint).into());
        }
    }
    Ok(())
}

/// Encodes one row of the column and discards it.
fn trial(format: Format, field: &FieldRef) -> Result<()> {
    // The Parquet writer panics on unions.
    if format == Format::Parquet && has_union(field.data_type()) {
        anyhow::bail!("Parquet has no unions");
    }
    let field = Field::clone(field).with_nullable(true);
    let row = new_null_array(field.data_type(), 1);
    let schema = Arc::new(Schema::new(vec![field]));
    let mut writer = Writer::new(format, &schema, Box::new(std::io::sink()))?;
    writer.write(&RecordBatch::try_new(schema, vec![row])?)?;
    writer.finish()?;
    Ok(())
}

fn has_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _)
        | DataType::RunEndEncoded(_, item) => has_union(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_union(field.data_type())),
        DataType::Dictionary(_, values) => has_union(values),
        _ => false,
    }
}

/// Writes all rows.
pub(super) async fn write(
    mut batches: SendableRecordBatchStream,
    format: Format,
    destination: Destination,
) -> Result<()> {
    let mut writer = Writer::new(format, &batches.schema(), destination)?;
    while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
        writer.write(&batch)?;
    }
    Ok(writer.finish()?.flush()?)
}

/// The batch with nested values as JSON texts.
fn cells(batch: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if column.data_type().is_nested() {
            let texts = json(field, column).with_context(|| format!("the column {}", field.name()))?;
            fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
            columns.push(texts);
        } else {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
        }
    }
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &rows)?)
}

fn json(field: &FieldRef, column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(column.len(), 0);
    let mut text = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(std::str::from_utf8(&text).map_err(|error| ArrowError::CsvError(error.to_string()))?);
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use arrow::{
        array::{
            BinaryArray, Decimal128Array, DictionaryArray, Int64Array, IntervalMonthDayNanoArray, ListArray,
            MapBuilder, StringArray, StructArray, TimestampMicrosecondArray, UInt64Array, UnionArray,
        },
        buffer::ScalarBuffer,
        datatypes::{Int32Type, IntervalMonthDayNano, UnionFields},
    };

    use super::*;

    /// A writer whose bytes a test can read.
    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: Format, batch: &RecordBatch) -> Result<String> {
        check(format, batch.schema_ref())?;
        let buffer = SharedBuffer::default();
        let mut writer = Writer::new(format, batch.schema_ref(), Box::new(buffer.clone()))?;
        writer.write(batch)?;
        writer.finish()?.flush()?;
        let bytes = buffer.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn union() -> ArrayRef {
        let fields = UnionFields::try_new([0], [Field::new("n", DataType::Int64, true)]).unwrap();
        let numbers: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1]))];
        Arc::new(UnionArray::try_new(fields, ScalarBuffer::from(vec![0_i8]), None, numbers).unwrap())
    }

    /// One row with a value of each type.
    fn one_row_of_all_types() -> RecordBatch {
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        map.keys().append_value("a");
        map.values().append_null();
        map.append(true).unwrap();
        let place: ArrayRef = Arc::new(StringArray::from(vec![Some("x, \"y\"")]));
        let part = Arc::new(Field::new("place", DataType::Utf8, true));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("tags", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]))),
            ("object", Arc::new(StructArray::from(vec![(part, place)]))),
            ("map", Arc::new(map.finish())),
            ("bytes", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))),
            ("large", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("price", Arc::new(Decimal128Array::from(vec![123_456]).with_precision_and_scale(38, 2).unwrap())),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_000_001]).with_timezone("UTC"))),
            ("word", Arc::new(DictionaryArray::<Int32Type>::from_iter(["w"]))),
            ("span", Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 0)]))),
            ("none", Arc::new(StringArray::new_null(1))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    #[test]
    fn every_type_is_encoded_in_csv_and_json() {
        let batch = one_row_of_all_types();
        let csv = written(Format::Csv, &batch).unwrap();
        let expected = concat!(
            "tags,object,map,bytes,large,price,time,word,span,none\n",
            r#""[1,null]","{""place"":""x, \""y\""""}","{""a"":null}",00ff,18446744073709551615,1234.56,"#,
            "2023-11-14T22:13:20.000001Z,w,1 mons 2 days,\n",
        );
        assert_eq!(csv, expected);
        let json = written(Format::Json, &batch).unwrap();
        let expected = concat!(
            r#"{"tags":[1,null],"object":{"place":"x, \"y\""},"map":{"a":null},"bytes":"00ff","#,
            r#""large":18446744073709551615,"price":1234.56,"time":"2023-11-14T22:13:20.000001Z","word":"w","#,
            r#""span":"1 mons 2 days","none":null}"#,
            "\n",
        );
        assert_eq!(json, expected);
    }

    #[test]
    fn csv_without_rows_has_a_header() {
        assert_eq!(written(Format::Csv, &one_row_of_all_types().slice(0, 0)).unwrap().lines().count(), 1);
    }

    #[test]
    fn error_names_the_column_of_an_unsupported_type() {
        let batch =
            RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![7])) as ArrayRef), ("mixed", union())]);
        let batch = batch.unwrap();
        for format in [Format::Csv, Format::Json, Format::Parquet] {
            let error = written(format, &batch).unwrap_err().to_string();
            assert!(error.starts_with("the column mixed is Union"), "{format:?}: {error}");
        }
        written(Format::Arrow, &batch).unwrap();
        let error = written(Format::Parquet, &one_row_of_all_types()).unwrap_err().to_string();
        assert!(error.starts_with("the column span is Interval(MonthDayNano)"), "{error}");
    }
}
