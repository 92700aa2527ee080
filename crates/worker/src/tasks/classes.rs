//! The class of a text.

use polylance_backend::{Annotation, LabelScore};
use polylance_encoder::ProblemType;
use polylance_schema::Scores;

use super::inputs::{sigmoid, softmax};

/// Classes, best first. Source: `TextClassificationPipeline.postprocess`.
pub(super) fn annotation(
    logits: &[f32],
    labels: &[String],
    problem_type: Option<ProblemType>,
    scores: Scores,
) -> Result<Annotation, String> {
    if logits.len() != labels.len() {
        return Err(format!("{} logits for {} labels", logits.len(), labels.len()));
    }
    let mut classes: Vec<LabelScore> = probabilities(logits, problem_type)
        .into_iter()
        .zip(labels)
        .map(|(score, label)| LabelScore { label: label.clone(), score })
        .collect();
    // A stable sort: ties stay in the model's order.
    classes.sort_by(|a, b| b.score.total_cmp(&a.score));
    if scores == Scores::Best {
        classes.truncate(1);
    }
    Ok(Annotation::Labels(classes))
}

/// The probabilities of the classes, or the values of a regression.
fn probabilities(logits: &[f32], problem_type: Option<ProblemType>) -> Vec<f32> {
    match problem_type {
        Some(ProblemType::Regression) => logits.to_vec(),
        Some(ProblemType::MultiLabelClassification) => logits.iter().copied().map(sigmoid).collect(),
        _ if logits.len() == 1 => logits.iter().copied().map(sigmoid).collect(),
        Some(ProblemType::SingleLabelClassification) | None => softmax(logits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(logits: &[f32], problem_type: Option<ProblemType>, scores: Scores) -> Vec<(String, f32)> {
        let labels: Vec<String> = (0..logits.len()).map(|id| format!("LABEL_{id}")).collect();
        let Ok(Annotation::Labels(found)) = annotation(logits, &labels, problem_type, scores) else { panic!() };
        found.into_iter().map(|class| (class.label, class.score)).collect()
    }

    #[test]
    fn logits_are_interpreted_by_the_problem_type() {
        let best = |logits: &[f32], problem| classes(logits, problem, Scores::Best).remove(0);
        assert_eq!(best(&[0.0, 0.0, 0.0], None), ("LABEL_0".into(), 1.0 / 3.0));
        assert_eq!(best(&[-1.0, 0.0], Some(ProblemType::MultiLabelClassification)), ("LABEL_1".into(), 0.5));
        assert_eq!(best(&[-7.25], Some(ProblemType::Regression)), ("LABEL_0".into(), -7.25));
        assert_eq!(best(&[0.0], None), ("LABEL_0".into(), 0.5));
        assert_eq!(classes(&[1.0, 2.0, 1.0], None, Scores::All).len(), 3);
        assert!(annotation(&[1.0], &[], None, Scores::Best).is_err());
    }
}
