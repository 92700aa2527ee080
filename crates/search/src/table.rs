//! A table opened for searching.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use datafusion::logical_expr::Expr;
use lance::{Dataset, dataset::scanner::Scanner, index::DatasetIndexExt};
use lance_index::is_system_index;
use lance_linalg::distance::DistanceType;
use polylance_schema::{
    Contract,
    columns::{CHUNK, CONTENT_HASH, DOC_ID, EMBEDDING, TEXT},
    search::{EF, NPROBES, REFINE},
};

use crate::{Effort, Query, SearchError, SearchMode, SearchRequest, filter, hits::SCORES, open, words};

/// Rows that are computed with at once where a computation must end soon.
pub(crate) const LIMITED_ROWS: usize = 1024;

/// One version of a table, with what searches need already read: a search itself opens nothing.
#[derive(Debug, Clone)]
pub struct SearchTable {
    uri: String,
    dataset: Arc<Dataset>,
    contract: Option<Contract>,
    index: Option<VectorIndex>,
    text_index: bool,
    folded_words: bool,
    tuned: Effort,
    limited: bool,
}

impl SearchTable {
    /// Opens the latest version of the table at `uri`.
    ///
    /// # Errors
    /// [`SearchError::NoTable`], [`SearchError::UnreadableContract`], [`SearchError::Storage`].
    pub async fn open(uri: &str) -> Result<Self, SearchError> {
        let dataset = open::open(uri).await?;
        Self::of(uri, dataset).await
    }

    async fn of(uri: &str, dataset: Dataset) -> Result<Self, SearchError> {
        let contract = open::contract(uri, &dataset)?;
        let reading = |error| SearchError::storage(uri, "reading the indices")(error);
        let index = vector_index(&dataset).await.map_err(reading)?;
        let text_index = is_indexed(&dataset, TEXT).await.map_err(reading)?;
        let folded_words = words::are_folded(&dataset).await.map_err(reading)?;
        let tuned = tuned(&dataset);
        Ok(Self {
            uri: uri.to_owned(),
            dataset: Arc::new(dataset),
            contract,
            index,
            text_index,
            folded_words,
            tuned,
            limited: false,
        })
    }

    /// The same table for requests of others: a condition calls only functions that neither take long nor make large
    /// values, and rows are read a few at a time, so that a search ends soon after its request.
    #[must_use]
    pub fn limited(self) -> Self {
        Self { limited: true, ..self }
    }

    /// The latest version, when it is another than this: a later one, or one of a table that took the place of this.
    ///
    /// # Errors
    /// As [`SearchTable::open`]; [`SearchError::NoTable`] when the table is gone.
    pub async fn newer(&self) -> Result<Option<Self>, SearchError> {
        let mut latest = Dataset::clone(&self.dataset);
        match Box::pin(latest.checkout_latest()).await {
            Ok(()) => {}
            Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
                return Err(SearchError::NoTable { uri: self.uri.clone() });
            }
            Err(error) => return Err(SearchError::storage(&self.uri, "looking for a newer version")(error)),
        }
        if is_same(&latest, &self.dataset) {
            return Ok(None);
        }
        // A copy of the handle keeps the session, and with it what is cached of files and indices that stay. Of another
        // table nothing stays, though its versions may have the same numbers.
        let is_other = latest.version_id() <= self.version() || !open::has_version(&self.uri, &self.dataset).await?;
        let newer = if is_other { Self::open(&self.uri).await? } else { Self::of(&self.uri, latest).await? };
        Ok(Some(Self { limited: self.limited, ..newer }))
    }

    /// The address.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The version that is searched.
    pub fn version(&self) -> u64 {
        self.dataset.version_id()
    }

    /// How the vectors were made; `None` when polylance did not make the table.
    pub fn contract(&self) -> Option<&Contract> {
        self.contract.as_ref()
    }

    /// The columns.
    pub fn schema(&self) -> Schema {
        Schema::from(self.dataset.schema())
    }

    /// Whether the text can be searched by words.
    pub fn has_text_index(&self) -> bool {
        self.text_index
    }

    /// Whether the index of words is not one that [`polylance_schema::words::fold`] folded the text for: it is searched
    /// as it is, and finds fewer words until it is built anew.
    pub fn has_older_words(&self) -> bool {
        self.text_index && !self.folded_words
    }

    /// Rows, or those that fulfil a condition.
    ///
    /// # Errors
    /// [`SearchError::Filter`], [`SearchError::Storage`].
    pub async fn count_rows(&self, condition: Option<&str>) -> Result<u64, SearchError> {
        let counting = |error| SearchError::storage(&self.uri, "counting rows")(error);
        let Some(condition) = condition else {
            return Ok(Box::pin(self.dataset.count_rows(None)).await.map_err(counting)? as u64);
        };
        let mut scanner = self.scan();
        scanner.filter_expr(self.plan_condition(condition)?);
        scanner.project::<&str>(&[]).map_err(counting)?.with_row_id();
        Box::pin(scanner.count_rows()).await.map_err(counting)
    }

    /// The condition as an expression on the table's columns. Of a limited table it calls only functions that neither take
    /// long nor make large values.
    ///
    /// # Errors
    /// [`SearchError::Filter`]; [`SearchError::NotAllowed`] for a function that a limited table does not call.
    pub fn plan_condition(&self, condition: &str) -> Result<Expr, SearchError> {
        filter::plan(condition, &self.schema(), self.limited)
    }

    /// The chunks of a document in order, with the columns of a hit; none when there is no such document.
    ///
    /// # Errors
    /// [`SearchError::Column`] when the table's documents have no names, [`SearchError::Storage`].
    pub async fn document(&self, doc_id: &str) -> Result<RecordBatch, SearchError> {
        let reading = |error| SearchError::storage(&self.uri, "reading a document")(error);
        if !self.dataset.schema().field(DOC_ID).is_some_and(|field| is_text(&field.data_type())) {
            return Err(SearchError::Column(format!("the table has no column `{DOC_ID}` of texts")));
        }
        let mut scanner = self.dataset.scan();
        scanner.filter_expr(filter::typed(filter::equals(DOC_ID, doc_id), &self.schema())?);
        scanner.project(&self.hit_columns()).map_err(reading)?;
        let chunks = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
        let Some(order) = chunks.column_by_name(CHUNK) else { return Ok(chunks) };
        let order = arrow::compute::sort_to_indices(order, None, None).map_err(|error| reading(error.into()))?;
        arrow::compute::take_record_batch(&chunks, &order).map_err(|error| reading(error.into()))
    }

    /// Refuses what needs columns that the table lacks, or has with other types: others write tables as they like.
    pub(crate) fn check_columns(&self, request: &SearchRequest, mode: SearchMode) -> Result<(), SearchError> {
        let schema = self.dataset.schema();
        let check = |name: &str, fits: fn(&DataType) -> bool, kind: &str| match schema.field(name) {
            Some(field) if fits(&field.data_type()) => Ok(()),
            Some(field) => Err(SearchError::Column(format!(
                "the column `{name}` is {}, and has to be {kind} for this search",
                field.data_type()
            ))),
            None => Err(SearchError::Column(format!("the table has no column `{name}`, which this search needs"))),
        };
        let is_text = |data_type: &DataType| *data_type == DataType::Utf8;
        if request.by_document || matches!(request.query, Query::Like { .. }) {
            check(DOC_ID, is_text, "Utf8")?;
        }
        if matches!(request.query, Query::Like { .. }) {
            check(CHUNK, DataType::is_integer, "a whole number")?;
        }
        if request.rerank {
            check(TEXT, is_text, "Utf8")?;
        }
        if mode != SearchMode::Text && self.contract.is_some() {
            check(EMBEDDING, is_vector, "a list of Float32 of one length")?;
        }
        Ok(())
    }

    pub(crate) fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// Whether the manifest names other folders to read data files from, which a table that polylance writes never does.
    pub fn reads_elsewhere(&self) -> bool {
        !self.dataset.manifest().base_paths.is_empty()
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// Reads the table, a few rows at a time where it is limited.
    pub(crate) fn scan(&self) -> Scanner {
        let mut scanner = self.dataset.scan();
        if self.limited {
            scanner.batch_size(LIMITED_ROWS);
        }
        scanner
    }

    pub(crate) fn needed_contract(&self) -> Result<&Contract, SearchError> {
        self.contract.as_ref().ok_or_else(|| SearchError::NoContract { uri: self.uri.clone() })
    }

    /// The metric of the index on the vectors; `None` without an index.
    pub(crate) fn metric(&self) -> Option<DistanceType> {
        self.index.map(|index| index.metric)
    }

    /// Whether a search of the index, or without one, finds as many rows as there are.
    pub(crate) fn is_index_exhaustive(&self) -> bool {
        self.index.is_none_or(|index| !index.is_graph)
    }

    pub(crate) fn tuned(&self) -> Effort {
        self.tuned
    }

    /// What a hit can show of its row: all columns but the vector, the hash and those named as what a search adds.
    pub(crate) fn hit_columns(&self) -> Vec<String> {
        let fields = self.dataset.schema().fields.iter().map(|field| field.name.clone());
        let hidden = |name: &str| [EMBEDDING, CONTENT_HASH].contains(&name) || SCORES.contains(&name);
        fields.filter(|name| !hidden(name)).collect()
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_vector(data_type: &DataType) -> bool {
    matches!(data_type, DataType::FixedSizeList(item, _) if *item.data_type() == DataType::Float32)
}

/// Whether these are one version of one table. The tag of a manifest tells it from another with its name.
fn is_same(one: &Dataset, other: &Dataset) -> bool {
    let (one, other) = (one.manifest_location(), other.manifest_location());
    one.version == other.version && one.path == other.path && one.e_tag == other.e_tag
}

/// The index on the vectors.
#[derive(Debug, Clone, Copy)]
struct VectorIndex {
    metric: DistanceType,
    /// A walk of a graph may end before it has seen every row.
    is_graph: bool,
}

async fn vector_index(dataset: &Dataset) -> lance::Result<Option<VectorIndex>> {
    let Some(field) = dataset.schema().field(EMBEDDING) else { return Ok(None) };
    let indices = dataset.load_indices().await?;
    let Some(index) = indices.iter().find(|index| index.fields.contains(&field.id)) else { return Ok(None) };
    let json = Box::pin(dataset.index_statistics(&index.name)).await?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let metric = statistics["indices"][0]["metric_type"].as_str();
    let is_graph = statistics["index_type"].as_str().is_some_and(|kind| kind.contains("HNSW"));
    Ok(metric.and_then(|metric| DistanceType::try_from(metric).ok()).map(|metric| VectorIndex { metric, is_graph }))
}

async fn is_indexed(dataset: &Dataset, column: &str) -> lance::Result<bool> {
    let Some(field) = dataset.schema().field(column) else { return Ok(false) };
    let indices = dataset.load_indices().await?;
    Ok(indices.iter().any(|index| !is_system_index(index) && index.fields.contains(&field.id)))
}

/// What `polylance index tune` wrote into the table.
fn tuned(dataset: &Dataset) -> Effort {
    let config = dataset.config();
    let number = |key: &str| config.get(key).and_then(|value| value.parse().ok());
    Effort { nprobes: number(NPROBES), refine: config.get(REFINE).and_then(|value| value.parse().ok()), ef: number(EF) }
}
