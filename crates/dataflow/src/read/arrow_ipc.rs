//! Arrow IPC files and streams, from a file on this machine.

use std::{
    fs::File,
    io::{BufReader, Read, Seek},
};

use arrow::{
    array::RecordBatch,
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
};

use super::{
    columnar,
    columns::Columns,
    error::ReadError,
    lines::spawn_rows,
    open_file::OpenFile,
    rows::{BATCH_ROWS, RowStream},
};

/// Either form of Arrow IPC.
enum Batches {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

impl Batches {
    /// Opens a file on a blocking thread, where a panic over a damaged header is an error of this file alone.
    async fn open(file: File) -> Result<Self, ReadError> {
        let opened = tokio::task::spawn_blocking(|| Self::read_header(file)).await;
        opened.map_err(|error| ReadError::Content(format!("the reader failed: {error}")))?
    }

    fn read_header(mut file: File) -> Result<Self, ReadError> {
        let mut magic = [0; 6];
        file.read_exact(&mut magic)?;
        file.rewind()?;
        Ok(if &magic == b"ARROW1" {
            Self::File(FileReader::try_new_buffered(file, None)?)
        } else {
            Self::Stream(StreamReader::try_new_buffered(file, None)?)
        })
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }
}

pub(super) async fn schema(file: &OpenFile) -> Result<SchemaRef, ReadError> {
    Ok(Batches::open(file.local().await?).await?.schema())
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns) -> Result<RowStream, ReadError> {
    let batches = Batches::open(file.local().await?).await?;
    columnar::positions(&batches.schema(), columns)?;
    let (columns, bytes_read, size) = (columns.clone(), file.bytes_read.clone(), file.file.size);
    Ok(spawn_rows(move |send| {
        let mut first = 0;
        for batch in batches {
            let batch = batch?;
            for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let part = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
                if !send(columnar::rows(&part, &columns, first)?) {
                    return Ok(());
                }
                first += part.num_rows() as u64;
            }
        }
        bytes_read.add(size as usize);
        Ok(())
    }))
}
