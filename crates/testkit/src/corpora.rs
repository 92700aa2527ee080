//! Texts in many scripts, and corpora of any length.

use std::{fs::File, io, path::Path, sync::Arc};

use arrow::{
    array::{RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use parquet::arrow::ArrowWriter;

/// Texts that are hard to cut, by what makes them so.
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

/// The text again and again, numbered, until it has this many characters.
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

/// Writes `rows` short documents with the columns `id`, `text` and `lang`, a row group at a time.
///
/// # Errors
/// When the file cannot be written.
pub fn write_synthetic_parquet(path: &Path, rows: u64) -> io::Result<()> {
    let fields = ["id", "text", "lang"].map(|name| Field::new(name, DataType::Utf8, false));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let mut writer = ArrowWriter::try_new(File::create(path)?, Arc::clone(&schema), None).map_err(io::Error::other)?;
    for start in (0..rows).step_by(10_000) {
        let numbers = start..rows.min(start + 10_000);
        let ids = StringArray::from_iter_values(numbers.clone().map(|n| format!("doc-{n:09}")));
        let texts = numbers.clone().map(|n| format!("document {n} speaks of {} and {}", n % 977, n % 31));
        let texts = StringArray::from_iter_values(texts);
        let langs = StringArray::from_iter_values(numbers.map(|n| ["eng", "fra", "jpn"][(n % 3) as usize]));
        let columns = vec![Arc::new(ids) as _, Arc::new(texts) as _, Arc::new(langs) as _];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).map_err(io::Error::other)?;
        writer.write(&batch).map_err(io::Error::other)?;
        writer.flush().map_err(io::Error::other)?;
    }
    writer.close().map_err(io::Error::other)?;
    Ok(())
}
