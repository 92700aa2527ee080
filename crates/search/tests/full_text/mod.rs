//! Words of many languages: their forms in texts, and the forms in which people search for them.

use lance::{Dataset, index::DatasetIndexExt};
use lance_index::{IndexType, scalar::InvertedIndexParams};
use polylance_search::{Models, SearchMode, SearchRequest, describe};
use polylance_sink::{FullTextUpdate, IndexAction, OnConflict, compact, update_full_text_index};

use super::common::{TestTable, owned, strings};

/// A text and queries that find it.
const FOUND: &[(&str, &[&str])] = &[
    // Long words.
    ("இந்த ஆவணம் சுதந்திரத்திற்காகப் போராடியவர்களைப் பற்றியது", &["சுதந்திரத்திற்காகப்", "போராடியவர்களைப்", "பற்றியது"]),
    ("വിദ്യാഭ്യാസസ്ഥാപനങ്ങളിൽ പഠിക്കുന്നവർ", &["വിദ്യാഭ്യാസസ്ഥാപനങ്ങളിൽ", "വിദ്യാഭ്യാസസ്ഥാപനങ്ങളില\u{d4d}\u{200d}", "പഠിക്കുന്നവർ"]),
    ("საქართველოს დამოუკიდებლობისათვის ბრძოლა", &["დამოუკიდებლობისათვის", "ᲓᲐᲛᲝᲣᲙᲘᲓᲔᲑᲚᲝᲑᲘᲡᲐᲗᲕᲘᲡ"]),
    ("స్వాతంత్ర్యసమరయోధులు దేశానికి సేవ చేశారు", &["స్వాతంత్ర్యసమరయోధులు", "సేవ"]),
    ("अंतर्राष्ट्रीयकरण की प्रक्रिया", &["अंतर्राष्ट्रीयकरण", "प्रक्रिया"]),
    ("ಸ್ವಾತಂತ್ರ್ಯಹೋರಾಟಗಾರರಿಗಾಗಿ ಸಭೆ", &["ಸ್ವಾತಂತ್ರ್ಯಹೋರಾಟಗಾರರಿಗಾಗಿ"]),
    (
        "lentokonesuihkuturbiinimoottoriapumekaanikko on pitkä sana",
        &["lentokonesuihkuturbiinimoottoriapumekaanikko", "PITKA"],
    ),
    (
        "hash 0123456789abcdef0123456789abcdef0123456789abcdef here",
        &["0123456789ABCDEF0123456789abcdef0123456789abcdef"],
    ),
    // Case and accents.
    ("Η Ελλάδα είναι όμορφη χώρα, ὁδὸς μακρά", &["Ελλάδα", "ΕΛΛΑΔΑ", "χωρα", "ΟΔΟΣ", "ὁδός"]),
    ("İstanbul ve İzmir büyük şehirlerdir, ışık", &["İstanbul", "istanbul", "ISTANBUL", "izmir", "IŞIK"]),
    ("Зелёная ёлка стоит во дворе, ста́рый за́мок", &["елка", "ёлка", "ЗЕЛЕНАЯ", "старый", "замок"]),
    ("Đà Nẵng là thành phố biển", &["da nang", "Đà Nẵng", "BIEN", "bie\u{302}\u{309}n"]),
    (
        "Das Mu\u{308}nchner Rathaus, E\u{301}lyse\u{301}e und Sen\u{303}orita",
        &["Münchner", "munchner", "élysée", "senorita"],
    ),
    ("Die Straße nach Łódź, Søren og Þór", &["STRASSE", "lodz", "Soren", "thor"]),
    ("كَتَبَ الطَّالِبُ الدَّرْسَ عن أحمد", &["كتب", "الطالب", "احمد"]),
    ("کتاب‌های من می‌خوانم", &["كتاب‌هاي", "میخوانم"]),
    ("בְּרֵאשִׁית בָּרָא, חיילי צה״ל", &["בראשית", "ברא", "צה\"ל"]),
    ("ﾃｽﾄ ＡＢＣ９２３ を書く、ﾊﾞｽに乗る", &["テスト", "abc923", "バス"]),
    ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{116e}\u{11a8}\u{110b}\u{1165} 문서", &["한국어", "문서"]),
    ("น้ำในแม่น้ำลำปาง", &["แม่น้ำ", "ลำปาง"]),
    ("ကမ္ဘာ့ကုလသမဂ္ဂ", &["ကုလသမဂ္ဂ"]),
    ("बाज़ार में ज़मीन", &["बाज\u{93c}ार", "ज\u{93c}मीन"]),
    ("Қазақстан Республикасы, Ўзбекистон", &["қазақстан", "ЎЗБЕКИСТОН"]),
    // Apostrophes and other signs.
    ("Les droits de l'homme et l'éducation d'aujourd'hui", &["homme", "l’homme", "education", "aujourd’hui"]),
    ("La dignité de l’homme, qu’il soit libre", &["homme", "l'homme", "il"]),
    ("La dignità dell'uomo e l'acqua", &["uomo", "dell’uomo", "acqua"]),
    (
        "Don’t touch Anna’s e-mail, version 2.0 of example.com/foo_bar",
        &["don't", "anna", "mail", "example", "2.0", "foo"],
    ),
    ("Моє сім’я та п'ять друзів", &["сім'я", "сімʼя", "п’ять"]),
    ("Oʻzbekiston va Navajo diiʼ", &["O'zbekiston", "o‘zbekiston", "dii", "dii'"]),
    ("La col·lecció i l'il·lusió", &["collecció", "il·lusio"]),
    ("A foot\u{ad}note¹ for Lance™ and 5㎏", &["footnote", "lance", "kg"]),
    ("Ի՞նչ է սա", &["ինչ"]),
    ("Ⴀ Ⅷ ﬁnal ２０２４ ۱۳۹۹", &["viii", "final", "2024", "1399"]),
];

/// A text that a similar query must not find.
const OTHER: &[(&str, &str)] =
    &[("これはバスです、ババ", "ハス"), ("мой дом", "мои"), ("їхати", "іхати"), ("किताब", "कीताब")];

async fn full_text_hits(stored: &TestTable, query: &str) -> Vec<String> {
    let request = SearchRequest { mode: Some(SearchMode::Text), ..SearchRequest::text(query, 100) };
    let hits = stored.open().await.search(&request, &Models::default()).await.unwrap().into_batch().unwrap();
    strings(&hits, "text")
}

fn texts() -> Vec<String> {
    FOUND.iter().map(|(text, _)| text).chain(OTHER.iter().map(|(text, _)| text)).map(|&text| text.to_owned()).collect()
}

async fn assert_found(stored: &TestTable, rows: &str) {
    for (text, queries) in FOUND {
        for query in *queries {
            let hits = full_text_hits(stored, query).await;
            assert!(hits.iter().take(3).any(|hit| hit == text), "{query} finds {text} in {rows}: {hits:?}");
        }
    }
    for (text, query) in OTHER {
        let hits = full_text_hits(stored, query).await;
        assert!(!hits.iter().any(|hit| hit == text), "{query} does not find {text} in {rows}");
    }
}

/// Builds a full-text index as before texts were folded.
async fn build_unfolded(stored: &TestTable) {
    let mut dataset = Dataset::open(&stored.uri()).await.unwrap();
    let parameters =
        InvertedIndexParams::default().base_tokenizer("icu".to_owned()).stem(false).remove_stop_words(false);
    let name = Some("text_idx".to_owned());
    dataset.create_index(&["text"], IndexType::Inverted, name, &parameters, true).await.unwrap();
}

#[tokio::test]
async fn words_of_every_script_are_found() {
    let stored = TestTable::new();
    stored.write(&texts()).await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    assert!(!stored.open().await.has_unfolded_text_index());
    assert_found(&stored, "an indexed row").await;
    for nothing in ["’", "!? …", "\"\"", "\u{200d}"] {
        assert!(full_text_hits(&stored, nothing).await.is_empty(), "{nothing:?} is not a word");
    }
    assert_eq!(full_text_hits(&stored, "\"droits de l'homme\"").await[0], FOUND[23].0, "quotes have no meaning");
}

#[tokio::test]
async fn unindexed_rows_are_folded_too() {
    let stored = TestTable::new();
    stored.write(&owned(&["something else", ""])).await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    stored.write(&texts()).await;
    assert_found(&stored, "a row without index").await;
    let request = SearchRequest {
        mode: Some(SearchMode::Text),
        filter: Some("lang = 'fra'".to_owned()),
        ..SearchRequest::text("homme", 10)
    };
    let hits = stored.open().await.search(&request, &Models::default()).await.unwrap().into_batch().unwrap();
    assert_eq!(strings(&hits, "lang"), ["fra"]);

    let extended = update_full_text_index(&stored.uri(), FullTextUpdate::Extend).await.unwrap().unwrap();
    let rows = texts().len() as u64 + 2;
    assert_eq!((extended.action, extended.indexed_rows, extended.unindexed_rows), (IndexAction::Extended, rows, 0));
    assert_found(&stored, "a second piece of the index").await;
    compact(&stored.uri(), 0, OnConflict::Retry).await.unwrap();
    let unchanged = update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    assert_eq!((unchanged.action, unchanged.indexed_rows), (IndexAction::Unchanged, rows));
    assert_found(&stored, "a compacted table").await;
}

#[tokio::test]
async fn unfolded_index_is_searched_until_it_is_rebuilt() {
    let stored = TestTable::new();
    stored.write(&texts()).await;
    build_unfolded(&stored).await;
    assert!(stored.open().await.has_unfolded_text_index());
    assert_eq!(full_text_hits(&stored, "Münchner rathaus").await.len(), 1);
    stored.write(&owned(&["written later"])).await;
    let extended = update_full_text_index(&stored.uri(), FullTextUpdate::Extend).await.unwrap().unwrap();
    assert_eq!((extended.action, extended.unindexed_rows), (IndexAction::Extended, 0));
    assert!(stored.open().await.has_unfolded_text_index());
    assert_eq!(full_text_hits(&stored, "LATER").await, ["written later"]);

    let built = update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    let rows = texts().len() as u64 + 1;
    assert_eq!((built.action, built.indexed_rows, built.unindexed_rows), (IndexAction::Built, rows, 0));
    assert!(!stored.open().await.has_unfolded_text_index());
    assert_eq!(describe(&stored.uri()).await.unwrap().indices.len(), 1);
    assert_found(&stored, "a rebuilt index").await;
}

#[tokio::test]
async fn empty_table_can_be_indexed() {
    let stored = TestTable::new();
    stored.write(&[]).await;
    let built = update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    assert_eq!((built.action, built.indexed_rows), (IndexAction::Built, 0));
    assert!(full_text_hits(&stored, "word").await.is_empty());
    stored.write(&owned(&["l'homme"])).await;
    assert_eq!(full_text_hits(&stored, "homme").await, ["l'homme"]);
    let extended = update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    assert_eq!((extended.action, extended.indexed_rows), (IndexAction::Extended, 1));
    assert_eq!(full_text_hits(&stored, "homme").await, ["l'homme"]);
}
