//! The vector index: built, extended, merged, retrained and dropped.

use lance::{
    Dataset,
    index::{DatasetIndexExt, vector::VectorIndexParams},
};
use lance_index::{
    IndexType,
    optimize::OptimizeOptions,
    vector::{
        bq::RQBuildParams, hnsw::builder::HnswBuildParams, ivf::IvfBuildParams, pq::PQBuildParams,
        sq::builder::SQBuildParams,
    },
};
use lance_linalg::distance::DistanceType;
use polylance_schema::{IndexKind, Metric, columns::EMBEDDING};
use serde::Serialize;

use super::staleness::{Staleness, partition_sizes};
use crate::{
    commit::retry::{CommitRetry, is_conflict},
    error::SinkError,
    table::open,
};

/// Lance's names of the index: the second is used when an index of another column has the first.
const INDEX_NAMES: [&str; 2] = ["embedding_idx", "polylance_embedding_idx"];

/// Rows that product quantization needs to train its 256 codes; fewer are not worth an index of any kind.
const MIN_TRAINING_ROWS: u64 = 256;

/// Bits per dimension of the codes of `RaBitQ`.
const RABITQ_BITS_PER_DIMENSION: u8 = 1;

/// The index that a table should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexSpec {
    /// The kind.
    pub kind: IndexKind,
    /// The metric; must be the one that searches use.
    pub metric: Metric,
    /// With [`IndexKind::Auto`], the number of rows from which an index is built.
    pub min_rows: u64,
    /// Whether the text has a full-text index, see [`crate::update_full_text_index`].
    pub full_text: bool,
}

impl Default for IndexSpec {
    fn default() -> Self {
        Self { kind: IndexKind::Auto, metric: Metric::Cosine, min_rows: 20_000, full_text: false }
    }
}

/// What was done for an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IndexAction {
    /// The table has no index, and none is wanted.
    None,
    /// The index was dropped, because none is wanted.
    Dropped,
    /// The table has too few rows to train the wanted index: searches are exact until it has more.
    Postponed,
    /// The index was built: there was none, or one of another kind or metric.
    Built,
    /// The rows that the index did not cover were added.
    Extended,
    /// The index covered every row already.
    Unchanged,
}

/// The state of the vector index after an update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexOutcome {
    /// What was done.
    pub action: IndexAction,
    /// Lance's name of the kind, for example `IVF_PQ`; `None` without an index.
    pub kind: Option<String>,
    /// Rows that the index covers.
    pub indexed_rows: u64,
    /// Rows that the index does not cover.
    pub unindexed_rows: u64,
    /// Why the index should be retrained, if it should.
    pub retrain: Option<Staleness>,
    /// The table's version.
    pub version: u64,
}

/// Brings the index of the table at `uri` up to date.
///
/// Builds the index when there is none or one of another kind or metric, else adds the rows that it does not cover.
/// Lance chooses the number of partitions for the kind (rows divided by its target partition size); product
/// quantization uses one byte per eight dimensions. When another run commits first, the remaining work is determined
/// again: usually none.
///
/// # Errors
/// [`SinkError::Index`] when there is no table, [`SinkError::Storage`] when it cannot be read or the build fails,
/// [`SinkError::Conflict`] when other runs kept changing the index.
pub async fn update_index(uri: &str, spec: &IndexSpec) -> Result<IndexOutcome, SinkError> {
    let mut retry = CommitRetry::default();
    loop {
        match Box::pin(update_once(uri, spec)).await {
            Err(SinkError::Storage { source, .. }) if is_conflict(&source) => {
                retry.wait_after_conflict(uri, source).await?;
            }
            ended => return ended,
        }
    }
}

async fn update_once(uri: &str, spec: &IndexSpec) -> Result<IndexOutcome, SinkError> {
    let Some(mut dataset) = open::latest(uri).await? else {
        return Err(SinkError::Index { uri: uri.to_owned(), message: "there is no table to index".to_owned() });
    };
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))? as u64;
    let action = match (spec.wanted(rows), ExistingIndex::read(uri, &dataset).await?) {
        (WantedIndex::Nothing, None) => IndexAction::None,
        (WantedIndex::Nothing, Some(_)) if spec.kind == IndexKind::Auto => extend(uri, &mut dataset).await?,
        (WantedIndex::Nothing, Some(_)) => {
            let name = index_name(uri, &dataset).await?;
            let dropped = Box::pin(dataset.drop_index(name)).await;
            dropped.map_err(SinkError::storage(uri, "dropping the index"))?;
            IndexAction::Dropped
        }
        (WantedIndex::Kind(_), None) if rows < MIN_TRAINING_ROWS => IndexAction::Postponed,
        (WantedIndex::Kind(kind), Some(existing)) if existing.serves(kind, spec) => extend(uri, &mut dataset).await?,
        (WantedIndex::Kind(kind), _) => build(uri, &mut dataset, kind, spec.metric).await?,
    };
    outcome(uri, &dataset, action, rows).await
}

/// Extends the index of the table at `uri`, of any kind, to all rows, and merges its pieces into one. Builds none.
///
/// # Errors
/// [`SinkError::NoTable`], or [`SinkError::Storage`] when it cannot be read or extended.
pub async fn merge_index(uri: &str) -> Result<IndexOutcome, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))? as u64;
    let name = index_name(uri, &dataset).await?;
    let pieces = dataset.load_indices_by_name(name).await.map_err(SinkError::storage(uri, "reading the index"))?;
    let action = match (ExistingIndex::read(uri, &dataset).await?, pieces.len()) {
        (None, _) => IndexAction::None,
        (Some(index), 1) if index.unindexed == 0 => IndexAction::Unchanged,
        (Some(_), pieces) => {
            let options = OptimizeOptions::merge(pieces).index_names(vec![name.to_owned()]);
            let merged = Box::pin(dataset.optimize_indices(&options)).await;
            merged.map_err(SinkError::storage(uri, "extending the index"))?;
            IndexAction::Extended
        }
    };
    outcome(uri, &dataset, action, rows).await
}

/// Rebuilds the index of the table at `uri` on its current rows, with the same kind and metric. Does nothing without an
/// index.
///
/// # Errors
/// [`SinkError::NoTable`], [`SinkError::Index`] when the index is of a kind that is not built here, or
/// [`SinkError::Storage`].
pub async fn retrain_index(uri: &str) -> Result<IndexOutcome, SinkError> {
    let mut dataset = open::existing(uri).await?;
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SinkError::storage(uri, "counting rows"))? as u64;
    let action = match ExistingIndex::read(uri, &dataset).await? {
        None => IndexAction::None,
        Some(existing) => {
            let (kind, metric) = existing.kind_and_metric().ok_or_else(|| SinkError::Index {
                uri: uri.to_owned(),
                message: format!(
                    "the index is {} by {}, which polylance does not build: rebuild it with the program that made it",
                    existing.kind, existing.metric
                ),
            })?;
            build(uri, &mut dataset, kind, metric).await?
        }
    };
    outcome(uri, &dataset, action, rows).await
}

/// The index that a spec asks for, given the size of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WantedIndex {
    Nothing,
    Kind(IndexKind),
}

impl IndexSpec {
    fn wanted(&self, rows: u64) -> WantedIndex {
        match self.kind {
            IndexKind::None => WantedIndex::Nothing,
            IndexKind::Auto if rows < self.min_rows => WantedIndex::Nothing,
            IndexKind::Auto => WantedIndex::Kind(IndexKind::IvfPq),
            kind => WantedIndex::Kind(kind),
        }
    }
}

/// The kinds that can be built.
const BUILDABLE_KINDS: [IndexKind; 6] = [
    IndexKind::IvfPq,
    IndexKind::IvfFlat,
    IndexKind::IvfSq,
    IndexKind::IvfRq,
    IndexKind::IvfHnswSq,
    IndexKind::IvfHnswPq,
];

/// Lance's name of the kind.
fn lance_name(kind: IndexKind) -> &'static str {
    match kind {
        IndexKind::Auto | IndexKind::None | IndexKind::IvfPq => "IVF_PQ",
        IndexKind::IvfFlat => "IVF_FLAT",
        IndexKind::IvfSq => "IVF_SQ",
        IndexKind::IvfRq => "IVF_RQ",
        IndexKind::IvfHnswSq => "IVF_HNSW_SQ",
        IndexKind::IvfHnswPq => "IVF_HNSW_PQ",
    }
}

fn distance(metric: Metric) -> DistanceType {
    match metric {
        Metric::Cosine => DistanceType::Cosine,
        Metric::L2 => DistanceType::L2,
        Metric::Dot => DistanceType::Dot,
    }
}

/// The name of the vector index, existing or to be built.
async fn index_name(uri: &str, dataset: &Dataset) -> Result<&'static str, SinkError> {
    let [first, second] = INDEX_NAMES;
    let found = dataset.load_indices_by_name(first).await.map_err(SinkError::storage(uri, "reading the index"))?;
    let vectors = dataset.schema().field(EMBEDDING).map(|field| field.id);
    let of_vectors = |fields: &[i32]| matches!((fields, vectors), ([field], Some(id)) if *field == id);
    Ok(if found.iter().all(|index| of_vectors(&index.fields)) { first } else { second })
}

/// The index that a table has.
#[derive(Debug)]
struct ExistingIndex {
    kind: String,
    metric: String,
    indexed: u64,
    unindexed: u64,
    /// Rows of each partition, summed over all pieces.
    sizes: Vec<u64>,
}

impl ExistingIndex {
    async fn read(uri: &str, dataset: &Dataset) -> Result<Option<Self>, SinkError> {
        let reading = |error| SinkError::storage(uri, "reading the index")(error);
        let name = index_name(uri, dataset).await?;
        if dataset.load_indices_by_name(name).await.map_err(reading)?.is_empty() {
            return Ok(None);
        }
        let json = Box::pin(dataset.index_statistics(name)).await.map_err(reading)?;
        let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Some(Self {
            kind: text(&statistics["index_type"]),
            metric: text(&statistics["indices"][0]["metric_type"]),
            indexed: statistics["num_indexed_rows"].as_u64().unwrap_or_default(),
            unindexed: statistics["num_unindexed_rows"].as_u64().unwrap_or_default(),
            sizes: partition_sizes(&statistics),
        }))
    }

    /// The kind and metric with which it can be rebuilt.
    fn kind_and_metric(&self) -> Option<(IndexKind, Metric)> {
        let kind = BUILDABLE_KINDS.into_iter().find(|kind| self.kind.eq_ignore_ascii_case(lance_name(*kind)))?;
        let metrics = [Metric::Cosine, Metric::L2, Metric::Dot];
        let is_metric = |metric: &Metric| self.metric.eq_ignore_ascii_case(&distance(*metric).to_string());
        Some((kind, metrics.into_iter().find(is_metric)?))
    }

    /// Whether this index is the wanted one; with `auto` any kind with the same metric is.
    fn serves(&self, kind: IndexKind, spec: &IndexSpec) -> bool {
        let kind = spec.kind == IndexKind::Auto || self.kind.eq_ignore_ascii_case(lance_name(kind));
        kind && self.metric.eq_ignore_ascii_case(&distance(spec.metric).to_string())
    }
}

async fn build(uri: &str, dataset: &mut Dataset, kind: IndexKind, metric: Metric) -> Result<IndexAction, SinkError> {
    let parameters = parameters(dataset, kind, metric);
    let name = index_name(uri, dataset).await?.to_owned();
    Box::pin(dataset.create_index(&[EMBEDDING], IndexType::Vector, Some(name), &parameters, true))
        .await
        .map_err(SinkError::storage(uri, "building the index"))?;
    Ok(IndexAction::Built)
}

fn parameters(dataset: &Dataset, kind: IndexKind, metric: Metric) -> VectorIndexParams {
    let (metric, ivf) = (distance(metric), IvfBuildParams::default());
    match kind {
        IndexKind::IvfFlat => VectorIndexParams::with_ivf_flat_params(metric, ivf),
        IndexKind::IvfSq => VectorIndexParams::with_ivf_sq_params(metric, ivf, SQBuildParams::default()),
        IndexKind::IvfRq => {
            VectorIndexParams::with_ivf_rq_params(metric, ivf, RQBuildParams::new(RABITQ_BITS_PER_DIMENSION))
        }
        IndexKind::IvfHnswPq => {
            let pq = PQBuildParams::new(sub_vectors(dimensions(dataset)), 8);
            VectorIndexParams::with_ivf_hnsw_pq_params(metric, ivf, HnswBuildParams::default(), pq)
        }
        IndexKind::IvfHnswSq => {
            let (hnsw, sq) = (HnswBuildParams::default(), SQBuildParams::default());
            VectorIndexParams::with_ivf_hnsw_sq_params(metric, ivf, hnsw, sq)
        }
        IndexKind::IvfPq | IndexKind::Auto | IndexKind::None => {
            let pq = PQBuildParams::new(sub_vectors(dimensions(dataset)), 8);
            VectorIndexParams::with_ivf_pq_params(metric, ivf, pq)
        }
    }
}

pub(crate) fn dimensions(dataset: &Dataset) -> usize {
    let field = dataset.schema().field(EMBEDDING);
    match field.map(lance_core::datatypes::Field::data_type) {
        Some(arrow::datatypes::DataType::FixedSizeList(_, dim)) => dim.max(1) as usize,
        _ => 1,
    }
}

/// The number of codes: one per eight dimensions, or per fewer when eight does not divide them.
fn sub_vectors(dim: usize) -> usize {
    let width = [8, 4, 2].into_iter().find(|width| dim.is_multiple_of(*width)).unwrap_or(1);
    dim / width
}

async fn extend(uri: &str, dataset: &mut Dataset) -> Result<IndexAction, SinkError> {
    let before = ExistingIndex::read(uri, dataset).await?;
    if before.is_some_and(|index| index.unindexed == 0) {
        return Ok(IndexAction::Unchanged);
    }
    let options = OptimizeOptions::new().index_names(vec![index_name(uri, dataset).await?.to_owned()]);
    Box::pin(dataset.optimize_indices(&options)).await.map_err(SinkError::storage(uri, "extending the index"))?;
    Ok(IndexAction::Extended)
}

async fn outcome(uri: &str, dataset: &Dataset, action: IndexAction, rows: u64) -> Result<IndexOutcome, SinkError> {
    let version = dataset.version_id();
    Ok(match ExistingIndex::read(uri, dataset).await? {
        Some(ExistingIndex { kind, indexed, unindexed, sizes, .. }) => {
            let retrain = Staleness::detect(&sizes, &kind);
            IndexOutcome {
                action,
                kind: Some(kind),
                indexed_rows: indexed,
                unindexed_rows: unindexed,
                retrain,
                version,
            }
        }
        None => IndexOutcome { action, kind: None, indexed_rows: 0, unindexed_rows: rows, retrain: None, version },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_vectors_divide_the_dimensions() {
        assert_eq!([384, 1024, 12, 6, 7].map(sub_vectors), [48, 128, 3, 3, 7]);
    }

    #[test]
    fn automatic_index_starts_at_the_minimum_of_rows() {
        let spec = IndexSpec::default();
        assert_eq!(spec.wanted(19_999), WantedIndex::Nothing);
        assert_eq!(spec.wanted(20_000), WantedIndex::Kind(IndexKind::IvfPq));
        assert_eq!(IndexSpec { kind: IndexKind::IvfSq, ..spec }.wanted(1), WantedIndex::Kind(IndexKind::IvfSq));
    }
}
