//! The class of a text among labels that the model was not trained on.

use polylance_backend::{Annotation, LabelScore};
use tokenizers::Encoding;

use super::inputs::{TextEncoder, softmax};

/// Encodes the text with each label's hypothesis.
pub(super) fn encode(
    encoder: &TextEncoder,
    text: &str,
    labels: &[String],
    template: &str,
) -> Result<Vec<Encoding>, String> {
    labels.iter().map(|label| encoder.pair(text, &template.replacen("{}", label, 1))).collect()
}

/// The candidate labels, best first. Source: `ZeroShotClassificationPipeline.postprocess`.
///
/// `logits`: one row of the entailment model's classes per candidate; `classes`: their names.
pub(super) fn annotation(
    logits: &[&[f32]],
    classes: &[String],
    candidates: &[String],
    multi_label: bool,
) -> Result<Annotation, String> {
    let last = classes.len().checked_sub(1).ok_or("the model has no classes")?;
    if logits.len() != candidates.len() || logits.iter().any(|row| row.len() != classes.len()) {
        return Err(format!("{} rows of logits for {} labels", logits.len(), candidates.len()));
    }
    let entailment = classes.iter().position(|class| class.to_lowercase().starts_with("entail")).unwrap_or(last);
    let contradiction = if entailment == 0 { last } else { 0 };
    let scores: Vec<f32> = if multi_label || candidates.len() == 1 {
        logits.iter().map(|row| softmax(&[row[contradiction], row[entailment]])[1]).collect()
    } else {
        softmax(&logits.iter().map(|row| row[entailment]).collect::<Vec<_>>())
    };
    let score = |(label, score): (&String, f32)| LabelScore { label: label.clone(), score };
    let mut labels: Vec<LabelScore> = candidates.iter().zip(scores).map(score).collect();
    labels.sort_by(|a, b| b.score.total_cmp(&a.score));
    Ok(Annotation::Labels(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn entailment_class_is_found_by_name_and_scored_against_others_or_contradiction() {
        let classes = names(&["Entailment", "neutral", "contradiction"]);
        let logits: [&[f32]; 2] = [&[0.0, 9.0, 0.0], &[1.0, 9.0, 1.0]];
        let labels = |multi_label| {
            let found = annotation(&logits, &classes, &names(&["a", "b"]), multi_label);
            let Ok(Annotation::Labels(labels)) = found else { panic!() };
            labels.into_iter().map(|label| (label.label, label.score)).collect::<Vec<_>>()
        };
        assert_eq!(labels(false)[0].0, "b");
        assert!((labels(false)[0].1 - 0.731_058_6).abs() < 1e-6);
        assert_eq!(labels(true), [("a".into(), 0.5), ("b".into(), 0.5)]);
    }
}
