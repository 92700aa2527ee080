//! Finds the cheapest search of a vector index that reaches a recall.

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
    Effort, QueryError, SearchError, SearchTable,
    search::candidates::{IndexUse, ROW_ID, plan_nearest},
};

/// The goal of tuning, and the measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TuneRequest {
    /// Number of the table's rows that serve as queries; a row does not count as its own hit.
    pub queries: usize,
    /// Number of hits of a search.
    pub k: usize,
    /// The share of the exact search's hits to find, 0 to 1.
    pub recall: f64,
}

impl Default for TuneRequest {
    fn default() -> Self {
        Self { queries: 50, k: 10, recall: 0.95 }
    }
}

/// The measurement of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MeasuredEffort {
    /// The setting.
    #[serde(flatten)]
    pub effort: Effort,
    /// The share of the exact search's hits that it finds.
    pub recall: f64,
    /// The median time of a search.
    #[serde(rename = "median_ms", serialize_with = "milliseconds")]
    pub median: Duration,
    /// The 99th percentile of the time of a search.
    #[serde(rename = "p99_ms", serialize_with = "milliseconds")]
    pub p99: Duration,
}

/// The result of tuning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TuneReport {
    /// Each measured setting.
    pub tried: Vec<MeasuredEffort>,
    /// The fastest setting that reaches the recall; else the one with the highest recall.
    pub best: MeasuredEffort,
    /// Whether the best setting reaches the recall.
    pub enough: bool,
    /// The median time of an exact search.
    #[serde(rename = "exact_ms", serialize_with = "milliseconds")]
    pub exact: Duration,
}

fn milliseconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64() * 1e3)
}

/// Candidates per hit to try: each costs reading a vector. Where many rows are close together, such as a million that
/// differ from 600 only by noise, codes distinguish them poorly and many candidates are needed.
const REFINE_FACTORS: [u32; 7] = [1, 2, 4, 10, 20, 50, 100];

/// Probes double until the recall is reached, or up to this many.
const MAX_PROBES: usize = 1024;

impl SearchTable {
    /// Measures recall and time of searches of the vector index with increasing effort, and finds the fastest that reaches
    /// `recall`.
    ///
    /// # Errors
    /// [`SearchError::Query`] without a vector index or without rows, [`SearchError::Storage`].
    pub async fn tune(&self, request: &TuneRequest) -> Result<TuneReport, SearchError> {
        let uri = || self.uri().to_owned();
        let metric = self.metric().ok_or_else(|| QueryError::NoVectorIndex { uri: uri() })?;
        check(request)?;
        let queries = self.sample(request.queries).await?;
        if queries.is_empty() {
            return Err(QueryError::NoRows { uri: uri() }.into());
        }
        let mut truth = Vec::with_capacity(queries.len());
        let mut times = Vec::with_capacity(queries.len());
        for query in &queries {
            let started = Instant::now();
            truth.push(self.neighbors(query, request.k, metric, IndexUse::Bypass).await?);
            times.push(started.elapsed());
        }
        let exact = median(&mut times);
        let mut tried: Vec<MeasuredEffort> = Vec::new();
        for refine in REFINE_FACTORS {
            let mut probes = 1;
            loop {
                let effort = Effort { nprobes: Some(probes), refine: Some(refine), ef: None };
                let measured = self.measure(effort, &queries, &truth, request.k, metric).await?;
                // Slower than an earlier setting that reaches the recall: more probes cannot win.
                let hopeless =
                    tried.iter().any(|known| known.recall >= request.recall && known.median < measured.median);
                // When more probes add no recall, the codes are too coarse: more candidates are needed.
                let stalled = tried
                    .last()
                    .is_some_and(|last| last.effort.refine == Some(refine) && measured.recall - last.recall < 0.001);
                tried.push(measured);
                if measured.recall >= request.recall || hopeless || stalled || probes >= MAX_PROBES {
                    break;
                }
                probes *= 2;
            }
        }
        let enough = |measured: &&MeasuredEffort| measured.recall >= request.recall;
        let fastest = tried.iter().filter(enough).min_by_key(|measured| measured.median).copied();
        let most = tried.iter().max_by(|a, b| a.recall.total_cmp(&b.recall)).copied();
        let best = fastest.or(most).ok_or_else(|| QueryError::NoRows { uri: uri() })?;
        Ok(TuneReport { best, enough: fastest.is_some(), tried, exact })
    }

    async fn measure(
        &self,
        effort: Effort,
        queries: &[Sample],
        truth: &[HashSet<u64>],
        k: usize,
        metric: DistanceType,
    ) -> Result<MeasuredEffort, SearchError> {
        let index = IndexUse::Search(effort);
        let (mut found, mut expected) = (0, 0);
        let mut times = Vec::with_capacity(queries.len());
        // Warms the caches, so that no setting pays for reads that later ones find in memory.
        for query in queries {
            self.neighbors(query, k, metric, index).await?;
        }
        for (query, truth) in queries.iter().zip(truth) {
            let started = Instant::now();
            let hits = self.neighbors(query, k, metric, index).await?;
            times.push(started.elapsed());
            found += hits.intersection(truth).count();
            expected += truth.len();
        }
        let recall = if expected == 0 { 1.0 } else { found as f64 / expected as f64 };
        Ok(MeasuredEffort { effort, recall, median: median(&mut times), p99: percentile(&mut times, 99) })
    }

    /// The rows nearest to a query, without its own row.
    async fn neighbors(
        &self,
        query: &Sample,
        k: usize,
        metric: DistanceType,
        index: IndexUse,
    ) -> Result<HashSet<u64>, SearchError> {
        let searching = |error| SearchError::storage(self.uri(), "searching")(error);
        let mut scanner = self.dataset().scan();
        plan_nearest(&mut scanner, self, &query.vector, k + 1, metric, index).map_err(searching)?;
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

fn check(request: &TuneRequest) -> Result<(), QueryError> {
    let out_of_range = |parameter, range| Err(QueryError::OutOfRange { parameter, range });
    if request.queries == 0 {
        return out_of_range("the number of queries", "at least 1");
    }
    if request.k == 0 {
        return out_of_range("`k`", "at least 1");
    }
    if !(0.0..=1.0).contains(&request.recall) {
        return out_of_range("the recall", "from 0 to 1");
    }
    Ok(())
}

/// A row that serves as a query.
struct Sample {
    row: u64,
    vector: Float32Array,
}

fn median(times: &mut [Duration]) -> Duration {
    percentile(times, 50)
}

/// The shortest time that is not below `percent` of the times.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).max(1);
    times.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentile_is_one_of_the_times() {
        let times = |n: u64| (1..=n).rev().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(percentile(&mut times(100), 99), Duration::from_millis(99));
        assert_eq!(percentile(&mut times(10), 99), Duration::from_millis(10));
        assert_eq!(median(&mut times(3)), Duration::from_millis(2));
        assert_eq!(median(&mut []), Duration::ZERO);
    }
}
