//! Long documents become chunks whose texts are exact slices of the source, in every script.

use arrow::{
    array::AsArray,
    datatypes::{UInt32Type, UInt64Type},
};
use polylance_tests::{Row, polylance, polylance_with, read_table, strings, vectors, write_parquet};

const SENTENCES: [(&str, &str); 8] = [
    ("latin", "Ça va très bien, merci; l’été fut long. "),
    ("combining", "e\u{301}te\u{301} a\u{308}o\u{308}u\u{308} n\u{303}andu\u{301}. "),
    ("emoji", "👩‍👩‍👧‍👦 went 🏴󠁧󠁢󠁳󠁣󠁴󠁿 with 👍🏽 and ❤️‍🔥! "),
    ("thai", "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ"),
    ("japanese", "すべての人間は、生まれながらにして自由である。"),
    ("arabic", "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. "),
    ("devanagari", "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है। "),
    ("khmer", "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព។ "),
];

#[test]
fn chunks_are_exact_slices_of_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let rows: Vec<Row> =
        SENTENCES.iter().map(|(id, sentence)| Row::new(*id, format!("  {}\n", sentence.repeat(30)))).collect();
    write_parquet(&folder.path().join("docs.parquet"), &rows);

    for cut in ["sentence", "word", "token"] {
        let table = path(&format!("{cut}.lance"));
        let pipeline = path(&format!("{cut}.toml"));
        let toml = format!(
            "version = 1\n[source]\nuri = \"{}\"\n[chunk]\ntokens = 48\noverlap = 12\ncut = \"{cut}\"\n[table]\nuri = \"{table}\"\n",
            path("docs.parquet")
        );
        std::fs::write(&pipeline, toml).unwrap();
        let _ = polylance(&["run", &pipeline, "--progress", "none"]).exits_with(0);

        let read = read_table(
            &table,
            &["doc_id", "chunk", "char_start", "char_end", "text", "n_tokens", "truncated", "embedding"],
        );
        let (ids, texts) = (strings(&read, "doc_id"), strings(&read, "text"));
        let offsets = |column: &str| read[column].as_primitive::<UInt64Type>().values().to_vec();
        let (starts, ends) = (offsets("char_start"), offsets("char_end"));
        let tokens = read["n_tokens"].as_primitive::<UInt32Type>();
        for row in &rows {
            let source: Vec<char> = row.text.as_ref().unwrap().chars().collect();
            let of_document: Vec<usize> = (0..ids.len()).filter(|&at| ids[at] == row.id).collect();
            assert!(of_document.len() > 3, "{}: {} chunks", row.id, of_document.len());
            let mut covered = 0;
            for &at in &of_document {
                let (start, end) = (starts[at] as usize, ends[at] as usize);
                assert_eq!(texts[at], source[start..end].iter().collect::<String>(), "{cut} {}", row.id);
                assert!(tokens.value(at) <= 48);
                let skipped = source.get(covered..start).unwrap_or_default();
                assert!(skipped.iter().all(|c| c.is_whitespace()), "{cut} {} loses {skipped:?}", row.id);
                covered = end;
            }
            assert!(source[covered..].iter().all(|c| c.is_whitespace()));
        }
        assert!((0..read.num_rows()).all(|at| !read["truncated"].as_boolean().value(at)));

        // The vector of a stored chunk is that of its own text.
        let lines: String = texts.iter().take(40).map(|text| text.replace('\n', " ") + "\n").collect();
        let encoded = polylance_with(&["encode", "--prefix", "passage: "], &[], lines.as_bytes()).exits_with(0);
        for (line, stored) in encoded.stdout.lines().zip(vectors(&read)) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let again = line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32);
            let worst = again.zip(&stored).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(worst <= 2e-6, "{worst}");
        }
    }
}

#[test]
fn encode_truncates_long_lines_and_marks_them() {
    let line = "one two three four ".repeat(1000) + "\nshort\n";
    let encoded = polylance_with(&["encode"], &[], line.as_bytes()).exits_with(0);
    let lines: Vec<serde_json::Value> =
        encoded.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["truncated"], &lines[1]["truncated"]), (&true.into(), &false.into()));
    assert!(lines[0]["n_tokens"].as_u64().unwrap() <= 512 && lines[0]["n_tokens"].as_u64().unwrap() > 500);
    assert_eq!(lines[1]["embedding"].as_array().unwrap().len(), 384);
}
