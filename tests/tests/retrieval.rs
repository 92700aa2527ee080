//! Cross-lingual retrieval with the built-in model: article n in another language finds article n in English.

use std::collections::HashMap;

use arrow::{array::AsArray, datatypes::Int32Type};
use polylance_tests::{polylance, read_table, strings, vectors};

const LANGUAGES: [&str; 19] = [
    "fra",
    "deu_1996",
    "spa",
    "rus",
    "arb",
    "cmn_hans",
    "jpn",
    "hin",
    "swh",
    "tur",
    "kor",
    "por_PT",
    "ita",
    "pol",
    "vie",
    "tha",
    "ell_monotonic",
    "heb",
    "fin",
];

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

#[test]
fn translated_articles_find_their_english_version() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("udhr.lance").display().to_string();
    let pipeline = folder.path().join("retrieval.toml");
    let toml = format!(
        "version = 1\n[source]\nuri = \"builtin:udhr?codes=eng,{}\"\nkeep = [\"code\", \"article\"]\n\
         [model]\nprompts = {{ passage = \"query: \", query = \"query: \" }}\n[table]\nuri = \"{table}\"\n",
        LANGUAGES.join(",")
    );
    std::fs::write(&pipeline, toml).unwrap();
    let _ = polylance(&["run", pipeline.to_str().unwrap(), "--progress", "none"]).exits_with(0);

    let rows = read_table(&table, &["code", "article", "embedding"]);
    let codes = strings(&rows, "code");
    let articles = rows["article"].as_primitive::<Int32Type>().values().to_vec();
    let vectors = vectors(&rows);
    let mut by_code: HashMap<&str, Vec<(i32, &[f32])>> = HashMap::new();
    for ((code, article), vector) in codes.iter().zip(articles).zip(&vectors) {
        by_code.entry(code).or_default().push((article, vector));
    }
    let english = &by_code["eng"];
    assert_eq!(english.len(), 30);
    let (mut right, mut queries) = (0, 0);
    for language in LANGUAGES {
        for &(article, query) in &by_code[language] {
            let best = english.iter().max_by(|a, b| dot(a.1, query).total_cmp(&dot(b.1, query))).unwrap();
            right += usize::from(best.0 == article);
            queries += 1;
        }
    }
    assert_eq!(queries, 19 * 30);
    let share = right as f64 / f64::from(queries);
    assert!(share >= 0.95, "{right} of {queries} = {share:.3}");
}
