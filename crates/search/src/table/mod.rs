//! A table opened for reading and searching.

mod indices;
mod open;

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Schema},
};
use datafusion::logical_expr::Expr;
use lance::{Dataset, dataset::scanner::Scanner};
use lance_linalg::distance::DistanceType;
use polylance_schema::{
    Contract,
    columns::{CHUNK, CONTENT_HASH, DOC_ID, EMBEDDING, TEXT},
    search::{EF, NPROBES, REFINE},
};

pub use open::table_contract;
pub(crate) use open::{contract, open};

use crate::{ColumnError, Effort, Query, SearchError, SearchMode, SearchRequest, filter, scores::SCORE_COLUMNS};
use indices::VectorIndex;

/// Rows in a batch of a limited table: a computation can be stopped between two batches.
pub(crate) const LIMITED_BATCH_ROWS: usize = 1024;

/// One version of a table, opened with its contract and indices: a search itself opens nothing.
///
/// Each larger method is in the file of its name: [`SearchTable::search`] in `search/mod.rs`, [`SearchTable::tune`] in
/// `tune.rs`, [`SearchTable::history`] in `history.rs`.
#[derive(Debug, Clone)]
pub struct SearchTable {
    uri: String,
    dataset: Arc<Dataset>,
    contract: Option<Contract>,
    index: Option<VectorIndex>,
    has_text_index: bool,
    is_text_index_folded: bool,
    tuned: Effort,
    limited: bool,
}

impl SearchTable {
    /// Opens the latest version of the table at `uri`.
    ///
    /// # Errors
    /// [`SearchError::NoTable`], [`SearchError::UnreadableContract`], [`SearchError::Storage`].
    pub async fn open(uri: &str) -> Result<Self, SearchError> {
        let dataset = open(uri).await?;
        Self::from_dataset(uri, dataset).await
    }

    async fn from_dataset(uri: &str, dataset: Dataset) -> Result<Self, SearchError> {
        let contract = contract(uri, &dataset)?;
        let reading = |error| SearchError::storage(uri, "reading the indices")(error);
        let index = indices::vector_index(&dataset).await.map_err(reading)?;
        let has_text_index = indices::has_text_index(&dataset).await.map_err(reading)?;
        let is_text_index_folded = indices::is_text_index_folded(&dataset).await.map_err(reading)?;
        let tuned = tuned_effort(&dataset);
        Ok(Self {
            uri: uri.to_owned(),
            dataset: Arc::new(dataset),
            contract,
            index,
            has_text_index,
            is_text_index_folded,
            tuned,
            limited: false,
        })
    }

    /// The same table for untrusted requests: a condition calls only functions that neither take long nor make large
    /// values, and rows are read in small batches, so that a search ends soon after its request.
    #[must_use]
    pub fn limited(self) -> Self {
        Self { limited: true, ..self }
    }

    /// The latest version, unless it is this one: a later version, or a version of a table that replaced this one.
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
        // A copy of the handle keeps the session and with it the cached files and indices. Another table shares none of
        // them, though its versions may have the same numbers.
        let is_other = latest.version_id() <= self.version() || !open::has_version(&self.uri, &self.dataset).await?;
        let newer = if is_other { Self::open(&self.uri).await? } else { Self::from_dataset(&self.uri, latest).await? };
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

    /// Whether full-text search is possible.
    pub fn has_text_index(&self) -> bool {
        self.has_text_index
    }

    /// Whether the full-text index was built before [`polylance_schema::full_text::fold`] folded the text: it is searched
    /// as it is, and finds fewer words until it is rebuilt.
    pub fn has_unfolded_text_index(&self) -> bool {
        self.has_text_index && !self.is_text_index_folded
    }

    /// The number of rows, or of rows that match a condition.
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

    /// The condition as an expression on the table's columns. For a limited table it calls only functions that neither
    /// take long nor make large values.
    ///
    /// # Errors
    /// [`SearchError::Filter`]; [`SearchError::NotAllowed`] for a function that a limited table does not call.
    pub fn plan_condition(&self, condition: &str) -> Result<Expr, SearchError> {
        filter::plan(condition, &self.schema(), self.limited)
    }

    /// The chunks of a document in order, with the columns of a hit; no rows when there is no such document.
    ///
    /// # Errors
    /// [`SearchError::Column`] when the table has no `doc_id` of texts, [`SearchError::Storage`].
    pub async fn document(&self, doc_id: &str) -> Result<RecordBatch, SearchError> {
        let reading = |error| SearchError::storage(&self.uri, "reading a document")(error);
        self.check_column(DOC_ID, is_text, "a text")?;
        let mut scanner = self.dataset.scan();
        scanner.filter_expr(filter::typed(filter::equals(DOC_ID, doc_id), &self.schema())?);
        scanner.project(&self.hit_columns()).map_err(reading)?;
        let chunks = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
        let Some(order) = chunks.column_by_name(CHUNK) else { return Ok(chunks) };
        let order = arrow::compute::sort_to_indices(order, None, None).map_err(|error| reading(error.into()))?;
        arrow::compute::take_record_batch(&chunks, &order).map_err(|error| reading(error.into()))
    }

    /// Checks that the table has the columns that a request needs, with the types that it needs: other programs write
    /// tables with columns of their own.
    pub(crate) fn check_columns(&self, request: &SearchRequest, mode: SearchMode) -> Result<(), SearchError> {
        let is_utf8 = |data_type: &DataType| *data_type == DataType::Utf8;
        if request.by_document || matches!(request.query, Query::Like { .. }) {
            self.check_column(DOC_ID, is_utf8, "Utf8")?;
        }
        if matches!(request.query, Query::Like { .. }) {
            self.check_column(CHUNK, DataType::is_integer, "an integer")?;
        }
        if request.rerank {
            self.check_column(TEXT, is_utf8, "Utf8")?;
        }
        if mode != SearchMode::Text && self.contract.is_some() {
            self.check_column(EMBEDDING, is_vector, "a fixed-size list of Float32")?;
        }
        Ok(())
    }

    fn check_column(
        &self,
        column: &str,
        fits: fn(&DataType) -> bool,
        expected: &'static str,
    ) -> Result<(), ColumnError> {
        let column = column.to_owned();
        match self.dataset.schema().field(&column) {
            Some(field) if fits(&field.data_type()) => Ok(()),
            Some(field) => Err(ColumnError::WrongType { column, found: field.data_type().to_string(), expected }),
            None => Err(ColumnError::Missing { column }),
        }
    }

    pub(crate) fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// Whether the manifest names data files in other folders. A table that polylance writes never does.
    pub fn reads_elsewhere(&self) -> bool {
        !self.dataset.manifest().base_paths.is_empty()
    }

    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// A scan of the table, in small batches where it is limited.
    pub(crate) fn scan(&self) -> Scanner {
        let mut scanner = self.dataset.scan();
        if self.limited {
            scanner.batch_size(LIMITED_BATCH_ROWS);
        }
        scanner
    }

    /// The contract, for requests that cannot do without one.
    pub(crate) fn required_contract(&self) -> Result<&Contract, SearchError> {
        self.contract.as_ref().ok_or_else(|| SearchError::NoContract { uri: self.uri.clone() })
    }

    /// The metric of the index on the vectors; `None` without an index.
    pub(crate) fn metric(&self) -> Option<DistanceType> {
        self.index.map(|index| index.metric)
    }

    /// Whether a vector search always finds `k` rows where there are that many; the walk of a graph may end before.
    pub(crate) fn is_index_exhaustive(&self) -> bool {
        self.index.is_none_or(|index| !index.is_graph)
    }

    /// The effort that `polylance index tune` stored in the table.
    pub(crate) fn tuned(&self) -> Effort {
        self.tuned
    }

    /// The columns of a row that a hit can show: all but the vector, the hash, and those with the name of a score.
    pub(crate) fn hit_columns(&self) -> Vec<String> {
        let fields = self.dataset.schema().fields.iter().map(|field| field.name.clone());
        let hidden = |name: &str| [EMBEDDING, CONTENT_HASH].contains(&name) || SCORE_COLUMNS.contains(&name);
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

/// Whether these are one version of one table. The tag distinguishes manifests of one name.
fn is_same(one: &Dataset, other: &Dataset) -> bool {
    let (one, other) = (one.manifest_location(), other.manifest_location());
    one.version == other.version && one.path == other.path && one.e_tag == other.e_tag
}

/// The effort in the table's configuration.
fn tuned_effort(dataset: &Dataset) -> Effort {
    let config = dataset.config();
    let number = |key: &str| config.get(key).and_then(|value| value.parse().ok());
    Effort { nprobes: number(NPROBES), refine: config.get(REFINE).and_then(|value| value.parse().ok()), ef: number(EF) }
}
