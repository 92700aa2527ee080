//! The order in which files reach the disk, and the repair of a version that a power loss has damaged.

use std::{
    collections::HashMap,
    fmt, fs,
    ops::Range,
    path::PathBuf,
    sync::{LazyLock, Mutex},
};

use bytes::Bytes;
use futures::stream::BoxStream;
use lance_table::io::commit::ManifestNamingScheme;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, UploadPart, path::Path,
};

use crate::tests::*;
use crate::{IndexSpec, OnConflict, SinkError, Table, compact, quarantine_uri, repair, update_index};
use polylance_schema::IndexKind;

/// Files in the order in which the syncing store has confirmed them.
static CONFIRMED: LazyLock<Mutex<Vec<PathBuf>>> = LazyLock::new(Mutex::default);

fn confirm(path: &Path) {
    CONFIRMED.lock().unwrap().push(PathBuf::from(format!("/{path}")));
}

/// A store that records the files that it has confirmed.
#[derive(Debug)]
pub(crate) struct Recorded(Arc<dyn ObjectStore>);

impl Recorded {
    pub(crate) fn store(inner: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Self(inner))
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Recorded {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, options: PutOptions) -> object_store::Result<PutResult> {
        let put = self.0.put_opts(to, bytes, options).await;
        if put.is_ok() {
            confirm(to);
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        let upload = self.0.put_multipart_opts(to, options).await?;
        Ok(Box::new(RecordedUpload { upload, to: to.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.0.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.0.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.0.copy_opts(from, to, options).await.inspect(|()| confirm(to))
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> object_store::Result<()> {
        self.0.rename_opts(from, to, options).await.inspect(|()| confirm(to))
    }
}

#[derive(Debug)]
struct RecordedUpload {
    upload: Box<dyn MultipartUpload>,
    to: Path,
}

#[async_trait::async_trait]
impl MultipartUpload for RecordedUpload {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        self.upload.put_part(bytes)
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.upload.complete().await.inspect(|_| confirm(&self.to))
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.upload.abort().await
    }
}

fn files(folder: &std::path::Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// The manifest of a version.
fn manifest(uri: &str, version: u64) -> PathBuf {
    let path = ManifestNamingScheme::V2.manifest_path(&Path::from("t"), version);
    PathBuf::from(uri).join("_versions").join(path.filename().unwrap())
}

#[tokio::test]
async fn every_file_of_a_version_is_synced_before_its_manifest() {
    let fixture = TestTable::new();
    let docs = |round: u64| -> Vec<_> {
        (0..200).map(|row| Doc::new(row, &format!("d{row}"), &[&format!("text {round}")])).collect()
    };
    for (round, run_id) in ["r1", "r2", "r3"].into_iter().enumerate() {
        let mut docs = docs(round as u64);
        docs[7] = docs[7].clone().failing_at(0);
        run(vec![batch(&docs)], fixture.target(run_id, 100)).await.unwrap();
    }
    let spec = IndexSpec { kind: IndexKind::IvfFlat, ..IndexSpec::default() };
    run(
        vec![batch(&(300..400).map(|row| Doc::new(row, &format!("d{row}"), &["more"])).collect::<Vec<_>>())],
        fixture.target("r4", 0),
    )
    .await
    .unwrap();
    assert_eq!(update_index(&fixture.uri(), &spec).await.unwrap().indexed_rows, 299);
    compact(&fixture.uri(), 0, OnConflict::Retry).await.unwrap();

    let confirmed = CONFIRMED.lock().unwrap().clone();
    let at: HashMap<_, _> = confirmed.iter().enumerate().map(|(at, path)| (path.clone(), at)).collect();
    for uri in [fixture.uri(), quarantine_uri(&fixture.uri())] {
        let mut found = Vec::new();
        files(uri.as_ref(), &mut found);
        assert!(found.len() > 5, "{found:?}");
        for path in &found {
            assert!(at.contains_key(path), "{} was not written through the syncing store", path.display());
        }
        let latest = Dataset::open(&uri).await.unwrap();
        for version in latest.versions().await.unwrap() {
            let version = latest.checkout_version(version.version).await.unwrap();
            let referenced =
                version.fragments().iter().flat_map(|fragment| fragment.files.clone()).map(|file| file.path);
            for file in referenced {
                let file = PathBuf::from(&uri).join("data").join(file);
                assert!(at[&file] < at[&manifest(&uri, version.version_id())], "{}", file.display());
            }
        }
    }
}

/// A table of two versions.
async fn two_versions() -> TestTable {
    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    run(vec![batch(&[Doc::new(1, "b", &["1"])])], fixture.target("r2", 1)).await.unwrap();
    fixture
}

#[tokio::test]
async fn truncated_newest_manifest_is_reported_and_set_aside() {
    for keep in [0, 10, 200] {
        let fixture = two_versions().await;
        let (uri, newest) = (fixture.uri(), manifest(&fixture.uri(), 2));
        assert_eq!(repair(&uri).await.unwrap(), None);
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..keep]).unwrap();

        let error = Table::open(&uri).await.unwrap_err();
        let SinkError::Damaged { version: 2, file, .. } = &error else { panic!("{error}") };
        assert_eq!(*file, newest.display().to_string());

        let repaired = repair(&uri).await.unwrap().unwrap();
        assert_eq!((repaired.version, repaired.current, repaired.rows), (2, 1, 1));
        assert_eq!(repaired.transactions, ["1 documents, 1 rows, of run r2"]);
        let aside = PathBuf::from(format!("{}.damaged", newest.display()));
        assert_eq!(fs::read(&aside).unwrap(), &bytes[..keep]);

        assert_eq!(fixture.keys().await, [("a".to_owned(), 0)]);
        run(vec![batch(&[Doc::new(1, "b", &["1"])])], fixture.target("r3", 1)).await.unwrap();
        assert_eq!(fixture.keys().await, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
        assert_eq!(repair(&uri).await.unwrap(), None);
    }
}

#[tokio::test]
async fn two_damaged_versions_are_not_repaired() {
    let fixture = two_versions().await;
    for version in [1, 2] {
        fs::write(manifest(&fixture.uri(), version), "").unwrap();
    }
    let error = repair(&fixture.uri()).await.unwrap_err().to_string();
    assert!(error.contains("version 2 is damaged") && error.contains("so is the version before it"), "{error}");
    assert!(manifest(&fixture.uri(), 2).exists());

    let fixture = TestTable::new();
    run(vec![batch(&[Doc::new(0, "a", &["1"])])], fixture.target("r1", 1)).await.unwrap();
    fs::write(manifest(&fixture.uri(), 1), "LANC").unwrap();
    let error = repair(&fixture.uri()).await.unwrap_err().to_string();
    assert!(error.contains("there is no version before it"), "{error}");
}
