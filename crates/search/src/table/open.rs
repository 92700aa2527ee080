//! Opening a table for reading.

use std::sync::Arc;

use lance::{
    Dataset,
    dataset::{DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, builder::DatasetBuilder},
    session::Session,
};
use polylance_schema::Contract;

use crate::SearchError;

/// The latest version of the table at `uri`. On the hub it is that of the present commit.
pub(crate) async fn open(uri: &str) -> Result<Dataset, SearchError> {
    match Box::pin(builder(uri).await?.load()).await {
        Ok(dataset) => Ok(dataset),
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => {
            Err(SearchError::NoTable { uri: uri.to_owned() })
        }
        Err(error) => Err(SearchError::storage(uri, "opening the table")(error)),
    }
}

/// Whether the table at `uri` still has this version, rather than a version of another table in its place.
pub(super) async fn has_version(uri: &str, version: &Dataset) -> Result<bool, SearchError> {
    match Box::pin(builder(uri).await?.with_version(version.version_id()).load()).await {
        Ok(found) => Ok(found.manifest_location().e_tag == version.manifest_location().e_tag),
        Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. }) => Ok(false),
        Err(error) => Err(SearchError::storage(uri, "looking for a version")(error)),
    }
}

async fn builder(uri: &str) -> Result<DatasetBuilder, SearchError> {
    let builder = DatasetBuilder::from_uri(uri);
    Ok(match polylance_hub::table_stores(uri).await? {
        Some(stores) => {
            let session = Session::new(DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, stores);
            builder.with_session(Arc::new(session))
        }
        None => builder,
    })
}

/// The contract of the table at `uri`: it names the model that a search needs.
///
/// # Errors
/// [`SearchError::NoTable`], [`SearchError::NoContract`], [`SearchError::UnreadableContract`].
pub async fn table_contract(uri: &str) -> Result<Contract, SearchError> {
    contract(uri, &open(uri).await?)?.ok_or_else(|| SearchError::NoContract { uri: uri.to_owned() })
}

/// The contract in a table's metadata; `None` when polylance did not make the table.
pub(crate) fn contract(uri: &str, dataset: &Dataset) -> Result<Option<Contract>, SearchError> {
    Contract::from_metadata(&dataset.schema().metadata)
        .map_err(|source| SearchError::UnreadableContract { uri: uri.to_owned(), source })
}
