//! A table opened for searching.

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::Schema};
use lance::{Dataset, index::DatasetIndexExt};
use lance_index::is_system_index;
use lance_linalg::distance::DistanceType;
use polylance_schema::{
    Contract,
    columns::{CHUNK, CONTENT_HASH, DOC_ID, EMBEDDING, TEXT},
    search::{EF, NPROBES, REFINE},
};

use crate::{Effort, SearchError, filter, hits::PLACES, open, words};

/// One version of a table, with what searches need already read: a search itself opens nothing.
#[derive(Debug, Clone)]
pub struct SearchTable {
    uri: String,
    dataset: Arc<Dataset>,
    contract: Option<Contract>,
    metric: Option<DistanceType>,
    text_index: bool,
    folded_words: bool,
    tuned: Effort,
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
        let metric = index_metric(&dataset).await.map_err(reading)?;
        let text_index = is_indexed(&dataset, TEXT).await.map_err(reading)?;
        let folded_words = words::are_folded(&dataset).await.map_err(reading)?;
        let tuned = tuned(&dataset);
        Ok(Self { uri: uri.to_owned(), dataset: Arc::new(dataset), contract, metric, text_index, folded_words, tuned })
    }

    /// The latest version, when it is another than this.
    ///
    /// # Errors
    /// As [`SearchTable::open`].
    pub async fn newer(&self) -> Result<Option<Self>, SearchError> {
        let opening = |error| SearchError::storage(&self.uri, "looking for a newer version")(error);
        let latest = Box::pin(self.dataset.latest_version_id()).await.map_err(opening)?;
        if latest == self.version() {
            return Ok(None);
        }
        // A copy of the handle keeps the session, and with it what is cached of files and indices that stay.
        let mut dataset = Dataset::clone(&self.dataset);
        Box::pin(dataset.checkout_latest()).await.map_err(opening)?;
        Ok(Some(Self::of(&self.uri, dataset).await?))
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
        if let Some(condition) = condition {
            filter::check(&self.dataset, condition).await?;
        }
        let counted = Box::pin(self.dataset.count_rows(condition.map(str::to_owned))).await;
        Ok(counted.map_err(SearchError::storage(&self.uri, "counting rows"))? as u64)
    }

    /// The chunks of a document in order, with the columns of a hit; none when there is no such document.
    ///
    /// # Errors
    /// [`SearchError::Storage`].
    pub async fn document(&self, doc_id: &str) -> Result<RecordBatch, SearchError> {
        let reading = |error| SearchError::storage(&self.uri, "reading a document")(error);
        let mut scanner = self.dataset.scan();
        scanner.filter(&filter::equals(DOC_ID, doc_id)).map_err(reading)?;
        scanner.project(&self.hit_columns()).map_err(reading)?;
        let chunks = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
        let Some(order) = chunks.column_by_name(CHUNK) else { return Ok(chunks) };
        let order = arrow::compute::sort_to_indices(order, None, None).map_err(|error| reading(error.into()))?;
        arrow::compute::take_record_batch(&chunks, &order).map_err(|error| reading(error.into()))
    }

    pub(crate) fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    pub(crate) fn needed_contract(&self) -> Result<&Contract, SearchError> {
        self.contract.as_ref().ok_or_else(|| SearchError::NoContract { uri: self.uri.clone() })
    }

    /// The metric of the index on the vectors; `None` without an index.
    pub(crate) fn metric(&self) -> Option<DistanceType> {
        self.metric
    }

    pub(crate) fn tuned(&self) -> Effort {
        self.tuned
    }

    /// What a hit can show of its row: all columns but the vector, the hash and those named as what a search adds.
    pub(crate) fn hit_columns(&self) -> Vec<String> {
        let fields = self.dataset.schema().fields.iter().map(|field| field.name.clone());
        let hidden = |name: &str| [EMBEDDING, CONTENT_HASH].contains(&name) || PLACES.contains(&name);
        fields.filter(|name| !hidden(name)).collect()
    }
}

async fn index_metric(dataset: &Dataset) -> lance::Result<Option<DistanceType>> {
    let Some(field) = dataset.schema().field(EMBEDDING) else { return Ok(None) };
    let indices = dataset.load_indices().await?;
    let Some(index) = indices.iter().find(|index| index.fields.contains(&field.id)) else { return Ok(None) };
    let json = Box::pin(dataset.index_statistics(&index.name)).await?;
    let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
    let metric = statistics["indices"][0]["metric_type"].as_str();
    Ok(metric.and_then(|metric| DistanceType::try_from(metric).ok()))
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
