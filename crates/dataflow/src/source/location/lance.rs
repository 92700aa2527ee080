//! Lance tables as sources: one version, whose fragments are the files.
//!
//! A fragment never changes under its id, except for the rows that are deleted from it and the columns that are added
//! to it, and both show in its metadata. So a run over an unchanged table reads only the newest manifest, and after an
//! append only the new fragments.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures::FutureExt;
use lance::{
    Dataset,
    dataset::{DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, builder::DatasetBuilder},
    session::Session,
};
use object_store::path::Path;
use polylance_schema::columns::{CHUNK, DOC_ID};

use super::listing::{Listing, ListingBudget, Scope};
use crate::{
    error::{SourceError, TableKind},
    source::{
        file::{FileState, SourceFile},
        spec::{CONTENT_ID, DEFAULT_ID, ROW_ID, SourceSpec},
    },
};

/// The folder with the versions of a Lance table.
const VERSIONS: &str = "_versions";
/// The end of the name that a table in an object store must have.
const ENDING: &str = ".lance";

/// Whether a folder of this machine is a Lance table.
pub(super) async fn is_local(folder: &str) -> bool {
    tokio::fs::metadata(std::path::Path::new(folder).join(VERSIONS)).await.is_ok_and(|found| found.is_dir())
}

/// Whether an address in an object store is taken for that of a table, if one is there. Looking for the versions of
/// every other folder would cost a request.
pub(super) fn is_named_table(uri: &str) -> bool {
    uri.trim_end_matches('/').ends_with(ENDING)
}

/// The newest version of the table at `uri`, with a file for each fragment; `None` if there is no table. `address` is
/// the URI as messages may show it. The listing may take `memory` bytes.
pub(super) async fn find(uri: &str, address: &str, memory: u64) -> Result<Option<(Dataset, Listing)>, SourceError> {
    let (uri, address) = (uri.trim_end_matches('/'), address.trim_end_matches('/'));
    // Lance may panic over a damaged manifest.
    let mut builder = DatasetBuilder::from_uri(uri);
    if let Some(stores) = polylance_hub::table_stores(uri).await? {
        let session = Session::new(DEFAULT_INDEX_CACHE_SIZE, DEFAULT_METADATA_CACHE_SIZE, stores);
        builder = builder.with_session(Arc::new(session));
    }
    let loaded = AssertUnwindSafe(Box::pin(builder.load())).catch_unwind().await;
    let dataset = match loaded {
        Ok(Ok(dataset)) => dataset,
        Ok(Err(lance::Error::DatasetNotFound { .. } | lance::Error::NotFound { .. })) => return Ok(None),
        Ok(Err(error)) => {
            return Err(SourceError::Table {
                uri: address.to_owned(),
                kind: TableKind::Lance,
                source: Box::new(error),
            });
        }
        Err(_) => {
            let message = "its newest version is damaged";
            return Err(SourceError::Table { uri: address.to_owned(), kind: TableKind::Lance, source: message.into() });
        }
    };
    let prefix = format!("{address}#");
    let (columns, mut budget) = (columns_text(&dataset), ListingBudget::new(memory));
    let mut files = Vec::with_capacity(dataset.fragments().len());
    for fragment in dataset.fragments().iter() {
        let data = fragment.files.iter().map(|file| (&file.path, file.base_id, &file.fields));
        let deleted = fragment.deletion_file.as_ref().map(|deletions| (deletions.id, deletions.read_version));
        let content = format!("{columns} {:?} {deleted:?} {:?}", data.collect::<Vec<_>>(), fragment.overlays);
        let tag = blake3::hash(content.as_bytes()).to_hex()[..32].to_owned();
        let file = SourceFile {
            uri: format!("{prefix}{:06}", fragment.id),
            path: Path::from(fragment.id.to_string()),
            size: fragment.files.iter().filter_map(|file| file.file_size_bytes.get()).map(u64::from).sum(),
            state: Some(FileState { modified: None, e_tag: Some(tag), version: None }),
            unreadable: None,
        };
        if !budget.reserve(&file) {
            return Err(budget.error(address));
        }
        files.push(file);
    }
    if files.is_empty() {
        return Err(SourceError::EmptyTable { uri: address.to_owned(), kind: TableKind::Lance });
    }
    files.sort_by(|a, b| a.uri.cmp(&b.uri));
    Ok(Some((dataset, Listing { files, scope: Scope::Below(prefix), ..Listing::default() })))
}

/// The columns of a table, whose names and types are not in the metadata of its fragments.
fn columns_text(dataset: &Dataset) -> String {
    let field = |field: &lance::datatypes::Field| format!("{} {:?} {}", field.id, field.name, field.logical_type);
    dataset.schema().fields_pre_order().map(field).collect::<Vec<_>>().join(",")
}

/// The source with the id column of a table that polylance made, unless it names another. Its documents must be whole
/// rows: chunks overlap, and the text between them is not in the table.
pub(crate) async fn with_document_id(table: &Dataset, spec: SourceSpec) -> Result<SourceSpec, SourceError> {
    let has = |name: &str| table.schema().field(name).is_some();
    if !has(DOC_ID) || !has(CHUNK) {
        return Ok(spec);
    }
    let by_default = spec.id == DEFAULT_ID && !has(DEFAULT_ID);
    // Each row is a document, without an id column by which chunks of one document would be noticed.
    let by_rows = matches!(&*spec.id, CONTENT_ID | ROW_ID) && !has(&spec.id);
    if spec.id != DOC_ID && !by_default && !by_rows {
        return Ok(spec);
    }
    let further = Box::pin(table.count_rows(Some(format!("{CHUNK} > 0")))).await;
    match further {
        Ok(0) if by_rows => Ok(spec),
        Ok(0) => Ok(SourceSpec { id: DOC_ID.to_owned(), ..spec }),
        Ok(_) => Err(SourceError::Chunks { uri: spec.address() }),
        Err(error) => Err(SourceError::Table { uri: spec.address(), kind: TableKind::Lance, source: Box::new(error) }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array},
        datatypes::UInt64Type,
    };
    use chrono::Utc;
    use datafusion::{execution::TaskContext, physical_plan::ExecutionPlan};
    use lance::dataset::{InsertBuilder, WriteMode, WriteParams};
    use polylance_schema::{
        SourceFormat,
        columns::{SOURCE, SOURCE_ROW, TEXT},
    };

    use super::*;
    use crate::{
        SourceScanExec,
        exec::testing::{rows, texts},
        source::open::Source,
    };

    fn strings(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    async fn write(uri: &str, mode: WriteMode, columns: Vec<(&str, ArrayRef)>) -> Dataset {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let params = WriteParams { mode, ..WriteParams::default() };
        let builder = InsertBuilder::new(uri).with_params(&params);
        Box::pin(builder.execute(vec![batch])).await.unwrap()
    }

    /// Adds a fragment with these ids.
    async fn append(uri: &str, ids: &[&str]) -> Dataset {
        let other = ids.iter().map(|id| format!("other {id}")).collect::<Vec<_>>();
        let other = strings(&other.iter().map(String::as_str).collect::<Vec<_>>());
        write(uri, WriteMode::Append, vec![("text", strings(ids)), ("other", other), ("id", strings(ids))]).await
    }

    async fn hashes(uri: &str) -> Vec<u128> {
        let source = Source::open(SourceSpec::new(uri)).await.unwrap();
        assert!(source.fingerprint(Utc::now()).is_some());
        source.fingerprints(Utc::now()).map(|(_, hash)| hash).collect()
    }

    async fn scan(spec: SourceSpec) -> RecordBatch {
        let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(Source::open(spec).await.unwrap()));
        rows(&scan, Arc::new(TaskContext::default())).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_of_a_table_are_read_with_their_fragment_and_their_offset_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("docs.lance").display().to_string();
        append(&uri, &["a", "b", "c"]).await;
        let mut table = append(&uri, &["d"]).await;
        Box::pin(table.delete("id = 'b'")).await.unwrap();
        for address in [uri.clone(), format!("{uri}/"), format!("file://{uri}")] {
            let found = scan(SourceSpec { keep: vec!["*".into()], ..SourceSpec::new(address) }).await;
            assert_eq!(texts(&found, DOC_ID), ["a", "c", "d"]);
            assert_eq!(texts(&found, TEXT), ["a", "c", "d"]);
            assert_eq!(texts(&found, "other"), ["other a", "other c", "other d"]);
            assert_eq!(found[SOURCE_ROW].as_primitive::<UInt64Type>().values(), &[0, 2, 0]);
            let fragments = texts(&found, SOURCE);
            let expected = ["#000000", "#000000", "#000001"].map(|end| format!("{uri}{end}"));
            assert!(fragments.iter().zip(&expected).all(|(found, expected)| found.ends_with(expected.as_str())));
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fingerprint_of_a_fragment_changes_with_its_rows_and_its_columns_only() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("docs.lance").display().to_string();
        append(&uri, &["a", "b"]).await;
        let first = hashes(&uri).await;
        assert_eq!(hashes(&uri).await, first);
        let mut table = append(&uri, &["c"]).await;
        let second = hashes(&uri).await;
        assert_eq!((second.len(), second[0]), (2, first[0]));
        Box::pin(table.delete("id = 'a'")).await.unwrap();
        let third = hashes(&uri).await;
        assert!(third[0] != second[0] && third[1] == second[1]);
        Box::pin(table.drop_columns(&["other"])).await.unwrap();
        let fourth = hashes(&uri).await;
        assert!(fourth[0] != third[0] && fourth[1] != third[1]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn unchanged_fragment_is_read_for_its_ids_only() {
        let folder = tempfile::tempdir().unwrap();
        let uri = folder.path().join("docs.lance").display().to_string();
        append(&uri, &["a", "b"]).await;
        let first = hashes(&uri).await;
        append(&uri, &["c"]).await;
        let mut source = Source::open(SourceSpec::new(uri)).await.unwrap();
        assert_eq!(source.mark_unchanged(Utc::now(), &first.into_iter().collect()), 1);
        let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(source));
        let found = rows(&scan, Arc::new(TaskContext::default())).await.unwrap();
        assert_eq!(texts(&found, DOC_ID), ["a", "b", "c"]);
        assert_eq!(found[TEXT].null_count(), 2);
        assert_eq!(texts(&found, TEXT)[2], "c");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn table_of_polylance_needs_one_row_per_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let chunks = |numbers: Vec<u32>| (CHUNK, Arc::new(UInt32Array::from(numbers)) as ArrayRef);
        let columns = |ids: &[&str], numbers: Vec<u32>| {
            vec![(DOC_ID, strings(ids)), chunks(numbers), (TEXT, strings(&["one", "two"]))]
        };
        write(&path("whole.lance"), WriteMode::Create, columns(&["a", "b"], vec![0, 0])).await;
        assert_eq!(texts(&scan(SourceSpec::new(path("whole.lance"))).await, DOC_ID), ["a", "b"]);
        write(&path("split.lance"), WriteMode::Create, columns(&["a", "a"], vec![0, 1])).await;
        let by_row = SourceSpec { id: ROW_ID.to_owned(), ..SourceSpec::new(path("whole.lance")) };
        assert_eq!(texts(&scan(by_row).await, DOC_ID), ["000000#0", "000000#1"]);
        for id in [DEFAULT_ID, DOC_ID, CONTENT_ID, ROW_ID] {
            let spec = SourceSpec { id: id.to_owned(), ..SourceSpec::new(path("split.lance")) };
            assert!(matches!(Source::open(spec).await, Err(SourceError::Chunks { .. })), "{id}");
        }
        // Any other column is checked row by row.
        let by_text = SourceSpec { id: TEXT.to_owned(), ..SourceSpec::new(path("split.lance")) };
        assert_eq!(texts(&scan(by_text).await, DOC_ID), ["one", "two"]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn table_that_cannot_be_a_source_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let open = async |name: &str, format| {
            Source::open(SourceSpec { format, ..SourceSpec::new(path(name)) }).await.unwrap_err()
        };
        append(&path("docs.lance"), &["a"]).await;
        let format = open("docs.lance", Some(SourceFormat::Csv)).await.to_string();
        assert!(format.contains("leave out `format`"), "{format}");
        let mut emptied = append(&path("empty.lance"), &["a"]).await;
        Box::pin(emptied.delete("true")).await.unwrap();
        assert!(matches!(open("empty.lance", None).await, SourceError::EmptyTable { .. }));
        for version in std::fs::read_dir(folder.path().join("docs.lance/_versions")).unwrap() {
            std::fs::write(version.unwrap().path(), "not a manifest").unwrap();
        }
        assert!(matches!(open("docs.lance", None).await, SourceError::Table { .. }));
    }
}
