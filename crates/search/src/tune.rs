//! How little of an index must be searched to find what an exact search finds.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use arrow::{
    array::{AsArray, Float32Array},
    datatypes::{Float32Type, UInt64Type},
};
use lance_linalg::distance::DistanceType;
use polylance_schema::columns::EMBEDDING;
use serde::Serialize;

use crate::{
    Effort, SearchError, SearchTable,
    candidates::{self, Index, ROW_ID},
};

/// What is asked of the search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuneRequest {
    /// Rows of the table that serve as queries; their own row is not counted as found.
    pub queries: usize,
    /// Hits of a search.
    pub k: usize,
    /// The share of the exact search's hits that must be found, 0 to 1.
    pub recall: f64,
}

impl Default for TuneRequest {
    fn default() -> Self {
        Self { queries: 50, k: 10, recall: 0.95 }
    }
}

/// One setting, measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Tuned {
    /// The setting.
    #[serde(flatten)]
    pub effort: Effort,
    /// The share of the exact search's hits that it finds.
    pub recall: f64,
    /// The median time of a search.
    #[serde(rename = "median_ms", serialize_with = "milliseconds")]
    pub median: Duration,
    /// The time within which 99 of 100 searches end.
    #[serde(rename = "p99_ms", serialize_with = "milliseconds")]
    pub p99: Duration,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tuning {
    /// Each setting that was tried.
    pub tried: Vec<Tuned>,
    /// The fastest that finds enough; else the one that finds most.
    pub best: Tuned,
    /// Whether it finds enough.
    pub enough: bool,
    /// The median time of an exact search.
    #[serde(rename = "exact_ms", serialize_with = "milliseconds")]
    pub exact: Duration,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

/// Candidates per hit that are tried: each costs reading so many vectors. Where rows crowd, as a million that differ from
/// 600 by noise, codes tell little apart and many are needed.
const REFINE: [u32; 7] = [1, 2, 4, 10, 20, 50, 100];

/// Probes double until they find enough or so many are searched.
const MOST_PROBES: usize = 1024;

impl SearchTable {
    /// Measures recall and time of an index for rising effort, and finds the fastest that reaches `recall`.
    ///
    /// # Errors
    /// [`SearchError::Query`] without an index on the vectors or with too few rows, [`SearchError::Storage`].
    pub async fn tune(&self, request: &TuneRequest) -> Result<Tuning, SearchError> {
        let refused = |message: &str| Err(SearchError::Query(format!("{}: {message}", self.uri())));
        let Some(metric) = self.metric() else {
            return refused("there is no index on the vectors to tune: every search is exact");
        };
        if request.queries == 0 || request.k == 0 || !(0.0..=1.0).contains(&request.recall) {
            return refused("ask for at least one query and one hit, and for a recall from 0 to 1");
        }
        let queries = self.sample(request.queries).await?;
        if queries.is_empty() {
            return refused("the table has no rows");
        }
        let mut truth = Vec::with_capacity(queries.len());
        let mut times = Vec::with_capacity(queries.len());
        for query in &queries {
            let begun = Instant::now();
            truth.push(self.around(query, request.k, metric, None).await?);
            times.push(begun.elapsed());
        }
        let exact = median(&mut times);
        let mut tried: Vec<Tuned> = Vec::new();
        for refine in REFINE {
            let mut probes = 1;
            loop {
                let effort = Effort { nprobes: Some(probes), refine: Some(refine), ef: None };
                let measured = self.measure(effort, &queries, &truth, request.k, metric).await?;
                // What is slower and finds no more than a setting before it need not be driven further.
                let hopeless =
                    tried.iter().any(|known| known.recall >= request.recall && known.median < measured.median);
                // More probes that find nothing new mean that the codes are too coarse: more candidates are needed.
                let stalled = tried
                    .last()
                    .is_some_and(|last| last.effort.refine == Some(refine) && measured.recall - last.recall < 0.001);
                tried.push(measured);
                if measured.recall >= request.recall || hopeless || stalled || probes >= MOST_PROBES {
                    break;
                }
                probes *= 2;
            }
        }
        let enough = |tuned: &&Tuned| tuned.recall >= request.recall;
        let fastest = tried.iter().filter(enough).min_by_key(|tuned| tuned.median).copied();
        let most = tried.iter().max_by(|a, b| a.recall.total_cmp(&b.recall)).copied();
        match fastest.or(most) {
            Some(best) => Ok(Tuning { best, enough: fastest.is_some(), tried, exact }),
            None => refused("nothing could be measured"),
        }
    }

    async fn measure(
        &self,
        effort: Effort,
        queries: &[Sample],
        truth: &[HashSet<u64>],
        k: usize,
        metric: DistanceType,
    ) -> Result<Tuned, SearchError> {
        let (mut found, mut wanted) = (0, 0);
        let mut times = Vec::with_capacity(queries.len());
        // Once unmeasured, so that no setting pays for reading what the next ones find in memory.
        for query in queries {
            self.around(query, k, metric, Some(effort)).await?;
        }
        for (query, truth) in queries.iter().zip(truth) {
            let begun = Instant::now();
            let hits = self.around(query, k, metric, Some(effort)).await?;
            times.push(begun.elapsed());
            found += hits.intersection(truth).count();
            wanted += truth.len();
        }
        let recall = if wanted == 0 { 1.0 } else { found as f64 / wanted as f64 };
        Ok(Tuned { effort, recall, median: median(&mut times), p99: percentile(&mut times, 99) })
    }

    /// The rows around a query without its own; without effort by an exact search.
    async fn around(
        &self,
        query: &Sample,
        k: usize,
        metric: DistanceType,
        effort: Option<Effort>,
    ) -> Result<HashSet<u64>, SearchError> {
        let searching = |error| SearchError::storage(self.uri(), "searching")(error);
        let mut scanner = self.dataset().scan();
        let index = effort.map_or(Index::Left, Index::Searched);
        candidates::plan_nearest(&mut scanner, self, &query.vector, k + 1, metric, index).map_err(searching)?;
        scanner.project::<&str>(&[]).map_err(searching)?.with_row_id();
        let rows = Box::pin(scanner.try_into_batch()).await.map_err(searching)?;
        let Some(ids) = rows.column_by_name(ROW_ID) else { return Ok(HashSet::new()) };
        let others = ids.as_primitive::<UInt64Type>().values().iter().filter(|id| **id != query.row);
        Ok(others.take(k).copied().collect())
    }

    /// Rows spread evenly over the table.
    async fn sample(&self, rows: usize) -> Result<Vec<Sample>, SearchError> {
        let reading = |error| SearchError::storage(self.uri(), "reading a sample")(error);
        let all = self.count_rows(None).await?;
        let rows = (rows as u64).min(all);
        let mut samples = Vec::with_capacity(rows as usize);
        for at in 0..rows {
            let offset = (all * at / rows) as i64;
            let mut scanner = self.dataset().scan();
            scanner.project(&[EMBEDDING]).map_err(reading)?.with_row_id();
            scanner.limit(Some(1), Some(offset)).map_err(reading)?;
            let row = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
            let (Some(vector), Some(id)) = (row.column_by_name(EMBEDDING), row.column_by_name(ROW_ID)) else {
                continue;
            };
            if row.num_rows() == 1 {
                let vector = vector.as_fixed_size_list().value(0).as_primitive::<Float32Type>().clone();
                samples.push(Sample { row: id.as_primitive::<UInt64Type>().value(0), vector });
            }
        }
        Ok(samples)
    }
}

/// A row that serves as a query.
struct Sample {
    row: u64,
    vector: Float32Array,
}

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

/// The least time that is not below so many of 100.
fn percentile(times: &mut [Duration], share: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * share).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_times() {
        let times = |n: u64| (1..=n).rev().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(percentile(&mut times(100), 99), Duration::from_millis(99));
        assert_eq!(percentile(&mut times(10), 99), Duration::from_millis(10));
        assert_eq!(median(&mut times(3)), Duration::from_millis(2));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
