//! When an index should be built anew.

use lance_index::{IndexType, vector::ivf::builder::recommended_num_partitions};
use serde::Serialize;

/// Why an index that covers every row no longer fits them. Rows that are added later go to the partition whose centre
/// is nearest, and centres stay where they were when the index was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retrain {
    /// The table has so many more rows that an index built now would have [`Retrain::GROWN`] times the partitions: every
    /// probe reads too much.
    Grown,
    /// Rows crowd into a few partitions ([`Retrain::CROWDED`]): the new ones are unlike those it was built on.
    Drifted,
}

impl Retrain {
    /// Partitions that an index built now would have, over those it has.
    pub const GROWN: f64 = 4.0;
    /// Rows that a probe of a row's own partition reads, over those that it would read if all had one size.
    pub const CROWDED: f64 = 4.0;

    pub(crate) fn of(sizes: &[u64], kind: &str) -> Option<Self> {
        let (partitions, rows) = (sizes.len() as f64, sizes.iter().sum::<u64>() as f64);
        if partitions < 2.0 || rows == 0.0 {
            return None;
        }
        // Of a kind that this version of Lance does not know, the usual size.
        let target = IndexType::try_from(kind).unwrap_or(IndexType::Vector).target_partition_size();
        let wanted = recommended_num_partitions(rows as usize, target) as f64;
        let squares: f64 = sizes.iter().map(|&size| (size as f64).powi(2)).sum();
        if wanted >= Self::GROWN * partitions {
            return Some(Self::Grown);
        }
        (partitions * squares >= Self::CROWDED * rows * rows).then_some(Self::Drifted)
    }
}

/// Pieces of one index share its partitions.
pub(crate) fn partition_sizes(statistics: &serde_json::Value) -> Vec<u64> {
    let mut sizes = Vec::new();
    for piece in statistics["indices"].as_array().into_iter().flatten() {
        for (at, partition) in piece["partitions"].as_array().into_iter().flatten().enumerate() {
            if sizes.len() == at {
                sizes.push(0);
            }
            sizes[at] += partition["size"].as_u64().unwrap_or_default();
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_built_anew_when_the_table_has_outgrown_it() {
        assert_eq!(Retrain::of(&[8000; 10], "IVF_PQ"), None);
        assert_eq!(Retrain::of(&[31_000; 10], "IVF_PQ"), None);
        assert_eq!(Retrain::of(&[33_000; 10], "IVF_PQ"), Some(Retrain::Grown));
        assert_eq!(Retrain::of(&[17_000; 10], "IVF_FLAT"), Some(Retrain::Grown), "its partitions are half as large");
    }

    #[test]
    fn an_index_is_built_anew_when_rows_crowd_into_few_partitions() {
        let mut sizes = vec![4000; 20];
        assert_eq!(Retrain::of(&sizes, "IVF_PQ"), None);
        sizes[7] = 80_000;
        assert_eq!(Retrain::of(&sizes, "IVF_PQ"), Some(Retrain::Drifted));
    }

    #[test]
    fn one_partition_says_nothing() {
        assert_eq!(Retrain::of(&[1_000_000], "IVF_PQ"), None);
        assert_eq!(Retrain::of(&[], "IVF_PQ"), None);
    }

    #[test]
    fn pieces_add_up() {
        let piece = |sizes: [u64; 2]| serde_json::json!({ "partitions": sizes.map(|size| serde_json::json!({ "size": size })) });
        let statistics = serde_json::json!({ "indices": [piece([1, 2]), piece([10, 20])] });
        assert_eq!(partition_sizes(&statistics), [11, 22]);
        assert!(partition_sizes(&serde_json::json!({})).is_empty());
    }
}
