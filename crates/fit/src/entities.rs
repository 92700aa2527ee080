//! Scores of taggers: whole entities, counted like seqeval.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// Precision, recall and F1 of whole entities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityReport {
    /// The number of right entities.
    pub entities: usize,
    /// The share of the found entities that are right.
    pub precision: f64,
    /// The share of the right entities that were found.
    pub recall: f64,
    /// The harmonic mean of precision and recall, over all entities.
    pub micro_f1: f64,
    /// The mean of the kinds' F1.
    pub macro_f1: f64,
    /// Each kind that occurs.
    pub kinds: Vec<EntityScore>,
}

/// The scores of one kind of entity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EntityScore {
    /// Its name.
    pub kind: String,
    /// The number of right entities of this kind.
    pub entities: usize,
    /// The share of the found entities that are right.
    pub precision: f64,
    /// The share of the right entities that were found.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

/// An entity: kind, sentence, first and last word.
type Entity = (String, usize, usize, usize);

impl EntityReport {
    /// The scores of sentences from their right tags and the found tags, in IOB2.
    ///
    /// Source: `classification_report` of seqeval 1.2 in its default mode: an entity counts when kind, beginning and
    /// end are right, and an `I-` after another kind begins one.
    pub fn new(right: &[Vec<String>], found: &[Vec<String>]) -> Self {
        let of = |tags: &[Vec<String>]| -> BTreeSet<Entity> {
            tags.iter().enumerate().flat_map(|(sentence, tags)| entities(sentence, tags)).collect()
        };
        let (right, found) = (of(right), of(found));
        let mut counts: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
        for entity in &right {
            counts.entry(&entity.0).or_default()[0] += 1;
        }
        for entity in &found {
            counts.entry(&entity.0).or_default()[1] += 1;
        }
        for entity in right.intersection(&found) {
            counts.entry(&entity.0).or_default()[2] += 1;
        }
        let kinds: Vec<EntityScore> = counts
            .into_iter()
            .map(|(kind, [right, found, both])| {
                let [precision, recall, f1] = scores(right, found, both);
                EntityScore { kind: kind.to_owned(), entities: right, precision, recall, f1 }
            })
            .collect();
        let [precision, recall, micro_f1] = scores(right.len(), found.len(), right.intersection(&found).count());
        let macro_f1 = kinds.iter().map(|kind| kind.f1).sum::<f64>() / kinds.len().max(1) as f64;
        Self { entities: right.len(), precision, recall, micro_f1, macro_f1, kinds }
    }
}

fn scores(right: usize, found: usize, both: usize) -> [f64; 3] {
    let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    [share(both, found), share(both, right), share(2 * both, right + found)]
}

fn entities(sentence: usize, tags: &[String]) -> Vec<Entity> {
    let mut entities: Vec<Entity> = Vec::new();
    let mut open = false;
    for (at, tag) in tags.iter().enumerate() {
        let Some((mark, kind)) = tag.split_once('-') else {
            open = false;
            continue;
        };
        match entities.last_mut() {
            Some(last) if open && mark == "I" && last.0 == kind => last.3 = at,
            _ => entities.push((kind.to_owned(), sentence, at, at)),
        }
        open = true;
    }
    entities
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    }

    #[test]
    fn scores_match_seqeval() {
        // seqeval.metrics.classification_report: micro f1 4/9, macro f1 (0.5 + 0.4) / 2.
        let right = tags("O O O B-MISC I-MISC I-MISC O\nB-PER I-PER O B-MISC\nI-MISC O B-PER O");
        let found = tags("O O B-MISC I-MISC I-MISC I-MISC O\nB-PER I-PER O B-MISC\nO I-PER I-PER O");
        let report = EntityReport::new(&right, &found);
        assert_eq!(report.entities, 5);
        assert!((report.micro_f1 - 4.0 / 9.0).abs() < 1e-12, "{report:?}");
        assert!((report.macro_f1 - 0.45).abs() < 1e-12, "{report:?}");
        assert_eq!(report.kinds.iter().map(|kind| kind.kind.as_str()).collect::<Vec<_>>(), ["MISC", "PER"]);
    }
}
