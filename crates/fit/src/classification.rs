//! Scores of classifiers.

use serde::Serialize;

/// Accuracy, F1 and confusions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassificationReport {
    /// Rows.
    pub rows: usize,
    /// The share of rows with the right class.
    pub accuracy: f64,
    /// F1 over all rows together; with one class per row it equals the accuracy.
    pub micro_f1: f64,
    /// The mean of the classes' F1.
    pub macro_f1: f64,
    /// Each class that occurs.
    pub classes: Vec<ClassScore>,
    /// The pairs most often confused, the most frequent first.
    pub confused: Vec<Confusion>,
}

/// One class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScore {
    /// Its name.
    pub label: String,
    /// Rows of it.
    pub rows: usize,
    /// The share of the rows predicted as this class that have it.
    pub precision: f64,
    /// The share of the rows of this class that are predicted as it.
    pub recall: f64,
    /// The harmonic mean of precision and recall.
    pub f1: f64,
}

/// Rows of one class that are predicted as another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Confusion {
    /// The right class.
    pub label: String,
    /// The predicted class.
    pub taken_for: String,
    /// The number of rows.
    pub rows: usize,
}

impl ClassificationReport {
    /// The scores of pairs (right class, predicted class). Source of the definitions: scikit-learn's
    /// `classification_report`; a class that occurs on neither side is left out.
    ///
    /// ```
    /// let labels = ["a".to_owned(), "b".to_owned()];
    /// let report = polylance_fit::ClassificationReport::new(&[(0, 0), (0, 1), (1, 1), (1, 1)], &labels);
    /// assert_eq!(report.accuracy, 0.75);
    /// assert_eq!((report.confused[0].label.as_str(), report.confused[0].taken_for.as_str()), ("a", "b"));
    /// ```
    pub fn new(pairs: &[(u32, u32)], labels: &[String]) -> Self {
        let count = labels.len();
        let mut table = vec![0_usize; count * count];
        for &(right, found) in pairs {
            if let Some(cell) = table.get_mut(right as usize * count + found as usize) {
                *cell += 1;
            }
        }
        let at = |right: usize, found: usize| table[right * count + found];
        let share = |part: usize, whole: usize| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let classes: Vec<ClassScore> = (0..count)
            .filter_map(|class| {
                let rows: usize = (0..count).map(|found| at(class, found)).sum();
                let taken: usize = (0..count).map(|right| at(right, class)).sum();
                let (precision, recall) = (share(at(class, class), taken), share(at(class, class), rows));
                let f1 = share(2 * at(class, class), rows + taken);
                (rows + taken > 0).then(|| ClassScore { label: labels[class].clone(), rows, precision, recall, f1 })
            })
            .collect();
        let mut confused: Vec<Confusion> = (0..count)
            .flat_map(|right| (0..count).map(move |found| (right, found)))
            .filter(|&(right, found)| right != found && at(right, found) > 0)
            .map(|(right, found)| Confusion {
                label: labels[right].clone(),
                taken_for: labels[found].clone(),
                rows: at(right, found),
            })
            .collect();
        confused.sort_by_key(|pair| std::cmp::Reverse(pair.rows));
        let right: usize = (0..count).map(|class| at(class, class)).sum();
        let accuracy = share(right, pairs.len());
        let macro_f1 = classes.iter().map(|class| class.f1).sum::<f64>() / classes.len().max(1) as f64;
        Self { rows: pairs.len(), accuracy, micro_f1: accuracy, macro_f1, classes, confused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_match_scikit_learn() {
        // classification_report([0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 2, 0, 2]): macro f1 0.7
        let pairs = [(0, 0), (0, 1), (1, 1), (1, 1), (2, 2), (2, 0), (2, 2)];
        let labels: Vec<String> = ["a", "b", "c", "unused"].map(str::to_owned).to_vec();
        let report = ClassificationReport::new(&pairs, &labels);
        assert!((report.accuracy - 5.0 / 7.0).abs() < 1e-12);
        assert!((report.macro_f1 - 0.7).abs() < 1e-12, "{}", report.macro_f1);
        assert_eq!(report.classes.len(), 3);
        assert!(
            (report.classes[2].recall - 2.0 / 3.0).abs() < 1e-12 && (report.classes[2].precision - 1.0).abs() < 1e-12
        );
        assert_eq!(report.confused.len(), 2);
    }
}
