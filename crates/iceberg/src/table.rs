//! A table as its newest metadata describe it.

use std::{collections::HashMap, panic::AssertUnwindSafe, sync::Arc};

use arrow::{array::RecordBatch, datatypes::Schema};
use futures::{FutureExt, StreamExt, TryStreamExt, stream, stream::BoxStream};
use iceberg::{
    Error, ErrorKind, Runtime, TableIdent,
    arrow::{ArrowReaderBuilder, schema_to_arrow_schema},
    io::{FileIO, FileIOBuilder},
    scan::FileScanTask,
    spec::DataFileFormat,
    table::StaticTable,
};

use crate::{error::IcebergError, storage::Stores};

/// The end of the name of a file with the deletions of version 3 of the format.
const DELETION_VECTORS: &str = ".puffin";

/// The newest snapshot of a table.
#[derive(Debug)]
pub struct IcebergTable {
    file_io: FileIO,
    schema: Arc<Schema>,
    /// The ids of the schema's columns.
    field_ids: Vec<i32>,
    files: Vec<DataFile>,
}

/// A data file of a table.
#[derive(Debug)]
pub struct DataFile {
    /// Its address below the table's folder; as the table names it, if it is elsewhere.
    pub name: String,
    /// Size in bytes, as stored.
    pub size: u64,
    /// The number of its rows, with the deleted ones.
    pub rows: u64,
    /// A hash of what else determines its rows: the table's columns and the deletions.
    pub tag: String,
    /// Whether rows of it are deleted, so that positions count the rows that are left.
    pub has_deletions: bool,
    /// Why it cannot be read.
    pub unreadable: Option<String>,
    task: FileScanTask,
}

impl IcebergTable {
    /// The newest snapshot in a metadata file, whose address is a URI or an absolute path.
    ///
    /// # Errors
    /// If the metadata or the lists of files cannot be read.
    pub async fn open(metadata_file: &str) -> Result<Self, IcebergError> {
        // A library may panic over damaged metadata.
        let opened = AssertUnwindSafe(Box::pin(open(metadata_file))).catch_unwind().await;
        let opened = opened.unwrap_or_else(|_| Err(Error::new(ErrorKind::DataInvalid, "the metadata is damaged")));
        Ok(opened?)
    }

    /// The columns of the table.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The data files, sorted by name.
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// The rows of one of its data files without the deleted ones, in these columns of the schema, up to `batch_rows`
    /// in a batch.
    ///
    /// # Errors
    /// If there is no runtime to read it in. What is wrong with the file is an item of the stream.
    pub fn rows(
        &self,
        file: &DataFile,
        columns: &[usize],
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch, IcebergError>>, IcebergError> {
        let mut task = file.task.clone();
        task.project_field_ids = columns.iter().map(|at| self.field_ids[*at]).collect();
        let builder = ArrowReaderBuilder::new(self.file_io.clone(), Runtime::try_current()?);
        let reader = builder.with_batch_size(batch_rows).with_data_file_concurrency_limit(1).build();
        let batches = reader.read(stream::once(async { Ok(task) }).boxed())?.stream();
        Ok(batches.map_err(IcebergError::from).boxed())
    }
}

async fn open(metadata_file: &str) -> iceberg::Result<IcebergTable> {
    let file_io = FileIOBuilder::new(Arc::new(Stores::default())).build();
    let identifier = TableIdent::from_strs(["source", "table"])?;
    let table = StaticTable::from_metadata_file(metadata_file, identifier, file_io.clone()).await?;
    let metadata = table.metadata();
    // That of the newest commit: the snapshot may be older than a column's name.
    let schema = Arc::clone(metadata.current_schema());
    let field_ids: Vec<i32> = schema.as_struct().fields().iter().map(|field| field.id).collect();
    let tasks: Vec<FileScanTask> = table.scan().build()?.plan_files().await?.try_collect().await?;
    let root = format!("{}/", metadata.location().trim_end_matches('/'));
    let columns: Vec<_> = schema.as_struct().fields().iter().map(|field| format!("{field}")).collect();
    let mut files = Vec::with_capacity(tasks.len());
    for mut task in tasks {
        task.deletes.sort_by(|a, b| a.file_path.cmp(&b.file_path));
        task.schema = Arc::clone(&schema);
        let deletes: Vec<_> = task.deletes.iter().map(|delete| &delete.file_path).collect();
        let content = format!("{columns:?} {deletes:?}");
        files.push(DataFile {
            name: task.data_file_path.strip_prefix(&root).unwrap_or(&task.data_file_path).to_owned(),
            size: task.file_size_in_bytes,
            rows: task.record_count.unwrap_or_default(),
            tag: blake3::hash(content.as_bytes()).to_hex()[..32].to_owned(),
            has_deletions: !task.deletes.is_empty(),
            unreadable: unreadable(task.data_file_format, &deletes),
            task,
        });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let schema = Arc::new(without_metadata(schema_to_arrow_schema(&schema)?));
    Ok(IcebergTable { file_io, schema, field_ids, files })
}

/// Why the rows of a data file with these delete files cannot be read.
fn unreadable(format: DataFileFormat, deletes: &[&String]) -> Option<String> {
    if format != DataFileFormat::Parquet {
        return Some(format!("data files in {format} are not supported: rewrite them as Parquet"));
    }
    let by_vector = deletes.iter().any(|file| file.ends_with(DELETION_VECTORS));
    by_vector.then(|| "deletion vectors are not supported: rewrite the table's data files".to_owned())
}

/// A schema without the notes of Iceberg, which are no part of a kept column.
fn without_metadata(schema: Schema) -> Schema {
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_metadata(HashMap::new()));
    Schema::new(fields.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_the_library_cannot_read_are_known_before_they_are_opened() {
        let (parquet, vectors) = ("deletes.parquet".to_owned(), "deletes.puffin".to_owned());
        assert_eq!(unreadable(DataFileFormat::Parquet, &[&parquet]), None);
        assert!(unreadable(DataFileFormat::Parquet, &[&parquet, &vectors]).unwrap().contains("deletion vectors"));
        assert!(unreadable(DataFileFormat::Orc, &[]).unwrap().contains("rewrite them as Parquet"));
    }
}
