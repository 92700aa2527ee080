//! The laws of chunking: with a small vocabulary on generated texts, and with the built-in one on every script.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{LazyLock, atomic::Ordering},
};

use polylance_testkit::{SCRIPTS, long_document};
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

use super::*;

static SMALL: LazyLock<Tokenizer> = LazyLock::new(small);
static BUILTIN: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_bytes(polylance_builtin::tokenizer_json()).unwrap());

/// XLM-R's pipeline with a vocabulary of a few pieces; all others are unknown.
fn small() -> Tokenizer {
    let mut pieces = String::new();
    let words = ["▁the", "the", "▁a", "ing", "สวัสดี", "น้ำ", "한국", "日本", "▁क्", "صلى", "👩‍👩", "fi", "..", "xx", "xxxx"];
    let letters =
        "▁abcdefghijklmnopqrstuvwxyz.,!?กนำเ日本。한국कषि👩🇺🇳ahصلىاهعيوم\u{301}\u{200d}1/4".chars().map(String::from);
    let distinct: BTreeSet<String> = words.into_iter().map(str::to_owned).chain(letters).collect();
    for (at, piece) in distinct.iter().enumerate() {
        write!(pieces, r#",["{piece}",-{}.5]"#, 2 + at % 7).unwrap();
    }
    let special = |id: u32, text: &str| {
        format!(
            r#"{{"id":{id},"content":"{text}","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}}"#
        )
    };
    let frame = r#"[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}]"#;
    let json = format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{},{}],"normalizer":{{"type":"NFKC"}},
        "pre_tokenizer":{{"type":"Sequence","pretokenizers":[{{"type":"WhitespaceSplit"}},
            {{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}}]}},
        "post_processor":{{"type":"TemplateProcessing","single":{frame},"pair":{frame},"special_tokens":{{
            "<s>":{{"id":"<s>","ids":[0],"tokens":["<s>"]}},"</s>":{{"id":"</s>","ids":[1],"tokens":["</s>"]}}}}}},
        "decoder":null,"model":{{"type":"Unigram","unk_id":2,"byte_fallback":false,
            "vocab":[["<s>",0.0],["</s>",0.0],["<unk>",0.0]{pieces}]}}}}"#,
        special(0, "<s>"),
        special(1, "</s>")
    );
    Tokenizer::from_bytes(json).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str, special: bool) -> Vec<u32> {
    tokenizer.encode_fast(text, special).unwrap().get_ids().to_vec()
}

/// Cuts a text and checks all laws.
fn checked_chunks(tokenizer: &Tokenizer, spec: &TokenizeSpec, text: &str) -> Vec<Chunk> {
    let limit = spec.chunking.max_tokens();
    let alone = |slice: &str| ids(tokenizer, &format!("{}{slice}", spec.prefix), true);
    let fits = |slice: &str| alone(slice).len() <= limit;
    let chunks = match Chunker::new(tokenizer, spec).and_then(|chunker| chunker.chunks(text)) {
        Ok(chunks) => chunks,
        Err(error) => {
            assert!(text.chars().any(|c| !fits(&c.to_string())), "{error}");
            return Vec::new();
        }
    };
    let mut scalars = vec![0; text.len() + 1];
    for (count, (at, _)) in text.char_indices().enumerate() {
        scalars[at] = count as u64;
    }
    scalars[text.len()] = text.chars().count() as u64;
    let borders: BTreeSet<usize> = text.grapheme_indices(true).map(|(at, _)| at).chain([text.len()]).collect();
    let whole_clusters = |at: usize| {
        let (start, end) = (borders.range(..=at).next_back().unwrap(), borders.range(at..).next().unwrap());
        start == end || !fits(&text[*start..*end])
    };
    for chunk in &chunks {
        let slice = &text[chunk.bytes.clone()];
        assert_eq!(
            chunk.chars,
            scalars[chunk.bytes.start]..scalars[chunk.bytes.end],
            "character offsets match the slice"
        );
        assert_eq!(chunk.input_ids, alone(slice), "tokens are those of the prefix and the slice {slice:?}");
        assert!(chunk.input_ids.len() <= limit, "{slice:?} has {} tokens", chunk.input_ids.len());
        assert_eq!((trim_start(slice), trim_end(slice)), (0, slice.len()), "{slice:?} has no white space around it");
        assert!(whole_clusters(chunk.bytes.start) && whole_clusters(chunk.bytes.end), "{slice:?} cuts a cluster");
    }
    let visible = |text: &str| !text.trim().is_empty();
    let (first, last) = (&chunks[0], &chunks[chunks.len() - 1]);
    assert!(!visible(&text[..first.bytes.start]));
    match spec.chunking {
        Chunking::Truncate { .. } => {
            assert_eq!(chunks.len(), 1);
            assert_eq!(last.truncated, visible(&text[last.bytes.end..]));
        }
        Chunking::Split { overlap, .. } => {
            assert!(chunks.iter().all(|chunk| !chunk.truncated));
            assert!(!visible(&text[last.bytes.end..]));
            for pair in chunks.windows(2) {
                let (one, next) = (&pair[0].bytes, &pair[1].bytes);
                assert!(one.start < next.start && one.end < next.end);
                match text.get(next.start..one.end) {
                    Some(shared) => assert!(ids(tokenizer, shared, false).len() <= overlap, "{shared:?} is repeated"),
                    None => assert!(!visible(&text[one.end..next.start])),
                }
            }
        }
    }
    chunks
}

fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        8 => prop::sample::select(vec![
            "a", "the ", "thing", ". ", "! ", "?", "\n\n", "\r\n", " ", "    ", "\u{3000}", "xxxxxxxx", "3.14 ",
            "ก", "น้ำ", "\u{e33}", "สวัสดี", "日本", "。", "한국", "\u{1100}\u{1161}", "क्ष", "ि", "صلى", "ﷺ", "\u{600}",
            "e\u{301}", "\u{301}", "\u{301}\u{302}\u{303}\u{304}", "\u{200d}", "\u{200b}", "\u{feff}", "\u{0}",
            "👩‍👩‍👧‍👦", "🇺🇳", "🇺", "👍🏽", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "❤️‍🔥", "¼", "ﬁ", "𓀀𓀁", "<s>", "</s>", "▁",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
        1 => "[a-z]{20,60}",
        1 => "\u{301}{1,40}",
        1 => "(👩‍){2,30}👩",
    ];
    prop::collection::vec(fragment, 0..60).prop_map(|parts| parts.concat())
}

fn specs() -> impl Strategy<Value = TokenizeSpec> {
    let cut = prop::sample::select(vec![Cut::Sentence, Cut::Word, Cut::Token]);
    let prefix = prop::sample::select(vec!["", "q: ", "q:", "the "]);
    (prefix, 8_usize..40, 0_usize..24, cut, any::<bool>()).prop_map(|(prefix, max_tokens, overlap, cut, split)| {
        let chunking =
            if split { Chunking::Split { max_tokens, overlap, cut } } else { Chunking::Truncate { max_tokens } };
        TokenizeSpec { prefix: prefix.to_owned(), chunking }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn chunks_of_any_text_fulfil_the_laws(text in fragments(), spec in specs()) {
        checked_chunks(&SMALL, &spec, &text);
    }
}

fn split(max_tokens: usize, overlap: usize, cut: Cut) -> TokenizeSpec {
    TokenizeSpec { prefix: "passage: ".into(), chunking: Chunking::Split { max_tokens, overlap, cut } }
}

#[test]
fn chunks_of_every_script_fulfil_the_laws_and_are_full() {
    let truncate = TokenizeSpec { prefix: "query: ".into(), chunking: Chunking::Truncate { max_tokens: 48 } };
    for (name, text) in SCRIPTS {
        let text = long_document(text, 3000);
        for cut in [Cut::Sentence, Cut::Word, Cut::Token] {
            let chunks = checked_chunks(&BUILTIN, &split(64, 12, cut), &text);
            assert!(chunks.len() > 3, "{name}");
            checked_chunks(&BUILTIN, &split(512, 0, cut), &text);
            if cut == Cut::Token {
                let short = chunks[..chunks.len() - 1].iter().map(|chunk| chunk.input_ids.len()).min();
                assert!(short >= Some(54), "{name}: {short:?} tokens in a chunk of 64");
            }
        }
        let cut_off = &checked_chunks(&BUILTIN, &truncate, &text)[0];
        assert!(cut_off.truncated && cut_off.input_ids.len() >= 38, "{name}: {} of 48 tokens", cut_off.input_ids.len());
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    runner
        .run(&(fragments(), specs()), |(text, spec)| {
            checked_chunks(&BUILTIN, &spec, &text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn sentences_are_kept_whole_where_they_fit() {
    let text = "the thing. a thing? the fig! ".repeat(12);
    let chunks = checked_chunks(&SMALL, &split(48, 0, Cut::Sentence), &text);
    assert!(chunks.len() > 2);
    assert!(chunks.iter().all(|chunk| text[chunk.bytes.clone()].ends_with(['.', '?', '!'])));
    let overlapping = checked_chunks(&SMALL, &split(48, 16, Cut::Sentence), &text);
    let begins = |chunk: &Chunk| chunk.bytes.start == 0 || text[..chunk.bytes.start].ends_with(['.', '?', '!', ' ']);
    assert!(overlapping.len() > chunks.len() && overlapping.iter().all(begins));
}

#[test]
fn documents_overlap_in_every_script() {
    for (name, text) in SCRIPTS {
        let text = long_document(text, 1500);
        for cut in [Cut::Sentence, Cut::Word, Cut::Token] {
            let chunks = checked_chunks(&BUILTIN, &split(60, 16, cut), &text);
            let overlaps = chunks.windows(2).filter(|pair| pair[1].bytes.start < pair[0].bytes.end).count();
            assert!(overlaps > 0, "{name} {cut:?}: nothing overlaps");
        }
    }
}

#[test]
fn text_without_spaces_is_cut_between_grapheme_clusters() {
    let family = "👩‍👩‍👧‍👦";
    let texts = [family.repeat(400), "x".repeat(20_000), "ก็".repeat(3000)];
    for (text, unit) in texts.iter().zip([family, "x", "ก็"]) {
        let chunks = checked_chunks(&SMALL, &split(64, 8, Cut::Sentence), text);
        assert!(chunks.len() > 3, "{unit}");
        assert!(chunks.iter().all(|chunk| chunk.bytes.len().is_multiple_of(unit.len())), "{unit}");
    }
}

#[test]
fn tokenized_bytes_grow_linearly_with_a_text_without_spaces() {
    let units = ["x", "lorem", "ประเทศไทย", "すべての人間は", "👩‍👩‍👧‍👦", "𓀀", "\u{200b}", "a\u{301}", "ﷺ"];
    for unit in units {
        let text = unit.repeat((128 << 10) / unit.len());
        for cut in [Cut::Sentence, Cut::Token] {
            let spec = split(128, 16, cut);
            let chunker = Chunker::new(&SMALL, &spec).unwrap();
            let chunks = chunker.chunks(&text).unwrap();
            assert_eq!(chunks.last().unwrap().bytes.end, text.len());
            let tokenized = chunker.tokenized_bytes.load(Ordering::Relaxed);
            assert!(tokenized < 8 * text.len(), "{unit}: {tokenized} bytes tokenized of {}", text.len());
        }
    }
}

#[test]
fn short_text_is_tokenized_once() {
    let spec = split(128, 16, Cut::Sentence);
    let chunker = Chunker::new(&SMALL, &spec).unwrap();
    let before = chunker.tokenized_bytes.swap(0, Ordering::Relaxed);
    assert_eq!(before, "passage: ".len());
    chunker.chunks("  the thing ").unwrap();
    assert_eq!(chunker.tokenized_bytes.load(Ordering::Relaxed), "passage: the thing".len());
}

#[test]
fn text_without_a_visible_character_is_one_empty_chunk() {
    for text in ["", " \n\t"] {
        let chunks = checked_chunks(&SMALL, &split(16, 0, Cut::Word), text);
        assert_eq!((chunks.len(), chunks[0].bytes.clone()), (1, 0..0));
    }
}

#[test]
fn left_truncation_cuts_off_the_beginning() {
    let chunk = |text: &str, prefix: &str, max_tokens: usize| {
        let spec = TokenizeSpec { prefix: prefix.to_owned(), chunking: Chunking::Truncate { max_tokens } };
        let chunker = Chunker::new(&BUILTIN, &spec).unwrap().truncating(TruncationSide::Left);
        chunker.chunks(text).unwrap().remove(0)
    };
    let text = format!("{}{}", "begin ".repeat(40), "end ".repeat(40));
    let cut = chunk(&text, "", 16);
    assert!(cut.truncated);
    assert_eq!(&text[cut.bytes.clone()], "end ".repeat(14).trim_end());
    assert_eq!(cut.chars, 344..399);
    assert_eq!(cut.input_ids, ids(&BUILTIN, &text[cut.bytes], true));
    // The prefix is before the text and is cut off first.
    assert_eq!(chunk(&text, "query: ", 16).input_ids, cut.input_ids);
    // A text far longer than a window, and one without white space.
    let long = format!("{}{}", "begin ".repeat(40_000), "end ".repeat(40));
    assert_eq!(chunk(&long, "", 16).input_ids, cut.input_ids);
    let thai = "สวัสดีชาวโลก".repeat(30);
    let cut = chunk(&thai, "", 16);
    assert!(cut.truncated && cut.input_ids.len() == 16 && cut.bytes.end == thai.len());
    let whole = chunk("begin end", "query: ", 16);
    assert!(!whole.truncated && whole.bytes == (0..9));
    assert_eq!(whole.input_ids, ids(&BUILTIN, "query: begin end", true));
}
