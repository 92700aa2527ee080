//! Texts in many scripts, and corpora of any length.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    csv::WriterBuilder,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
    ipc::writer::FileWriter,
    json::LineDelimitedWriter,
};
use parquet::arrow::ArrowWriter;

/// Texts that are hard to split, by their difficulty.
pub const SCRIPTS: [(&str, &str); 9] = [
    ("latin", "All human beings are born free. They are endowed with reason; L’été fut long!"),
    ("combining", "e\u{301}te\u{301} a\u{308}o\u{308}u\u{308} n\u{303}andu\u{301}, Vie\u{323}\u{302}t Nam."),
    ("emoji", "👩‍👩‍👧‍👦 went 🏴󠁧󠁢󠁳󠁣󠁴󠁿 with 👍🏽 and ❤️‍🔥! 🇺🇳"),
    ("thai", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"),
    ("japanese", "すべての人間は、生まれながらにして自由であり、尊厳と権利とについて平等である。"),
    ("arabic", "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق."),
    ("devanagari", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।"),
    ("khmer", "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។"),
    ("korean", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
];

/// Numbered repetitions of the text, until the document has at least this many characters.
pub fn long_document(text: &str, chars: usize) -> String {
    let mut document = String::new();
    let mut number = 1;
    let mut count = 0;
    while count < chars {
        let part = format!("{number}. {text}\n");
        count += part.chars().count();
        document.push_str(&part);
        number += 1;
    }
    document
}

/// A file format of [`write_synthetic`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorpusFormat {
    /// Parquet, a row group every 10,000 rows.
    Parquet,
    /// An Arrow IPC file.
    Arrow,
    /// One JSON object per line.
    Jsonl,
    /// CSV with a header.
    Csv,
}

impl CorpusFormat {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Parquet, Self::Arrow, Self::Jsonl, Self::Csv];

    /// The usual extension of such a file.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
        }
    }
}

/// Writes `rows` short documents with the columns `id`, `text` and `lang`. The n-th document is always the same, and at
/// most 10,000 are in memory.
///
/// # Errors
/// When the file cannot be written.
pub fn write_synthetic(path: &Path, format: CorpusFormat, rows: u64) -> io::Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let batches = (0..rows).step_by(BATCH_ROWS as usize).map(|start| documents(start..rows.min(start + BATCH_ROWS)));
    match format {
        CorpusFormat::Parquet => {
            let mut writer = ArrowWriter::try_new(file, schema(), None).map_err(io::Error::other)?;
            for batch in batches {
                writer.write(&batch?).map_err(io::Error::other)?;
                writer.flush().map_err(io::Error::other)?;
            }
            writer.close().map_err(io::Error::other)?;
        }
        CorpusFormat::Arrow => {
            let mut writer = FileWriter::try_new(file, &schema()).map_err(io::Error::other)?;
            write_all(batches, |batch| writer.write(batch))?;
            writer.finish().map_err(io::Error::other)?;
        }
        CorpusFormat::Jsonl => {
            let mut writer = LineDelimitedWriter::new(file);
            write_all(batches, |batch| writer.write(batch))?;
            writer.finish().map_err(io::Error::other)?;
            writer.into_inner().flush()?;
        }
        CorpusFormat::Csv => {
            let mut writer = WriterBuilder::new().with_header(true).build(file);
            write_all(batches, |batch| writer.write(batch))?;
            writer.into_inner().flush()?;
        }
    }
    Ok(())
}

/// [`write_synthetic`] as Parquet.
///
/// # Errors
/// When the file cannot be written.
pub fn write_synthetic_parquet(path: &Path, rows: u64) -> io::Result<()> {
    write_synthetic(path, CorpusFormat::Parquet, rows)
}

const BATCH_ROWS: u64 = 10_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(["id", "text", "lang"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec()))
}

fn documents(numbers: Range<u64>) -> io::Result<RecordBatch> {
    let ids = numbers.clone().map(|n| format!("doc-{n:09}"));
    let texts = numbers.clone().map(|n| format!("document {n} speaks of {} and {}", n % 977, n % 31));
    let langs = numbers.map(|n| ["eng", "fra", "jpn"][(n % 3) as usize]);
    let columns: [ArrayRef; 3] = [
        Arc::new(StringArray::from_iter_values(ids)),
        Arc::new(StringArray::from_iter_values(texts)),
        Arc::new(StringArray::from_iter_values(langs)),
    ];
    RecordBatch::try_new(schema(), columns.to_vec()).map_err(io::Error::other)
}

fn write_all(
    batches: impl Iterator<Item = io::Result<RecordBatch>>,
    mut write: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> io::Result<()> {
    for batch in batches {
        write(&batch?).map_err(io::Error::other)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Cursor};

    use arrow::ipc::reader::FileReader;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    const LAST_TEXT: &str = "document 10000 speaks of 230 and 18";

    fn written(format: CorpusFormat, rows: u64) -> Vec<u8> {
        let name = format!("polylance-corpus-{}.{}", std::process::id(), format.extension());
        let path = std::env::temp_dir().join(name);
        write_synthetic(&path, format, rows).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    }

    #[test]
    fn every_format_has_the_same_documents() {
        let lines = |format| String::from_utf8(written(format, 10_001)).unwrap();
        let jsonl = lines(CorpusFormat::Jsonl);
        assert_eq!(jsonl.lines().count(), 10_001);
        let last = format!(r#"{{"id":"doc-000010000","text":"{LAST_TEXT}","lang":"fra"}}"#);
        assert_eq!(jsonl.lines().next_back(), Some(last.as_str()));
        let csv = lines(CorpusFormat::Csv);
        assert_eq!((csv.lines().count(), csv.lines().next()), (10_002, Some("id,text,lang")));
        assert_eq!(csv.lines().next_back(), Some(format!("doc-000010000,{LAST_TEXT},fra").as_str()));
        let arrow = FileReader::try_new(Cursor::new(written(CorpusFormat::Arrow, 10_001)), None).unwrap();
        let arrow: Vec<RecordBatch> = arrow.map(Result::unwrap).collect();
        assert_eq!(arrow[1], documents(10_000..10_001).unwrap());
        let parquet = written(CorpusFormat::Parquet, 10_001);
        let parquet = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(parquet)).unwrap();
        assert_eq!(parquet.metadata().num_row_groups(), 2);
        assert_eq!(parquet.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 10_001);
    }

    #[test]
    fn long_document_has_the_requested_length() {
        for (name, text) in SCRIPTS {
            assert!((500..600).contains(&long_document(text, 500).chars().count()), "{name}");
        }
    }
}
