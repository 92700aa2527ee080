//! Detects a vector index that should be retrained.

use lance_index::{IndexType, vector::ivf::builder::recommended_num_partitions};
use serde::Serialize;

/// Why an index that covers every row no longer fits them. Rows that are added later go to the partition with the
/// nearest centre, and centres stay as they were when the index was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Staleness {
    /// The table has grown: a new index would have at least [`Staleness::GROWTH_RATIO`] times the partitions, and every
    /// probe reads too much.
    Grown,
    /// Rows crowd into a few partitions ([`Staleness::CROWDING_RATIO`]): new rows differ from those that the index was
    /// built on.
    Drifted,
}

impl Staleness {
    /// Ratio of the partitions of a new index to those of this one.
    pub const GROWTH_RATIO: f64 = 4.0;
    /// Ratio of the rows that a probe of a row's own partition reads to those of partitions of equal size.
    pub const CROWDING_RATIO: f64 = 4.0;

    pub(crate) fn detect(sizes: &[u64], kind: &str) -> Option<Self> {
        let (partitions, rows) = (sizes.len() as f64, sizes.iter().sum::<u64>() as f64);
        if partitions < 2.0 || rows == 0.0 {
            return None;
        }
        // The usual size for a kind that this version of Lance does not know.
        let target = IndexType::try_from(kind).unwrap_or(IndexType::Vector).target_partition_size();
        let wanted = recommended_num_partitions(rows as usize, target) as f64;
        let squares: f64 = sizes.iter().map(|&size| (size as f64).powi(2)).sum();
        if wanted >= Self::GROWTH_RATIO * partitions {
            return Some(Self::Grown);
        }
        (partitions * squares >= Self::CROWDING_RATIO * rows * rows).then_some(Self::Drifted)
    }
}

/// Rows of each partition. The pieces of an index share its partitions.
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
    fn index_is_stale_when_the_table_has_outgrown_it() {
        assert_eq!(Staleness::detect(&[8000; 10], "IVF_PQ"), None);
        assert_eq!(Staleness::detect(&[31_000; 10], "IVF_PQ"), None);
        assert_eq!(Staleness::detect(&[33_000; 10], "IVF_PQ"), Some(Staleness::Grown));
        assert_eq!(
            Staleness::detect(&[17_000; 10], "IVF_FLAT"),
            Some(Staleness::Grown),
            "its partitions are half as large"
        );
    }

    #[test]
    fn index_is_stale_when_rows_crowd_into_few_partitions() {
        let mut sizes = vec![4000; 20];
        assert_eq!(Staleness::detect(&sizes, "IVF_PQ"), None);
        sizes[7] = 80_000;
        assert_eq!(Staleness::detect(&sizes, "IVF_PQ"), Some(Staleness::Drifted));
    }

    #[test]
    fn single_partition_is_never_stale() {
        assert_eq!(Staleness::detect(&[1_000_000], "IVF_PQ"), None);
        assert_eq!(Staleness::detect(&[], "IVF_PQ"), None);
    }

    #[test]
    fn sizes_of_pieces_are_summed() {
        let piece = |sizes: [u64; 2]| serde_json::json!({ "partitions": sizes.map(|size| serde_json::json!({ "size": size })) });
        let statistics = serde_json::json!({ "indices": [piece([1, 2]), piece([10, 20])] });
        assert_eq!(partition_sizes(&statistics), [11, 22]);
        assert!(partition_sizes(&serde_json::json!({})).is_empty());
    }
}
