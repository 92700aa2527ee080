//! Cuts a source into shards: contiguous runs of its files, and of the row groups of Parquet files.
//!
//! A cut depends on the listing, and on the footer of the file in which it falls. So processes that list the same files
//! agree on the cuts without talking to each other. A file or a row group belongs to the shard in which it begins.

use std::{ops::Range, sync::Arc};

use polylance_schema::{Shard, SourceFormat};

use super::{
    file::SourceFile,
    location::{FilePart, Location, PartialFile},
    open::Source,
    projection::ReadMode,
    rows::source_failure,
};
use crate::{
    error::SourceError,
    read::open_file::{OpenFile, ReadCounts},
};

/// The place of a shard in its source.
#[derive(Debug, Clone)]
pub(crate) struct ShardPlace {
    pub(crate) shard: Shard,
    /// The files before the shard, if a row of them may have the id of a row of the shard. Only their ids are read.
    pub(crate) earlier: Option<Location>,
}

/// A place between two row groups or files: before this row group of this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cut {
    pub(super) file: usize,
    pub(super) row_group: usize,
    /// The bytes of the file before the row group.
    pub(super) bytes: u64,
}

impl Cut {
    pub(super) fn before_file(file: usize) -> Self {
        Self { file, row_group: 0, bytes: 0 }
    }

    /// Before the first row group that begins `offset` bytes into the file or later; `begins` are those of all its row
    /// groups.
    fn in_file(file: usize, begins: &[u64], offset: u64) -> Self {
        let row_group = begins.partition_point(|begin| *begin < offset);
        begins.get(row_group).map_or_else(|| Self::before_file(file + 1), |&bytes| Self { file, row_group, bytes })
    }
}

/// The number of files that begin before a position of the source, and how far the position is from the beginning of
/// the last of them if it falls into it.
fn files_before(sizes: impl Iterator<Item = u64>, position: u64) -> (usize, Option<u64>) {
    let (mut files, mut begin) = (0, 0_u64);
    for size in sizes {
        if begin >= position {
            break;
        }
        let end = begin.saturating_add(size);
        files += 1;
        if position < end {
            return (files, Some(position - begin));
        }
        begin = end;
    }
    (files, None)
}

/// The bytes by which a file counts. An empty file, or one of unknown size, has a place of its own too.
pub(super) fn size(file: &SourceFile) -> u64 {
    file.size.max(1)
}

impl Source {
    /// The part of the source that is a shard. Of the files before it, the plan reads the ids.
    ///
    /// # Errors
    /// [`SourceError::Store`] or [`SourceError::Changed`] if the footer of a file in which a cut falls cannot be read.
    pub async fn into_shard(self, shard: Shard) -> Result<Self, SourceError> {
        let Self { spec, location, projection, files_pruned, columns, .. } = self;
        let total = location.files.iter().map(size).fold(0, u64::saturating_add);
        let share = shard.share(total);
        let begin = location.cut_at(share.start, spec.format).await?;
        let end = location.cut_at(share.end, spec.format).await?;
        let own = location.between(begin, end, ReadMode::Whole);
        let earlier = location.between(Cut::before_file(0), begin, ReadMode::IdsOnly);
        let is_checked = !projection.has_row_ids() && !own.files.is_empty() && !earlier.files.is_empty();
        let earlier = is_checked.then(|| Location { part: Some(Arc::new(earlier)), ..location.clone() });
        let place = ShardPlace { shard, earlier };
        let location = Location { part: Some(Arc::new(own)), ..location };
        Ok(Self { spec, location, projection, files_pruned, shard: Some(Box::new(place)), columns })
    }

    /// The positions in the listing of the files that are read whole.
    pub(super) fn whole_files(&self) -> Range<usize> {
        let files = self.location.read_files();
        let is_cut = |file: usize| self.location.row_groups(file).is_some();
        let first = files.start + usize::from(!files.is_empty() && is_cut(files.start));
        let end = files.end - usize::from(files.end > first && is_cut(files.end - 1));
        first..end
    }
}

impl Location {
    async fn cut_at(&self, position: u64, format: Option<SourceFormat>) -> Result<Cut, SourceError> {
        let (files, offset) = files_before(self.files.iter().map(size), position);
        let (Some(offset), Some(last)) = (offset, files.checked_sub(1)) else { return Ok(Cut::before_file(files)) };
        let file = &self.files[last];
        let open = OpenFile::new(self.store.clone(), self.format, file.clone(), ReadCounts::default());
        let begins = match Box::pin(open.row_group_begins(format)).await {
            Ok(begins) => begins,
            // A file that cannot be read becomes a row of the quarantine when it is scanned.
            Err(error) => source_failure(file, error).map(|_| Vec::new())?,
        };
        Ok(Cut::in_file(last, &begins, offset))
    }

    /// The files between two cuts.
    pub(super) fn between(&self, begin: Cut, end: Cut, mode: ReadMode) -> FilePart {
        let files = if begin < end { begin.file..end.file + usize::from(end.row_group > 0) } else { 0..0 };
        let partial = files.clone().filter_map(|file| {
            let first = if file == begin.file { begin } else { Cut::before_file(file) };
            let (row_groups, bytes) = if file == end.file {
                (first.row_group..end.row_group, end.bytes - first.bytes)
            } else {
                (first.row_group..usize::MAX, self.files[file].size - first.bytes)
            };
            let is_cut = file == end.file || first.row_group > 0;
            is_cut.then_some(PartialFile { file, row_groups, bytes })
        });
        FilePart { partial: partial.collect(), files, mode }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use std::{fs::File, path::Path};

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

    use super::*;

    /// Writes rows with the ids `first..end` in row groups of ten.
    pub(in super::super) fn write(path: &Path, ids: Range<usize>) {
        let text = |prefix: &'static str| StringArray::from_iter_values(ids.clone().map(|n| format!("{prefix}{n}")));
        let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(text(""))), ("text", Arc::new(text("text ")))];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray, RecordBatch},
        datatypes::UInt64Type,
    };
    use datafusion::{execution::TaskContext, physical_plan::ExecutionPlan};
    use polylance_schema::columns::{DOC_ID, SOURCE_ROW};
    use proptest::prelude::*;

    use super::{testing::write, *};
    use crate::{
        exec::{
            scan::SourceScanExec,
            testing::{rows, shown, texts},
        },
        source::spec::SourceSpec,
    };

    /// Files as their sizes and the beginnings of their row groups.
    fn cut(files: &[(u64, Vec<u64>)], position: u64) -> Cut {
        match files_before(files.iter().map(|file| file.0), position) {
            (count, Some(offset)) => Cut::in_file(count - 1, &files[count - 1].1, offset),
            (count, None) => Cut::before_file(count),
        }
    }

    /// All units in order: files, or their row groups where they have some.
    fn units(files: &[(u64, Vec<u64>)]) -> Vec<(usize, usize)> {
        let of_file =
            |(file, (_, begins)): (usize, &(u64, Vec<u64>))| (0..begins.len().max(1)).map(move |at| (file, at));
        files.iter().enumerate().flat_map(of_file).collect()
    }

    fn file() -> impl Strategy<Value = (u64, Vec<u64>)> {
        (1_u64..1000, prop::collection::vec(0_u64..1000, 0..5)).prop_map(|(size, mut begins)| {
            begins.retain(|begin| *begin < size);
            begins.sort_unstable();
            if let Some(first) = begins.first_mut() {
                *first = 0;
            }
            (size, begins)
        })
    }

    proptest! {
        #[test]
        fn shards_partition_the_units_in_order(files in prop::collection::vec(file(), 0..8), of in 1_u32..12) {
            let total: u64 = files.iter().map(|file| file.0).sum();
            let all = units(&files);
            let mut found = Vec::new();
            for index in 0..of {
                let share = Shard::new(index, of).unwrap().share(total);
                let (begin, end) = (cut(&files, share.start), cut(&files, share.end));
                let is_in = |(file, row_group): &(usize, usize)| {
                    let at = (*file, *row_group);
                    (begin.file, begin.row_group) <= at && at < (end.file, end.row_group)
                };
                let of_shard: Vec<_> = all.iter().copied().filter(is_in).collect();
                // Each begins in the bytes of the shard.
                for (file, row_group) in &of_shard {
                    let before: u64 = files[..*file].iter().map(|file| file.0).sum();
                    let byte = before + files[*file].1.get(*row_group).copied().unwrap_or_default();
                    prop_assert!(share.contains(&byte), "{byte} in {share:?}");
                }
                found.extend(of_shard);
            }
            prop_assert_eq!(found, all);
        }
    }

    async fn scanned(scan: SourceScanExec) -> RecordBatch {
        rows(&(Arc::new(scan) as Arc<dyn ExecutionPlan>), Arc::new(TaskContext::default())).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn shards_read_each_row_once_with_its_number_and_the_ids_before_them() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), 0..47);
        write(&folder.path().join("b.parquet"), 47..60);
        std::fs::write(folder.path().join("c.jsonl"), "{\"id\":\"60\",\"text\":\"text 60\"}\n").unwrap();
        let open = || Source::open(SourceSpec::new(folder.path().display().to_string()));
        let whole = scanned(SourceScanExec::new(open().await.unwrap())).await;
        let all: Vec<String> = (0..=60).map(|id| id.to_string()).collect();
        assert_eq!(texts(&whole, DOC_ID), all);
        for of in [1, 2, 3, 5, 40] {
            let (mut ids, mut numbers, mut bytes) = (Vec::new(), Vec::new(), 0);
            for index in 0..of {
                let source = open().await.unwrap().into_shard(Shard::new(index, of).unwrap()).await.unwrap();
                bytes += source.total_bytes();
                if let Some(earlier) = SourceScanExec::earlier_ids(&source) {
                    let before = scanned(earlier).await;
                    assert_eq!(texts(&before, DOC_ID), all[..ids.len()], "{index}/{of}");
                    assert!(texts(&before, "text").iter().all(|text| text == "-"));
                }
                let found = scanned(SourceScanExec::new(source)).await;
                ids.extend(texts(&found, DOC_ID));
                numbers.extend(found[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec());
            }
            assert_eq!(ids, all, "{of} shards");
            assert_eq!(numbers, whole[SOURCE_ROW].as_primitive::<UInt64Type>().values().to_vec());
            assert_eq!(bytes, open().await.unwrap().total_bytes());
        }
        let third = open().await.unwrap().into_shard(Shard::new(1, 3).unwrap()).await.unwrap();
        assert!(third.location.part.as_ref().unwrap().partial[0].row_groups.start > 0, "the cut falls into a.parquet");
        let (ids, _) = shown(&SourceScanExec::earlier_ids(&third).unwrap());
        assert!(ids.ends_with("text=text, ids_before_shard=1/3"), "{ids}");
        let (documents, _) = shown(&SourceScanExec::new(third));
        assert!(documents.ends_with("text=text, shard=1/3"), "{documents}");
    }

    #[tokio::test]
    async fn ids_made_of_file_and_row_need_no_ids_of_other_shards() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), 0..40);
        let spec = SourceSpec { id: "@row".to_owned(), ..SourceSpec::new(folder.path().display().to_string()) };
        let source = Source::open(spec).await.unwrap().into_shard(Shard::new(1, 2).unwrap()).await.unwrap();
        assert!(SourceScanExec::earlier_ids(&source).is_none());
        let found = scanned(SourceScanExec::new(source)).await;
        assert_eq!(texts(&found, DOC_ID)[0], "a.parquet#20");
    }
}
