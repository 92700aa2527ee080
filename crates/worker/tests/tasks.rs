//! Tasks compared with the pipelines of Hugging Face transformers; the goldens are made by `goldens/make_tasks.py`.

use std::{fs, path::Path};

use futures::executor::block_on;
use polylance_backend::{AnnotateInput, Annotation, Annotator};
use polylance_encoder::{HeadKind, ModelConfig, ModelFiles, ModelKind, synthetic::Checkpoint};
use polylance_schema::{Aggregation, Generation, Scores, TaskSpec};
use polylance_worker::{PoolOptions, TaskPool};
use serde_json::Value;

const TOLERANCE: f64 = 1e-4;

fn goldens(name: &str, transformers: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name);
    let json: Value = serde_json::from_slice(&zstd::decode_all(&fs::read(path).unwrap()[..]).unwrap()).unwrap();
    assert!(json["made_with"]["transformers"].as_str().unwrap().starts_with(transformers));
    json
}

fn pool(kind: ModelKind, spec: TaskSpec, shape: impl Fn(Checkpoint) -> Checkpoint) -> TaskPool {
    let task = match &spec {
        TaskSpec::Ner { .. } => HeadKind::TokenClassification,
        TaskSpec::Qa { .. } => HeadKind::QuestionAnswering,
        TaskSpec::FillMask { .. } => HeadKind::MaskedLm,
        TaskSpec::Generate(_) => HeadKind::CausalLm,
        TaskSpec::Choose => HeadKind::MultipleChoice,
        _ => HeadKind::SequenceClassification,
    };
    let config = ModelConfig {
        kind,
        vocab_size: 250_002,
        hidden_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        intermediate_size: 48,
        max_position_embeddings: 514,
        type_vocab_size: 1,
        layer_norm_eps: 1e-5,
        pad_token_id: 1,
    };
    let folder = tempfile::tempdir().unwrap();
    shape(Checkpoint::new(config).head(task)).write(folder.path()).unwrap();
    fs::write(folder.path().join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
    let files = ModelFiles::find(folder.path().to_str().unwrap()).unwrap();
    TaskPool::open(&files, spec, &PoolOptions::default()).unwrap()
}

fn texts(json: &Value) -> Vec<String> {
    json.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn text_input(text: &str) -> AnnotateInput {
    AnnotateInput { text: text.to_owned(), ..AnnotateInput::default() }
}

fn answers(pool: &TaskPool, inputs: Vec<AnnotateInput>) -> Vec<Annotation> {
    block_on(pool.annotate(inputs)).unwrap().into_iter().map(Result::unwrap).collect()
}

fn near(found: f32, expected: &Value) -> bool {
    (f64::from(found) - expected.as_f64().unwrap()).abs() <= TOLERANCE
}

fn check_spans(kind: ModelKind, key: &str) {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let scale = goldens["scale"].as_f64().unwrap() as f32;
    let texts = texts(&goldens["texts"]);
    assert!(texts.len() >= 200);
    let tags = self::texts(&goldens["labels"][kind.model_type()]);
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    let strategies = [
        ("none", Aggregation::None),
        ("simple", Aggregation::Simple),
        ("first", Aggregation::First),
        ("average", Aggregation::Average),
        ("max", Aggregation::Max),
    ];
    for (name, aggregation) in strategies {
        let labelled = |checkpoint: Checkpoint| checkpoint.labels(&tags).head_scale(scale);
        let pool = pool(kind, TaskSpec::Ner { aggregation }, labelled);
        let found = answers(&pool, texts.iter().map(|text| text_input(text)).collect());
        let mut labels = std::collections::BTreeSet::new();
        for ((text, found), expected) in texts.iter().zip(found).zip(goldens[key][name].as_array().unwrap()) {
            let Annotation::Spans(spans) = found else { panic!("{found:?}") };
            for span in &spans {
                let (start, length) = (span.chars.start as usize, (span.chars.end - span.chars.start) as usize);
                assert_eq!(span.text, text.chars().skip(start).take(length).collect::<String>());
            }
            // A text that is too long for one pass has no reference with `none`.
            let Some(expected) = expected.as_array() else { continue };
            let plain: Vec<_> = spans.iter().map(|s| (s.label.as_str(), s.chars.start, s.chars.end)).collect();
            let wanted: Vec<_> = expected
                .iter()
                .map(|s| (s[0].as_str().unwrap(), s[2].as_u64().unwrap(), s[3].as_u64().unwrap()))
                .collect();
            assert_eq!(plain, wanted, "{name}: {text:?}");
            for (span, expected) in spans.iter().zip(expected) {
                assert!(near(span.score, &expected[1]), "{name}: {span:?}, expected {expected}");
                labels.insert(span.label.clone());
            }
        }
        assert!(labels.len() >= 3, "{name}: {labels:?}");
    }
}

#[test]
fn spans_match_the_pipeline() {
    check_spans(ModelKind::XlmRoberta, "spans");
}

#[test]
fn spans_of_the_pre_norm_kind_match_the_pipeline() {
    check_spans(ModelKind::XlmRobertaXl, "spans_xl");
}

/// Labels in the order of the pipeline; where scores are equal to the tolerance, in any order.
fn same_labels(found: &Annotation, expected: &Value) -> bool {
    let Annotation::Labels(labels) = found else { return false };
    let expected = expected.as_array().unwrap();
    let of = |label: &str| expected.iter().find(|one| one[0] == label).map(|one| &one[1]);
    let sorted = labels.windows(2).all(|pair| pair[0].score >= pair[1].score);
    let same = labels.iter().all(|one| of(&one.label).is_some_and(|score| near(one.score, score)));
    labels.len() == expected.len() && sorted && same
}

#[test]
fn classes_match_the_pipeline() {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let scale = goldens["scale"].as_f64().unwrap() as f32;
    let texts = texts(&goldens["texts"]);
    for (name, labels, problem) in [
        ("single", &["LABEL_0", "LABEL_1", "LABEL_2"][..], "single_label_classification"),
        ("multi", &["LABEL_0", "LABEL_1", "LABEL_2"], "multi_label_classification"),
        ("regression", &["LABEL_0"], "regression"),
    ] {
        let shape = |c: Checkpoint| c.labels(labels).head_scale(scale).key("problem_type", problem);
        let pool = pool(ModelKind::XlmRobertaXl, TaskSpec::Classify { scores: Scores::All }, shape);
        let found = answers(&pool, texts.iter().map(|text| text_input(text)).collect());
        for ((text, found), expected) in texts.iter().zip(&found).zip(goldens["classes"][name].as_array().unwrap()) {
            assert!(same_labels(found, expected), "{name}: {text:?}: {found:?}, expected {expected}");
        }
        let best: std::collections::BTreeSet<_> =
            goldens["classes"][name].as_array().unwrap().iter().map(|expected| expected[0][0].to_string()).collect();
        assert_eq!(best.len(), labels.len(), "{name}: every label is the best of some text");
    }
}

#[test]
fn zero_shot_labels_match_the_pipeline() {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let scale = goldens["scale"].as_f64().unwrap() as f32;
    let texts: Vec<String> = texts(&goldens["texts"]).into_iter().filter(|text| !text.trim().is_empty()).collect();
    for (name, multi_label) in [("single", false), ("multi", true)] {
        let labels = ["law", "сон", "自由"].map(str::to_owned).to_vec();
        let spec = TaskSpec::ZeroShot { labels, template: "It is {}.".to_owned(), multi_label };
        let shape = |c: Checkpoint| c.labels(&["contradiction", "neutral", "entailment"]).head_scale(scale);
        let found =
            answers(&pool(ModelKind::XlmRoberta, spec, shape), texts.iter().map(|text| text_input(text)).collect());
        for ((text, found), expected) in texts.iter().zip(&found).zip(goldens["zero_shot"][name].as_array().unwrap()) {
            assert!(same_labels(found, expected), "{name}: {text:?}: {found:?}, expected {expected}");
        }
    }
}

#[test]
fn filled_masks_match_the_pipeline() {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let masked = texts(&goldens["masks"]["texts"]);
    let pool = pool(ModelKind::XlmRoberta, TaskSpec::FillMask { top_k: 5 }, |checkpoint| checkpoint);
    let found = answers(&pool, masked.iter().map(|text| text_input(text)).collect());
    let expected = goldens["masks"]["answers"].as_array().unwrap();
    assert!(expected.iter().any(|masks| masks.as_array().unwrap().len() == 2));
    for ((text, found), expected) in masked.iter().zip(found).zip(expected) {
        let Annotation::Masks(masks) = found else { panic!("{found:?}") };
        assert_eq!(masks.len(), expected.as_array().unwrap().len(), "{text:?}");
        for (mask, expected) in masks.iter().zip(expected.as_array().unwrap()) {
            for (token, expected) in mask.iter().zip(expected.as_array().unwrap()) {
                assert!(near(token.score, &expected[1]), "{text:?}: {token:?}, expected {expected}");
                assert_eq!(token.token, expected[0].as_str().unwrap(), "{text:?}");
            }
        }
    }
}

#[test]
fn generated_texts_match_the_pipeline() {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let prompts = texts(&goldens["generated"]["texts"]);
    let shape = |c: Checkpoint| c.key("is_decoder", true);
    let pool = pool(ModelKind::XlmRoberta, TaskSpec::Generate(Generation::default()), shape);
    let found = answers(&pool, prompts.iter().map(|text| text_input(text)).collect());
    for ((text, found), expected) in prompts.iter().zip(found).zip(texts(&goldens["generated"]["answers"])) {
        assert_eq!(found, Annotation::Text(expected), "{text:?}");
    }
}

#[test]
fn scores_of_choices_and_passages_match_the_models() {
    let goldens = goldens("tasks.json.zst", "5.23.");
    let scale = goldens["scale"].as_f64().unwrap() as f32;
    let choose = pool(ModelKind::XlmRoberta, TaskSpec::Choose, |c| c.head_scale(scale));
    let rerank = pool(ModelKind::XlmRobertaXl, TaskSpec::Rerank, |c| c.labels(&["LABEL_0"]));
    let pairs = &goldens["pairs"];
    for (at, pair) in pairs["asked"].as_array().unwrap().iter().enumerate() {
        let (text, options) = (pair[0].as_str().unwrap(), texts(&pair[1]));
        let input = AnnotateInput { choices: options.clone(), ..text_input(text) };
        let Annotation::Choices(scores) = answers(&choose, vec![input]).remove(0) else { panic!() };
        let expected = pairs["choices"][at].as_array().unwrap();
        assert!(scores.iter().zip(expected).all(|(score, expected)| near(*score, expected)), "{scores:?} {expected:?}");
        let passage = |option: &String| AnnotateInput { question: Some(text.to_owned()), ..text_input(option) };
        let found = answers(&rerank, options.iter().map(passage).collect());
        for (found, expected) in found.into_iter().zip(pairs["scores"][at].as_array().unwrap()) {
            assert!(matches!(found, Annotation::Relevance(score) if near(score, expected)), "{found:?} {expected}");
        }
    }
}

#[test]
fn answers_match_the_pipeline() {
    let goldens = goldens("answers.json.zst", "4.57.");
    let scale = goldens["scale"].as_f64().unwrap() as f32;
    let goldens = &goldens["answers"];
    for (name, null_answer, align_to_words) in [("plain", false, true), ("null", true, true), ("tokens", false, false)]
    {
        let spec = TaskSpec::Qa { top_k: 3, max_answer_tokens: 15, doc_stride: 128, null_answer, align_to_words };
        let pool = pool(ModelKind::XlmRoberta, spec, |c| c.head_scale(scale));
        let input = |pair: &Value| AnnotateInput {
            question: Some(pair[0].as_str().unwrap().to_owned()),
            ..text_input(pair[1].as_str().unwrap())
        };
        let pairs = goldens["asked"].as_array().unwrap();
        let found = answers(&pool, pairs.iter().map(input).collect());
        for ((pair, found), expected) in pairs.iter().zip(found).zip(goldens[name].as_array().unwrap()) {
            let Annotation::Answers(found) = found else { panic!("{found:?}") };
            let context = pair[1].as_str().unwrap();
            let expected = expected.as_array().unwrap();
            assert_eq!(found.len(), expected.len(), "{name}: {pair}");
            for (answer, expected) in found.iter().zip(expected) {
                let place = (expected[2].as_u64().unwrap(), expected[3].as_u64().unwrap());
                let same = answer.text == expected[0].as_str().unwrap()
                    && (answer.chars.start, answer.chars.end) == place
                    && near(answer.score, &expected[1]);
                assert!(same, "{name}: {pair}: {answer:?}, expected {expected}");
                let (start, end) = (answer.chars.start as usize, answer.chars.end as usize);
                assert_eq!(answer.text, context.chars().skip(start).take(end - start).collect::<String>());
            }
        }
    }
}

#[test]
fn invalid_input_is_refused_with_the_reason_and_the_others_are_answered() {
    let spec =
        TaskSpec::Qa { top_k: 1, max_answer_tokens: 15, doc_stride: 128, null_answer: false, align_to_words: true };
    let answerer = pool(ModelKind::XlmRoberta, spec, |checkpoint| checkpoint);
    let question =
        |question: Option<&str>| AnnotateInput { question: question.map(str::to_owned), ..text_input("It was Ada.") };
    let inputs =
        vec![question(None), question(Some("who?")), question(Some(" ")), question(Some(&"why? ".repeat(600)))];
    let answers = block_on(answerer.annotate(inputs)).unwrap();
    assert_eq!(answers[0].as_ref().unwrap_err(), "there is no question");
    assert!(answers[1].is_ok());
    assert_eq!(answers[2].as_ref().unwrap_err(), "the question is empty");
    assert!(answers[3].is_err(), "{:?}", answers[3]);

    let masks = pool(ModelKind::XlmRoberta, TaskSpec::FillMask { top_k: 5 }, |checkpoint| checkpoint);
    let long = ["<mask> ", &"word ".repeat(600)].concat();
    let answers =
        block_on(masks.annotate(vec![text_input("no mask"), text_input(&long), text_input("a <mask>.")])).unwrap();
    assert_eq!(answers[0].as_ref().unwrap_err(), "the text has no <mask>");
    assert!(answers[1].as_ref().is_err_and(|message| message.contains("the model takes at most 512")), "{answers:?}");
    assert!(answers[2].is_ok());
}
