//! The best rows of a vector search and of a full-text search, before their columns are read.

use std::collections::HashMap;

use arrow::{
    array::{Array, AsArray, Float32Array, RecordBatch},
    datatypes::{Float32Type, UInt64Type},
};
use datafusion::logical_expr::Expr;
use lance::dataset::{
    ProjectionRequest,
    scanner::{RowAddrMask, Scanner},
};
use lance_linalg::distance::DistanceType;
use polylance_schema::columns::{DOC_ID, EMBEDDING};

use super::full_text;
use crate::{DISTANCE, Effort, SearchError, SearchTable};

/// Candidates per hit that an index yields and that are re-scored with exact distances, unless tuned.
const DEFAULT_REFINE_FACTOR: u32 = 10;

/// Partitions of an index that are searched, unless tuned: all of them up to about 160,000 rows.
const DEFAULT_PROBES: usize = 20;

/// Lance's column of BM25 scores.
const LANCE_BM25: &str = "_score";
/// Lance's column of row ids.
pub(crate) const ROW_ID: &str = "_rowid";

/// A row and its distance or score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Lance's id of the row, by which it is read.
    pub(crate) row: u64,
    /// Its document; empty unless one candidate per document was requested.
    pub(crate) doc_id: String,
    /// A distance or a BM25 score.
    pub(crate) value: f32,
}

/// Which rows may be candidates, and how many.
#[derive(Debug, Clone)]
pub(super) struct CandidateQuery<'a> {
    pub(super) limit: usize,
    pub(super) filter: Option<&'a Expr>,
    /// At most one candidate per document.
    pub(super) by_document: bool,
}

/// The nearest rows in ascending order of distance, including rows that the index does not cover.
pub(super) async fn vector_candidates(
    table: &SearchTable,
    vector: &[f32],
    effort: Effort,
    candidates: &CandidateQuery<'_>,
) -> Result<Vec<Candidate>, SearchError> {
    let query = Float32Array::from(vector.to_vec());
    let metric = table.metric().unwrap_or(DistanceType::Cosine);
    let plan = |index: IndexUse| {
        let query = &query;
        move |scanner: &mut Scanner, limit: usize| plan_nearest(scanner, table, query, limit, metric, index)
    };
    let found = collect_candidates(table, DISTANCE, candidates, plan(IndexUse::Search(effort))).await?;
    if table.is_index_exhaustive() || found.len() >= candidates.limit {
        return Ok(found);
    }
    collect_candidates(table, DISTANCE, candidates, plan(IndexUse::Bypass)).await
}

/// Whether a vector search uses the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IndexUse {
    /// Searches the index, where there is one.
    Search(Effort),
    /// Compares every row.
    Bypass,
}

/// Plans a scan of the `k` nearest rows by exact distance. It searches at least as many partitions of an index as the
/// effort requires, and more while they hold fewer than `k` rows that match the filter.
pub(crate) fn plan_nearest(
    scanner: &mut Scanner,
    table: &SearchTable,
    vector: &Float32Array,
    k: usize,
    metric: DistanceType,
    index: IndexUse,
) -> lance::Result<()> {
    scanner.nearest(EMBEDDING, vector, k)?.distance_metric(metric);
    match index {
        IndexUse::Search(effort) if table.metric().is_some() => {
            let effort = effort.or(table.tuned());
            scanner.refine(effort.refine.unwrap_or(DEFAULT_REFINE_FACTOR));
            // `nprobes` would set the maximum too.
            scanner.minimum_nprobes(effort.nprobes.unwrap_or(DEFAULT_PROBES));
            if let Some(ef) = effort.ef {
                scanner.ef(ef);
            }
        }
        IndexUse::Search(_) => {}
        IndexUse::Bypass => {
            scanner.use_index(false);
        }
    }
    Ok(())
}

/// The exact distances of rows, in their order; `None` for a row whose vector is null or has no direction.
pub(super) async fn distances(
    table: &SearchTable,
    vector: &[f32],
    rows: &[u64],
) -> Result<Vec<Option<f32>>, SearchError> {
    let reading = |error| SearchError::storage(table.uri(), "reading the candidates' vectors")(error);
    let metric = table.metric().unwrap_or(DistanceType::Cosine);
    let columns = ProjectionRequest::from_columns([EMBEDDING], table.dataset().schema());
    let read = Box::pin(table.dataset().take_rows(rows, columns)).await.map_err(reading)?;
    let Some(vectors) = read.column_by_name(EMBEDDING).map(AsArray::as_fixed_size_list) else { return Ok(Vec::new()) };
    if metric == DistanceType::Hamming {
        return Ok(Vec::new());
    }
    let distance = metric.func::<f32>();
    let distance_of = |row: usize| {
        let other = vectors.is_valid(row).then(|| vectors.value(row))?;
        Some(distance(vector, other.as_primitive::<Float32Type>().values())).filter(|distance| distance.is_finite())
    };
    Ok((0..vectors.len()).map(distance_of).collect())
}

/// The rows that contain words of the query, in descending order of BM25.
pub(super) async fn full_text_candidates(
    table: &SearchTable,
    query: &str,
    candidates: &CandidateQuery<'_>,
) -> Result<Vec<Candidate>, SearchError> {
    if !table.has_text_index() {
        return Err(SearchError::NoTextIndex { uri: table.uri().to_owned() });
    }
    let query = full_text::index_query(table, query).map_err(SearchError::storage(table.uri(), "searching"))?;
    let Some(query) = query else { return Ok(Vec::new()) };
    let plan = |scanner: &mut Scanner, limit: usize| {
        scanner.full_text_search(query.clone().limit(Some(limit as i64)))?.limit(Some(limit as i64), None)?;
        Ok(())
    };
    collect_candidates(table, LANCE_BM25, candidates, plan).await
}

/// The BM25 scores of those rows that contain a word of the query.
pub(super) async fn bm25_scores(
    table: &SearchTable,
    query: &str,
    rows: &[u64],
) -> Result<HashMap<u64, f32>, SearchError> {
    let searching = |error| SearchError::storage(table.uri(), "searching")(error);
    let limit = rows.len() as i64;
    let Some(query) = full_text::index_query(table, query).map_err(searching)? else { return Ok(HashMap::new()) };
    let mut scanner = table.scan();
    scanner
        .full_text_search(query.limit(Some(limit)))
        .map_err(searching)?
        .limit(Some(limit), None)
        .map_err(searching)?;
    scanner.prefilter(true).with_row_id_prefilter(RowAddrMask::from_allowed(rows.iter().copied().collect()));
    scanner.project(&[LANCE_BM25]).map_err(searching)?.with_row_id();
    let found = Box::pin(full_text::read(table, &scanner)).await.map_err(searching)?;
    Ok(candidates(&found, LANCE_BM25).into_iter().map(|candidate| (candidate.row, candidate.value)).collect())
}

/// Runs the scan of `plan`. For one candidate per document, it repeats the scan with a larger limit until there are enough
/// documents or no more rows.
async fn collect_candidates(
    table: &SearchTable,
    value: &str,
    query: &CandidateQuery<'_>,
    plan: impl Fn(&mut Scanner, usize) -> lance::Result<()>,
) -> Result<Vec<Candidate>, SearchError> {
    let searching = |error| SearchError::storage(table.uri(), "searching")(error);
    let mut limit = if query.by_document { query.limit.saturating_mul(3) } else { query.limit };
    loop {
        let mut scanner = table.scan();
        if let Some(filter) = query.filter {
            scanner.prefilter(true).filter_expr(filter.clone());
        }
        plan(&mut scanner, limit).map_err(searching)?;
        let columns: &[&str] = if query.by_document { &[DOC_ID, value] } else { &[value] };
        scanner.project(columns).map_err(searching)?.with_row_id();
        let rows = match value {
            LANCE_BM25 => Box::pin(full_text::read(table, &scanner)).await,
            _ => Box::pin(scanner.try_into_batch()).await,
        };
        let rows = rows.map_err(searching)?;
        let mut candidates = candidates(&rows, value);
        let is_last = candidates.len() < limit;
        if query.by_document {
            keep_best_per_document(&mut candidates);
        }
        if is_last || candidates.len() >= query.limit {
            candidates.truncate(query.limit);
            return Ok(candidates);
        }
        limit = limit.saturating_mul(4);
    }
}

fn candidates(rows: &RecordBatch, value: &str) -> Vec<Candidate> {
    let (Some(ids), Some(values)) = (rows.column_by_name(ROW_ID), rows.column_by_name(value)) else {
        return Vec::new();
    };
    let (ids, values) = (ids.as_primitive::<UInt64Type>(), values.as_primitive::<Float32Type>());
    let documents = rows.column_by_name(DOC_ID).map(AsArray::as_string::<i32>);
    (0..rows.num_rows())
        .map(|at| Candidate {
            row: ids.value(at),
            doc_id: documents.map(|documents| documents.value(at).to_owned()).unwrap_or_default(),
            value: values.value(at),
        })
        .collect()
}

/// Keeps the first candidate of each document, in the same order.
fn keep_best_per_document(candidates: &mut Vec<Candidate>) {
    let mut seen = std::collections::HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.doc_id.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_best_chunk_of_a_document_is_kept() {
        let one = |row, doc_id: &str| Candidate { row, doc_id: doc_id.to_owned(), value: 0.0 };
        let mut all = vec![one(1, "a"), one(2, "b"), one(3, "a"), one(4, "c")];
        keep_best_per_document(&mut all);
        assert_eq!(all, [one(1, "a"), one(2, "b"), one(4, "c")]);
    }
}
