//! A description of a table, for people and for scripts.

use arrow::datatypes::Schema;
use lance::{
    Dataset,
    dataset::{Version, transaction::Operation},
    index::DatasetIndexExt,
};
use polylance_schema::Contract;
use serde::Serialize;

use crate::{SearchError, table};

/// Maximum number of versions that are described one by one: each costs a read.
const MAX_RECENT_VERSIONS: usize = 20;

/// The transaction property that holds the run's id; `polylance_sink::properties::RUN_ID` writes it.
const RUN_ID_PROPERTY: &str = "polylance.run_id";

/// The output of `polylance show`.
#[derive(Debug, Clone, Serialize)]
pub struct TableDescription {
    /// The address.
    pub uri: String,
    /// The number of rows of the latest version.
    pub rows: u64,
    /// The latest version.
    pub version: u64,
    /// The number of versions that can be read.
    pub versions: usize,
    /// The latest of them, newest first.
    pub recent_versions: Vec<VersionDescription>,
    /// The columns.
    pub schema: Vec<ColumnDescription>,
    /// The indices.
    pub indices: Vec<IndexDescription>,
    /// How the vectors were made; `None` when polylance did not make the table.
    pub contract: Option<Contract>,
    /// The number of rows in the table's quarantine.
    pub quarantine_rows: u64,
}

/// A version of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionDescription {
    /// Its number.
    pub version: u64,
    /// When it was committed, RFC 3339, UTC.
    pub time: String,
    /// The number of its rows.
    pub rows: Option<u64>,
    /// The operation of the commit: `Append`, `Update`, `CreateIndex`, …
    pub operation: Option<String>,
    /// The run that committed it.
    pub run_id: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ColumnDescription {
    /// Its name.
    pub name: String,
    /// Its Arrow type.
    #[serde(rename = "type")]
    pub data_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// An index of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexDescription {
    /// Its name.
    pub name: String,
    /// The column it is on.
    pub column: String,
    /// Lance's name of its kind, such as `IVF_PQ`.
    pub kind: String,
    /// The metric of a vector index.
    pub metric: Option<String>,
    /// The number of rows that it covers.
    pub indexed_rows: u64,
    /// The number of rows that it does not cover: searches compare them one by one.
    pub unindexed_rows: u64,
}

/// Describes the table at `uri`.
///
/// # Errors
/// [`SearchError::NoTable`], [`SearchError::UnreadableContract`], [`SearchError::Storage`].
pub async fn describe(uri: &str) -> Result<TableDescription, SearchError> {
    let dataset = table::open(uri).await?;
    let versions = versions(uri, &dataset).await?;
    let recent_versions = describe_latest(&dataset, &versions, MAX_RECENT_VERSIONS).await;
    let schema = Schema::from(dataset.schema());
    Ok(TableDescription {
        uri: uri.to_owned(),
        rows: count_rows(uri, &dataset).await?,
        version: dataset.version_id(),
        versions: versions.len(),
        recent_versions,
        schema: schema
            .fields()
            .iter()
            .map(|field| ColumnDescription {
                name: field.name().clone(),
                data_type: field.data_type().to_string(),
                nullable: field.is_nullable(),
            })
            .collect(),
        indices: describe_indices(uri, &dataset).await?,
        contract: table::contract(uri, &dataset)?,
        quarantine_rows: quarantine_rows(uri).await?,
    })
}

async fn count_rows(uri: &str, dataset: &Dataset) -> Result<u64, SearchError> {
    let rows = Box::pin(dataset.count_rows(None)).await.map_err(SearchError::storage(uri, "counting rows"))?;
    Ok(rows as u64)
}

/// The versions that can be read, oldest first.
pub(crate) async fn versions(uri: &str, dataset: &Dataset) -> Result<Vec<Version>, SearchError> {
    Box::pin(dataset.versions()).await.map_err(SearchError::storage(uri, "listing versions"))
}

/// The latest `max` of a table's versions, newest first.
pub(crate) async fn describe_latest(dataset: &Dataset, versions: &[Version], max: usize) -> Vec<VersionDescription> {
    let mut latest = Vec::new();
    for version in versions.iter().rev().take(max) {
        latest.push(describe_version(dataset, version).await);
    }
    latest
}

/// Describes a version. Without its transaction, which cleanup may have removed, the operation and the run stay unknown.
async fn describe_version(dataset: &Dataset, version: &Version) -> VersionDescription {
    let record = Box::pin(dataset.read_version_transaction(version.version)).await;
    let transaction = record.ok().and_then(|record| record.transaction);
    let properties = transaction.as_ref().and_then(|t| t.transaction_properties.clone());
    VersionDescription {
        version: version.version,
        time: version.timestamp.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        rows: version.metadata.get("total_rows").and_then(|rows| rows.parse().ok()),
        operation: transaction.as_ref().map(|t| operation_name(&t.operation).to_owned()),
        run_id: properties.and_then(|properties| properties.get(RUN_ID_PROPERTY).cloned()),
    }
}

/// The operation's name. The sink appends rows by an update that removes nothing, so that the commit carries their keys.
fn operation_name(operation: &Operation) -> &str {
    match operation {
        Operation::Update { updated_fragments, removed_fragment_ids, .. }
            if updated_fragments.is_empty() && removed_fragment_ids.is_empty() =>
        {
            "Append"
        }
        other => other.name(),
    }
}

async fn describe_indices(uri: &str, dataset: &Dataset) -> Result<Vec<IndexDescription>, SearchError> {
    let reading = |error| SearchError::storage(uri, "reading the indices")(error);
    let mut indices: Vec<IndexDescription> = Vec::new();
    for index in dataset.load_indices().await.map_err(reading)?.iter() {
        let column = index.fields.first().and_then(|id| dataset.schema().field_by_id(*id));
        let (Some(column), false) = (column, indices.iter().any(|known| known.name == index.name)) else { continue };
        let json = Box::pin(dataset.index_statistics(&index.name)).await.map_err(reading)?;
        let statistics: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        let number = |key: &str| statistics[key].as_u64().unwrap_or_default();
        indices.push(IndexDescription {
            name: index.name.clone(),
            column: column.name.clone(),
            kind: statistics["index_type"].as_str().unwrap_or_default().to_owned(),
            metric: statistics["indices"][0]["metric_type"].as_str().map(str::to_owned),
            indexed_rows: number("num_indexed_rows"),
            unindexed_rows: number("num_unindexed_rows"),
        });
    }
    Ok(indices)
}

/// The table's quarantine: a table next to it, with the name that the sink gives it.
pub(crate) async fn quarantine(uri: &str) -> Result<Option<Dataset>, SearchError> {
    let table = uri.trim_end_matches('/');
    let quarantine = format!("{}.quarantine.lance", table.strip_suffix(".lance").unwrap_or(table));
    match table::open(&quarantine).await {
        Ok(dataset) => Ok(Some(dataset)),
        Err(SearchError::NoTable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn quarantine_rows(uri: &str) -> Result<u64, SearchError> {
    match quarantine(uri).await? {
        Some(dataset) => count_rows(dataset.uri(), &dataset).await,
        None => Ok(0),
    }
}
