//! The best rows by meaning and by words, before they are read.

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

use crate::{DISTANCE, Effort, SearchError, SearchTable, words};

/// Candidates per hit that an index yields, whose exact distances then decide.
const REFINE_FACTOR: u32 = 10;

/// Partitions of an index that are searched: all of them up to about 160,000 rows.
const PROBES: usize = 20;

/// Lance's columns.
const LANCE_BM25: &str = "_score";
pub(crate) const ROW_ID: &str = "_rowid";

/// A row and how well it fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// Lance's id of the row, by which it is read.
    pub(crate) row: u64,
    /// Its document; empty unless it was asked for.
    pub(crate) doc_id: String,
    /// A distance or a BM25 score.
    pub(crate) value: f32,
}

/// Which rows may be candidates, and how many are wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) limit: usize,
    pub(crate) filter: Option<&'a Expr>,
    /// At most one candidate a document.
    pub(crate) by_document: bool,
}

/// The nearest rows, distances rising. Rows that the index does not cover are compared too.
pub(crate) async fn nearest(
    table: &SearchTable,
    vector: &[f32],
    effort: Effort,
    wanted: &Wanted<'_>,
) -> Result<Vec<Candidate>, SearchError> {
    let query = Float32Array::from(vector.to_vec());
    let metric = table.metric().unwrap_or(DistanceType::Cosine);
    let by = |index: Index| {
        let query = &query;
        move |scanner: &mut Scanner, limit: usize| plan_nearest(scanner, table, query, limit, metric, index)
    };
    let found = gather(table, DISTANCE, wanted, by(Index::Searched(effort))).await?;
    if table.is_index_exhaustive() || found.len() >= wanted.limit {
        return Ok(found);
    }
    gather(table, DISTANCE, wanted, by(Index::Left)).await
}

/// What a search of vectors does with an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Index {
    /// Searches it, where there is one.
    Searched(Effort),
    /// Compares every row instead.
    Left,
}

/// Asks for the `k` nearest rows by exact distances. Of an index at least as many partitions are searched as the effort says,
/// and more as long as they have fewer than `k` rows that fulfil the filter.
pub(crate) fn plan_nearest(
    scanner: &mut Scanner,
    table: &SearchTable,
    vector: &Float32Array,
    k: usize,
    metric: DistanceType,
    index: Index,
) -> lance::Result<()> {
    scanner.nearest(EMBEDDING, vector, k)?.distance_metric(metric);
    match index {
        Index::Searched(effort) if table.metric().is_some() => {
            let effort = effort.or(table.tuned());
            scanner.refine(effort.refine.unwrap_or(REFINE_FACTOR));
            // Not `nprobes`, which is the maximum too.
            scanner.minimum_nprobes(effort.nprobes.unwrap_or(PROBES));
            if let Some(ef) = effort.ef {
                scanner.ef(ef);
            }
        }
        Index::Searched(_) => {}
        Index::Left => {
            scanner.use_index(false);
        }
    }
    Ok(())
}

/// The exact distances of rows, in their order; `None` for a row whose vector is null or has no direction.
pub(crate) async fn distances(
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
    let of = |row: usize| {
        let there = vectors.is_valid(row).then(|| vectors.value(row))?;
        Some(distance(vector, there.as_primitive::<Float32Type>().values())).filter(|distance| distance.is_finite())
    };
    Ok((0..vectors.len()).map(of).collect())
}

/// The rows that hold the query's words, BM25 scores falling.
pub(crate) async fn by_words(
    table: &SearchTable,
    query: &str,
    wanted: &Wanted<'_>,
) -> Result<Vec<Candidate>, SearchError> {
    if !table.has_text_index() {
        return Err(SearchError::NoTextIndex { uri: table.uri().to_owned() });
    }
    let query = words::query(table, query).map_err(SearchError::storage(table.uri(), "searching"))?;
    let Some(query) = query else { return Ok(Vec::new()) };
    let plan = |scanner: &mut Scanner, limit: usize| {
        scanner.full_text_search(query.clone().limit(Some(limit as i64)))?.limit(Some(limit as i64), None)?;
        Ok(())
    };
    gather(table, LANCE_BM25, wanted, plan).await
}

/// The BM25 scores of those of the rows that hold one of the query's words.
pub(crate) async fn bm25_of(table: &SearchTable, words: &str, rows: &[u64]) -> Result<HashMap<u64, f32>, SearchError> {
    let searching = |error| SearchError::storage(table.uri(), "searching")(error);
    let limit = rows.len() as i64;
    let Some(query) = words::query(table, words).map_err(searching)? else { return Ok(HashMap::new()) };
    let mut scanner = table.scan();
    scanner
        .full_text_search(query.limit(Some(limit)))
        .map_err(searching)?
        .limit(Some(limit), None)
        .map_err(searching)?;
    scanner.prefilter(true).with_row_id_prefilter(RowAddrMask::from_allowed(rows.iter().copied().collect()));
    scanner.project(&[LANCE_BM25]).map_err(searching)?.with_row_id();
    let found = Box::pin(words::read(table, &scanner)).await.map_err(searching)?;
    Ok(candidates(&found, LANCE_BM25).into_iter().map(|candidate| (candidate.row, candidate.value)).collect())
}

/// Runs what `plan` plans. With one row a document asked for, it asks for more rows until there are enough documents or
/// no more rows.
async fn gather(
    table: &SearchTable,
    value: &str,
    wanted: &Wanted<'_>,
    plan: impl Fn(&mut Scanner, usize) -> lance::Result<()>,
) -> Result<Vec<Candidate>, SearchError> {
    let searching = |error| SearchError::storage(table.uri(), "searching")(error);
    let mut limit = if wanted.by_document { wanted.limit.saturating_mul(3) } else { wanted.limit };
    loop {
        let mut scanner = table.scan();
        if let Some(filter) = wanted.filter {
            scanner.prefilter(true).filter_expr(filter.clone());
        }
        plan(&mut scanner, limit).map_err(searching)?;
        let columns: &[&str] = if wanted.by_document { &[DOC_ID, value] } else { &[value] };
        scanner.project(columns).map_err(searching)?.with_row_id();
        let rows = match value {
            LANCE_BM25 => Box::pin(words::read(table, &scanner)).await,
            _ => Box::pin(scanner.try_into_batch()).await,
        };
        let rows = rows.map_err(searching)?;
        let mut candidates = candidates(&rows, value);
        let all = candidates.len() < limit;
        if wanted.by_document {
            keep_one_a_document(&mut candidates);
        }
        if all || candidates.len() >= wanted.limit {
            candidates.truncate(wanted.limit);
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

/// The first of each document, in the same order.
fn keep_one_a_document(candidates: &mut Vec<Candidate>) {
    let mut seen = std::collections::HashSet::new();
    candidates.retain(|candidate| seen.insert(candidate.doc_id.clone()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_chunk_of_a_document_stays() {
        let one = |row, doc_id: &str| Candidate { row, doc_id: doc_id.to_owned(), value: 0.0 };
        let mut all = vec![one(1, "a"), one(2, "b"), one(3, "a"), one(4, "c")];
        keep_one_a_document(&mut all);
        assert_eq!(all, [one(1, "a"), one(2, "b"), one(4, "c")]);
    }
}
