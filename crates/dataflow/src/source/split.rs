//! Splits: the parts of a source that the machines of a cluster embed, cut as shards are.
//!
//! The machine that lists a source cuts it, and sends each part with its files and with the columns from which the
//! projection was compiled. So another machine lists nothing, looks at no other file, and reads the same rows with the
//! same row numbers.

use std::sync::Arc;

use arrow::{
    datatypes::{Field, FieldRef},
    error::ArrowError,
};
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
use lance::Dataset;
use object_store::path::Path;
use polylance_hub::{HubAddress, HubStore};
use polylance_schema::SourceFormat;
use serde::{Deserialize, Serialize};

use super::{
    columns::open_file,
    file::{FileState, SourceFile},
    input_types,
    location::{FilePart, Location, PartialFile, Store, listing::Scope, object_address::ObjectAddress},
    open::{KnownColumns, Source},
    partitions::Partitions,
    projection::{Keys, ReadMode},
    rows::source_failure,
    shard::{Cut, size},
    spec::SourceSpec,
};
use crate::{
    error::{SourceError, TableKind},
    read::types::{ColumnType, FileTypes},
};

/// Files whose footers are read at the same time.
const FOOTERS_IN_FLIGHT: usize = 8;
/// Maximum number of files in a split: its description is one message.
const MAX_FILES: usize = 1000;

/// A source that is cut into splits.
#[derive(Debug, Clone)]
pub struct Splits {
    source: Source,
    parts: Arc<[FilePart]>,
}

/// A part of a source, as another machine needs it to read the same rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SourceSplit {
    spec: SourceSpec,
    store: SplitStore,
    files: Vec<SplitFile>,
    format: Option<SourceFormat>,
    columns: SplitColumns,
}

/// How another machine opens the store of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SplitStore {
    /// Disks that the machines share.
    Files,
    Objects,
    Hub,
    /// The only file of an address.
    Address,
    /// This version of a Lance table.
    Table(u64),
}

/// A file of a split, as it was listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SplitFile {
    uri: String,
    path: String,
    size: u64,
    state: Option<SplitFileState>,
    unreadable: Option<String>,
    unchanged: bool,
    /// The row groups of the split, and their share of the bytes; `None` for a whole file.
    row_groups: Option<SplitRowGroups>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SplitFileState {
    modified: Option<DateTime<Utc>>,
    e_tag: Option<String>,
    version: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct SplitRowGroups {
    begin: usize,
    /// `None` for the end of the file.
    end: Option<usize>,
    bytes: u64,
}

/// [`KnownColumns`] as text.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SplitColumns {
    file: String,
    first: String,
    all: String,
    partitions: String,
    /// The folder of the source; `None` for a source of one file.
    root: Option<String>,
    table: String,
    inputs: String,
}

impl Source {
    /// Cuts the source into splits of about this many bytes. A file or a row group is the smallest part.
    ///
    /// # Errors
    /// [`SourceError::Store`] or [`SourceError::Changed`] if the footer of a large file cannot be read.
    pub async fn into_splits(self, bytes: u64) -> Result<Splits, SourceError> {
        let (files, format) = (Arc::clone(&self.location.files), self.spec.format);
        let begins = |at: usize| {
            let (file, open) = (files[at].clone(), open_file(&self.location, &files[at]));
            async move {
                if file.size <= bytes {
                    return Ok(Vec::new());
                }
                match Box::pin(open.row_group_begins(format)).await {
                    Ok(begins) => Ok(begins),
                    // A file that cannot be read becomes a row of the quarantine when it is scanned.
                    Err(error) => source_failure(&file, error).map(|_| Vec::new()),
                }
            }
        };
        let begins: Vec<Vec<u64>> =
            stream::iter(0..files.len()).map(begins).buffered(FOOTERS_IN_FLIGHT).try_collect().await?;
        let cuts = cuts(files.iter().map(size), &begins, bytes);
        let parts = cuts.windows(2).map(|pair| self.location.between(pair[0], pair[1], ReadMode::Whole)).collect();
        Ok(Splits { source: self, parts })
    }

    /// Why no other machine can read the source; `None` if it can. `shared_files` says that all machines see the same
    /// files at the same paths.
    pub fn refuses_splits(&self, shared_files: bool) -> Option<&'static str> {
        match &self.location.store {
            Store::Stdin(_) => Some("standard input has no splits: only this machine can read it"),
            Store::Iceberg(_) => Some("Iceberg tables have no splits"),
            Store::Files if !shared_files => Some("its files are on the disks of this machine"),
            Store::Table(_) if !shared_files && !self.spec.uri.contains("://") => {
                Some("its table is on the disks of this machine")
            }
            _ => None,
        }
    }
}

/// The places before, between and after the splits of files with these sizes and beginnings of row groups.
fn cuts(sizes: impl Iterator<Item = u64>, begins: &[Vec<u64>], bytes: u64) -> Vec<Cut> {
    let mut cuts = vec![Cut::before_file(0)];
    let (mut gathered, mut files) = (0_u64, 0);
    for (file, size) in sizes.enumerate() {
        let begins = &begins[file];
        for row_group in 0..begins.len().max(1) {
            let begin = begins.get(row_group).copied().unwrap_or_default();
            let end = begins.get(row_group + 1).copied().unwrap_or(size);
            let part = end.saturating_sub(begin);
            if gathered > 0 && (gathered.saturating_add(part) > bytes || files == MAX_FILES) {
                cuts.push(Cut { file, row_group, bytes: begin });
                (gathered, files) = (0, 0);
            }
            gathered = gathered.saturating_add(part.max(1));
        }
        files += 1;
    }
    if gathered > 0 {
        cuts.push(Cut::before_file(begins.len()));
    }
    cuts
}

impl Splits {
    /// Number of splits.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether the source has no file.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of a split, as stored.
    pub fn bytes(&self, at: usize) -> u64 {
        self.part(at).bytes()
    }

    /// The description of a split.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] if a column has a type that cannot be written as text.
    pub fn get(&self, at: usize) -> Result<SourceSplit, SourceError> {
        let part = self.part(at);
        let file = |position: usize| {
            let SourceFile { uri, path, size, state, unreadable } = part.files[position].clone();
            let row_groups = part.partial(position).map(|partial| SplitRowGroups {
                begin: partial.row_groups.start,
                end: (partial.row_groups.end < usize::MAX).then_some(partial.row_groups.end),
                bytes: partial.bytes,
            });
            let state = state.map(|FileState { modified, e_tag, version }| SplitFileState { modified, e_tag, version });
            let unchanged = part.mode(position) == ReadMode::IdsOnly;
            SplitFile { uri, path: path.into(), size, state, unreadable, unchanged, row_groups }
        };
        let store = match &part.store {
            Store::Files => SplitStore::Files,
            Store::Objects(_) if part.files.first().is_some_and(|file| file.uri.starts_with("hf://")) => {
                SplitStore::Hub
            }
            Store::Objects(_) => SplitStore::Objects,
            Store::Table(table) => SplitStore::Table(table.version().version),
            Store::Memory(_) | Store::Web(_) | Store::Stdin(_) | Store::Iceberg(_) => SplitStore::Address,
        };
        let unwritable = |error: ArrowError| SourceError::Unreadable {
            file: self.source.spec.address(),
            message: error.to_string(),
        };
        let columns = SplitColumns::new(&self.source.columns).map_err(unwritable)?;
        let files = part.read_files().map(file).collect();
        let mut spec = self.source.spec.clone();
        // Another machine has another current folder.
        if matches!(store, SplitStore::Table(_))
            && !spec.uri.contains("://")
            && let Ok(absolute) = std::path::absolute(&spec.uri)
        {
            spec.uri = absolute.to_string_lossy().into_owned();
        }
        Ok(SourceSplit { spec, store, files, format: part.format, columns })
    }

    /// The location, of which only the split is read.
    fn part(&self, at: usize) -> Location {
        let part = Arc::new(self.parts[at].clone());
        Location { part: Some(part), ..self.source.location.clone() }
    }
}

impl SourceSplit {
    /// The first listed file on shared disks that this machine does not have.
    pub fn missing_file(&self) -> Option<&str> {
        let is_missing = |file: &&SplitFile| file.unreadable.is_none() && !file.source_file().local_path().exists();
        let missing = || self.files.iter().find(is_missing);
        (self.store == SplitStore::Files).then(missing)?.map(|file| file.uri.as_str())
    }

    /// The source, of which only the split is read. Nothing is listed.
    ///
    /// # Errors
    /// See [`SourceError`].
    pub async fn open(self) -> Result<Source, SourceError> {
        let Self { spec, store, files, format, columns } = self;
        let uri = &spec.uri;
        let refuse = |message: String| SourceError::Uri { uri: spec.address(), message };
        let (store, codes) = match store {
            SplitStore::Files => (Store::Files, None),
            SplitStore::Objects => {
                let place = ObjectAddress::parse(uri).ok_or_else(|| refuse("not in object storage".to_owned()))?;
                (Store::Objects(place.open().await.map_err(refuse)?), None)
            }
            SplitStore::Hub => (Store::Objects(Arc::new(HubStore::open(&HubAddress::parse(uri)?).await?)), None),
            SplitStore::Address => {
                let location = Box::pin(Location::find(uri, spec.memory)).await?;
                (location.store, location.codes)
            }
            SplitStore::Table(version) => {
                let location = Box::pin(Location::find(uri, spec.memory)).await?;
                let Store::Table(table) = location.store else {
                    return Err(refuse("it is no Lance table any more".to_owned()));
                };
                (Store::Table(at_version(table, version, &spec).await?), None)
            }
        };
        let mut listed: Vec<SourceFile> = files.iter().map(SplitFile::source_file).collect();
        if matches!(store, Store::Files) {
            for file in &mut listed {
                see_local(file).await;
            }
        }
        let partial = files.iter().enumerate().filter_map(|(file, listed)| {
            let SplitRowGroups { begin, end, bytes } = listed.row_groups.as_ref()?;
            Some(PartialFile { file, row_groups: *begin..end.unwrap_or(usize::MAX), bytes: *bytes })
        });
        let part = FilePart { files: 0..files.len(), mode: ReadMode::Whole, partial: partial.collect() };
        let columns = columns.known();
        let location = Location {
            store,
            unchanged: files.iter().map(|file| file.unchanged).collect(),
            files: listed.into(),
            part: Some(Arc::new(part)),
            codes,
            scope: columns.scope.clone(),
            format,
            notes: Vec::new(),
        };
        let projection = Arc::new(Keys::new(&spec).compile(&spec, columns.as_source())?);
        Ok(Source { spec, location, projection, files_pruned: 0, shard: None, columns: Arc::new(columns) })
    }
}

/// Replaces the state of a file on shared disks by the one that this machine sees, if its content is the listed one: the
/// machines may number the same file differently.
async fn see_local(file: &mut SourceFile) {
    let Ok(metadata) = tokio::fs::metadata(file.local_path()).await else { return };
    let own = FileState::of_local(&metadata);
    let is_same = |listed: &FileState| listed.modified == own.modified && file.size == metadata.len();
    if file.state.as_ref().is_some_and(is_same) {
        file.state = Some(own);
    }
}

async fn at_version(table: Arc<Dataset>, version: u64, spec: &SourceSpec) -> Result<Arc<Dataset>, SourceError> {
    if table.version().version == version {
        return Ok(table);
    }
    let table = Box::pin(table.checkout_version(version)).await.map_err(|error| SourceError::Table {
        uri: spec.address(),
        kind: TableKind::Lance,
        source: Box::new(error),
    })?;
    Ok(Arc::new(table))
}

impl SplitFile {
    fn source_file(&self) -> SourceFile {
        let state = self.state.clone();
        SourceFile {
            uri: self.uri.clone(),
            path: Path::parse(&self.path).unwrap_or_default(),
            size: self.size,
            state: state.map(|SplitFileState { modified, e_tag, version }| FileState { modified, e_tag, version }),
            unreadable: self.unreadable.clone(),
        }
    }
}

impl SplitColumns {
    fn new(columns: &KnownColumns) -> Result<Self, ArrowError> {
        let KnownColumns { file, first, all, partitions, scope, table, inputs } = columns;
        let fields = |types: &FileTypes| -> Vec<FieldRef> {
            let field = |(name, kind): &(String, ColumnType)| Arc::new(Field::new(name, kind.data_type(), true));
            types.iter().map(field).collect()
        };
        let root = match scope {
            Scope::One => None,
            Scope::Below(root) | Scope::Matching(root, _) => Some(root.clone()),
        };
        Ok(Self {
            file: file.clone(),
            first: input_types::encode(&fields(first))?,
            all: input_types::encode(&fields(all))?,
            partitions: input_types::encode(&partitions.fields)?,
            root,
            table: input_types::encode(table)?,
            inputs: input_types::encode(inputs)?,
        })
    }

    fn known(self) -> KnownColumns {
        let types = |text: &str| -> FileTypes {
            let column = |field: &FieldRef| (field.name().clone(), ColumnType::Declared(field.data_type().clone()));
            input_types::decode(text).iter().map(column).collect()
        };
        let scope = self.root.clone().map_or(Scope::One, Scope::Below);
        KnownColumns {
            first: types(&self.first),
            all: types(&self.all),
            partitions: Partitions::below(self.root.unwrap_or_default(), input_types::decode(&self.partitions)),
            scope,
            table: input_types::decode(&self.table),
            inputs: input_types::decode(&self.inputs),
            file: self.file,
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{array::AsArray, array::RecordBatch, datatypes::UInt64Type};
    use datafusion::{execution::TaskContext, physical_plan::ExecutionPlan};
    use polylance_schema::columns::{DOC_ID, SOURCE_ROW};
    use proptest::prelude::*;

    use super::{super::shard::testing::write, *};
    use crate::exec::{
        scan::SourceScanExec,
        testing::{rows, texts},
    };

    async fn scanned(source: Source) -> RecordBatch {
        let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(source));
        rows(&scan, Arc::new(TaskContext::default())).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn splits_that_were_sent_read_each_row_once_with_its_number() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("lang=fr")).unwrap();
        write(&folder.path().join("lang=fr/a.parquet"), 0..47);
        write(&folder.path().join("lang=fr/b.parquet"), 47..60);
        std::fs::write(folder.path().join("lang=fr/c.jsonl"), "{\"id\":\"60\",\"text\":\"text 60\"}\n").unwrap();
        let spec = SourceSpec {
            keep: vec!["lang".to_owned(), "upper(lang) AS upper".to_owned()],
            ..SourceSpec::new(folder.path().display().to_string())
        };
        let whole = scanned(Source::open(spec.clone()).await.unwrap()).await;
        for bytes in [1, 100, 1000, 1 << 20] {
            let splits = Source::open(spec.clone()).await.unwrap().into_splits(bytes).await.unwrap();
            assert_eq!(splits.len() == 1, bytes == 1 << 20);
            let (mut ids, mut numbers, mut kept, mut total) = (Vec::new(), Vec::new(), Vec::new(), 0);
            for at in 0..splits.len() {
                let sent = serde_json::to_string(&splits.get(at).unwrap()).unwrap();
                let split: SourceSplit = serde_json::from_str(&sent).unwrap();
                assert_eq!(split.missing_file(), None);
                total += splits.bytes(at);
                let found = scanned(split.open().await.unwrap()).await;
                ids.extend(texts(&found, DOC_ID));
                kept.extend(texts(&found, "upper"));
                numbers.extend(found[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec());
            }
            assert_eq!(ids, texts(&whole, DOC_ID), "{bytes} bytes");
            assert_eq!(kept, texts(&whole, "upper"));
            assert_eq!(numbers, whole[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec());
            assert_eq!(total, Source::open(spec.clone()).await.unwrap().total_bytes());
        }
    }

    #[tokio::test]
    async fn a_machine_without_the_files_names_the_first_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "{\"id\":\"a\",\"text\":\"one\"}\n").unwrap();
        let source = Source::open(SourceSpec::new(path.display().to_string())).await.unwrap();
        assert!(source.refuses_splits(false).is_some() && source.refuses_splits(true).is_none());
        let split = source.into_splits(1).await.unwrap().get(0).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(split.missing_file(), path.to_str());
    }

    proptest! {
        #[test]
        fn cuts_rise_and_each_split_is_no_larger_than_its_largest_unit_or_the_limit(
            files in prop::collection::vec((1_u64..1000, 0_usize..5), 1..20), bytes in 1_u64..3000,
        ) {
            let begins: Vec<Vec<u64>> = files
                .iter()
                .map(|&(size, groups)| (0..groups as u64).map(|group| size * group / groups as u64).collect())
                .collect();
            let found = cuts(files.iter().map(|file| file.0), &begins, bytes);
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(found[0], Cut::before_file(0));
            prop_assert_eq!(found[found.len() - 1], Cut::before_file(files.len()));
            let position = |cut: &Cut| files[..cut.file].iter().map(|file| file.0).sum::<u64>() + cut.bytes;
            let largest = files.iter().map(|file| file.0).max().unwrap();
            for pair in found.windows(2) {
                prop_assert!(position(&pair[1]) - position(&pair[0]) <= bytes.max(largest) + files.len() as u64);
            }
        }
    }
}
