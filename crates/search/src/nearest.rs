//! Nearest neighbours of a query in words.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Float32Array, RecordBatch},
    datatypes::{DataType, Field, Float32Type, Schema},
};
use lance::{Dataset, dataset::scanner::Scanner, index::DatasetIndexExt};
use lance_linalg::distance::DistanceType;
use polylance_backend::{BackendHandle, TokenizeSpec};
use polylance_schema::{
    Chunking, Contract,
    columns::{CONTENT_HASH, EMBEDDING},
};

use crate::{SearchError, open};

/// Lance's column of distances.
const DISTANCE: &str = "_distance";

/// Candidates per hit that an index yields, whose exact distances then decide.
const REFINE_FACTOR: u32 = 10;

/// Partitions of an index that are searched: all of them up to about 160,000 rows.
const PROBES: usize = 20;

/// What to look for, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRequest {
    /// The table's address.
    pub table: String,
    /// The query, in any language the model knows.
    pub query: String,
    /// Hits at most.
    pub k: usize,
    /// A SQL condition on the table's columns that every hit fulfils; applied before the search, so that
    /// there are `k` hits whenever that many rows fulfil it.
    pub filter: Option<String>,
}

/// Embeds the query by the table's contract and finds its neighbours.
///
/// Yields the table's columns without `embedding` and `content_hash`, then `_distance` (Float32, rising), then
/// `score` = 1 − distance where the distance is a cosine distance. The metric is the index's, cosine without
/// one. Distances are exact: candidates from an index are compared with the query again.
///
/// # Errors
/// See [`SearchError`]; the backend must be loaded for the table's contract.
pub async fn search(request: &SearchRequest, backend: &BackendHandle) -> Result<RecordBatch, SearchError> {
    let SearchRequest { table, query, k, filter } = request;
    if *k == 0 {
        return Err(SearchError::Query("k is 0: ask for at least one hit".to_owned()));
    }
    if query.trim().is_empty() {
        return Err(SearchError::Query("the query is empty".to_owned()));
    }
    let dataset = open::open(table).await?;
    let Some(contract) = open::contract(table, &dataset)? else {
        return Err(SearchError::NoContract { uri: table.clone() });
    };
    let metric = index_metric(table, &dataset).await?;
    if let Some(filter) = filter {
        check_filter(&dataset, filter).await?;
    }
    let vector = embed(query, &contract, backend).await?;
    let searching = |error| SearchError::storage(table, "searching")(error);
    let mut scanner = dataset.scan();
    plan(&mut scanner, &dataset, &vector, *k, metric).map_err(searching)?;
    if let Some(filter) = filter {
        scanner.prefilter(true).filter(filter).map_err(searching)?;
    }
    let hits = Box::pin(scanner.try_into_batch()).await.map_err(searching)?;
    with_score(hits, metric.unwrap_or(DistanceType::Cosine)).map_err(|error| searching(error.into()))
}

fn plan(
    scanner: &mut Scanner,
    dataset: &Dataset,
    vector: &Float32Array,
    k: usize,
    metric: Option<DistanceType>,
) -> lance::Result<()> {
    let fields = dataset.schema().fields.iter().map(|field| field.name.as_str());
    let columns: Vec<&str> =
        fields.filter(|name| ![EMBEDDING, CONTENT_HASH].contains(name)).chain([DISTANCE]).collect();
    scanner.nearest(EMBEDDING, vector, k)?.distance_metric(metric.unwrap_or(DistanceType::Cosine));
    if metric.is_some() {
        scanner.refine(REFINE_FACTOR).nprobes(PROBES);
    }
    scanner.project(&columns)?;
    Ok(())
}

/// The metric of the index on the vectors; `None` without an index.
async fn index_metric(uri: &str, dataset: &Dataset) -> Result<Option<DistanceType>, SearchError> {
    let reading = |error| SearchError::storage(uri, "reading the index")(error);
    let Some(field) = dataset.schema().field(EMBEDDING) else {
        return Err(SearchError::Query(format!("{uri} has no column `{EMBEDDING}`")));
    };
    let indices = dataset.load_indices().await.map_err(reading)?;
    let Some(index) = indices.iter().find(|index| index.fields.contains(&field.id)) else { return Ok(None) };
    let json = Box::pin(dataset.index_statistics(&index.name)).await.map_err(reading)?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let metric = statistics["indices"][0]["metric_type"].as_str();
    Ok(metric.and_then(|metric| DistanceType::try_from(metric).ok()))
}

/// Plans the filter alone, to tell its errors from others.
async fn check_filter(dataset: &Dataset, filter: &str) -> Result<(), SearchError> {
    let refused = |source| SearchError::Filter { filter: filter.to_owned(), source: Box::new(source) };
    let mut scanner = dataset.scan();
    scanner.filter(filter).map_err(refused)?;
    Box::pin(scanner.create_plan()).await.map_err(refused)?;
    Ok(())
}

/// The query's vector: the query prompt before it, cut where a document's chunk would end.
async fn embed(query: &str, contract: &Contract, backend: &BackendHandle) -> Result<Float32Array, SearchError> {
    let dim = backend.0.info().dim;
    if dim != contract.dim {
        return Err(SearchError::Dimensions { table: contract.dim, backend: dim, contract: contract.summary() });
    }
    let spec = TokenizeSpec {
        prefix: contract.prompts.query.clone(),
        chunking: Chunking::Truncate { max_tokens: contract.chunking.max_tokens() },
    };
    let chunks = backend.0.tokenize(vec![query.to_owned()], &spec).await?;
    let Some(chunk) = chunks.into_iter().flatten().next() else {
        return Err(SearchError::Query("the query has no tokens".to_owned()));
    };
    let embeddings = backend.0.encode(vec![chunk.input_ids]).await?;
    Ok(Float32Array::from(embeddings.values))
}

fn with_score(hits: RecordBatch, metric: DistanceType) -> Result<RecordBatch, arrow::error::ArrowError> {
    if metric != DistanceType::Cosine {
        return Ok(hits);
    }
    let Some(distance) = hits.column_by_name(DISTANCE) else { return Ok(hits) };
    let score: Float32Array = distance.as_primitive::<Float32Type>().unary(|distance| 1.0 - distance);
    let schema = hits.schema();
    let fields = schema.fields().iter().cloned().chain([Arc::new(Field::new("score", DataType::Float32, true))]);
    let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone());
    let columns = hits.columns().iter().cloned().chain([Arc::new(score) as ArrayRef]).collect();
    RecordBatch::try_new(Arc::new(schema), columns)
}
