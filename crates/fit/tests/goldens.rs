//! Scores against seqeval and scikit-learn, and every tag scheme against seqeval's reading of it; `goldens/make.py`
//! made the expected values.

use std::{fs, path::Path};

use polylance_fit::{ClassificationReport, EntityReport, read_conll};
use serde_json::{Value, json};

fn goldens() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/goldens.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn array<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json[key].as_array().unwrap_or_else(|| panic!("{key} is no list"))
}

fn strings(json: &Value) -> Vec<String> {
    json.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn near(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("{what} is no number"));
    assert!((found - expected).abs() < 1e-9, "{what}: {found} is not {expected}");
}

#[test]
fn entity_scores_match_seqeval() {
    let goldens = goldens();
    assert!(goldens["made_with"]["seqeval"].as_str().unwrap().starts_with("1.2."));
    for (number, case) in array(&goldens, "scores").iter().enumerate() {
        let sentences = |key: &str| array(case, key).iter().map(strings).collect::<Vec<_>>();
        let report = EntityReport::new(&sentences("right"), &sentences("found"));
        let what = |score: &str| format!("case {number}, {score}");
        let micro = &case["micro"];
        near(report.precision, &micro["precision"], &what("precision"));
        near(report.recall, &micro["recall"], &what("recall"));
        near(report.micro_f1, &micro["f1"], &what("micro F1"));
        near(report.entities as f64, &micro["entities"], &what("entities"));
        // Without any entity seqeval's mean over kinds is not a number; ours is 0, so that it can be written as JSON.
        let macro_f1 = if case["macro_f1"].is_null() { &json!(0.0) } else { &case["macro_f1"] };
        near(report.macro_f1, macro_f1, &what("macro F1"));
        let expected = case["kinds"].as_object().unwrap();
        assert_eq!(report.kinds.len(), expected.len(), "case {number}: {:?}", report.kinds);
        for kind in &report.kinds {
            let expected = &expected[&kind.kind];
            near(kind.precision, &expected["precision"], &what(&kind.kind));
            near(kind.recall, &expected["recall"], &what(&kind.kind));
            near(kind.f1, &expected["f1"], &what(&kind.kind));
            near(kind.entities as f64, &expected["entities"], &what(&kind.kind));
        }
    }
}

/// Entities of IOB2 tags that keep to their scheme: kind, first word, the word after the last.
fn entities(tags: &[String]) -> Value {
    let mut entities: Vec<(&str, usize, usize)> = Vec::new();
    for (at, tag) in tags.iter().enumerate() {
        if let Some(kind) = tag.strip_prefix("B-") {
            entities.push((kind, at, at + 1));
        } else if let Some(kind) = tag.strip_prefix("I-") {
            let last = entities.last_mut().unwrap_or_else(|| panic!("{tags:?} begins inside"));
            assert_eq!((last.0, last.2), (kind, at), "{tags:?} is no IOB2");
            last.2 = at + 1;
        }
    }
    json!(entities)
}

#[test]
fn every_scheme_is_read_like_seqeval() {
    let goldens = goldens();
    for case in array(&goldens, "schemes") {
        let tags = strings(&case["tags"]);
        let lines: Vec<String> = tags.iter().enumerate().map(|(at, tag)| format!("word{at}\t{tag}")).collect();
        let sentences = read_conll("goldens.json", &lines.join("\n")).unwrap();
        assert_eq!(sentences.len(), 1);
        assert_eq!(entities(&sentences[0].tags), case["entities"], "{}: {tags:?}", case["scheme"]);
    }
}

#[test]
fn class_scores_match_scikit_learn() {
    let goldens = goldens();
    for case in array(&goldens, "classes") {
        let ids = |key: &str| {
            array(case, key).iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect::<Vec<_>>()
        };
        let (right, found) = (ids("right"), ids("found"));
        let labels: Vec<String> = (0..case["labels"].as_u64().unwrap()).map(|id| format!("label {id}")).collect();
        let pairs: Vec<(u32, u32)> = right.into_iter().zip(found).collect();
        let report = ClassificationReport::new(&pairs, &labels);
        near(report.accuracy, &case["accuracy"], "accuracy");
        near(report.micro_f1, &case["micro_f1"], "micro F1");
        near(report.macro_f1, &case["macro_f1"], "macro F1");
        let expected = array(case, "classes");
        assert_eq!(report.classes.len(), expected.len());
        for (class, expected) in report.classes.iter().zip(expected) {
            near(class.precision, &expected[0], &class.label);
            near(class.recall, &expected[1], &class.label);
            near(class.f1, &expected[2], &class.label);
            near(class.rows as f64, &expected[3], &class.label);
        }
        let wrong = pairs.iter().filter(|(right, found)| right != found).count();
        assert_eq!(report.confused.iter().map(|pair| pair.rows).sum::<usize>(), wrong);
    }
}
