//! Arrow IPC files and streams, from a file on this machine or from standard input.

use std::io::{self, BufReader, Read};

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
    open_file::{OpenFile, ReadSeek},
    rows::{BATCH_ROWS, RowStream},
};

/// The bytes of a file or a stream.
type Input = BufReader<Box<dyn ReadSeek>>;

/// Either form of Arrow IPC.
enum Batches {
    File(FileReader<Input>),
    Stream(StreamReader<NotedEnd<Input>>),
}

impl Batches {
    /// Opens a file on a blocking thread, where a panic over a damaged header is an error of this file alone.
    async fn open(file: Box<dyn ReadSeek>) -> Result<Self, ReadError> {
        let opened = tokio::task::spawn_blocking(|| Self::read_header(file)).await;
        opened.map_err(|error| ReadError::Content(format!("the reader failed: {error}")))?
    }

    fn read_header(mut file: Box<dyn ReadSeek>) -> Result<Self, ReadError> {
        let mut magic = [0; 6];
        file.read_exact(&mut magic)?;
        file.rewind()?;
        let input = BufReader::new(file);
        Ok(if &magic == b"ARROW1" {
            Self::File(FileReader::try_new(input, None)?)
        } else {
            Self::Stream(StreamReader::try_new(NotedEnd { input, is_reached: false }, None)?)
        })
    }

    /// Checks that a stream that was read ended with its marker, and that the input ended with it. A file has a footer
    /// with the number of its batches.
    fn expect_end(&mut self) -> Result<(), ReadError> {
        let Self::Stream(stream) = self else { return Ok(()) };
        let input = stream.get_mut();
        if input.is_reached {
            let message = "the Arrow stream has no end-of-stream marker: its writer did not finish";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message).into());
        }
        if input.read(&mut [0])? > 0 {
            let message = "bytes follow the end of the Arrow stream: write all batches into one stream";
            return Err(ReadError::Content(message.to_owned()));
        }
        Ok(())
    }

    fn schema(&self) -> SchemaRef {
        match self {
            Self::File(reader) => reader.schema(),
            Self::Stream(reader) => reader.schema(),
        }
    }
}

/// Notes when more bytes are requested than there are. Arrow's reader takes that for the end of the stream, which is
/// correct for a stream without a marker, and cannot be distinguished from one that broke off between two batches.
struct NotedEnd<R> {
    input: R,
    is_reached: bool,
}

impl<R: Read> Read for NotedEnd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.is_reached |= read == 0 && !buffer.is_empty();
        Ok(read)
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
    Ok(Batches::open(file.seekable().await?).await?.schema())
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns) -> Result<RowStream, ReadError> {
    let mut batches = Batches::open(file.seekable().await?).await?;
    columnar::positions(&batches.schema(), columns)?;
    let (columns, bytes_read, size) = (columns.clone(), file.bytes_read.clone(), file.file.size);
    // A pipe ends in the same way whether its writer finished or failed. A file may lack the marker, which the format
    // allows.
    let must_end = file.file.is_stdin();
    Ok(spawn_rows(move |send| {
        let mut first = 0;
        for batch in batches.by_ref() {
            let batch = batch?;
            for start in (0..batch.num_rows()).step_by(BATCH_ROWS) {
                let part = batch.slice(start, BATCH_ROWS.min(batch.num_rows() - start));
                if !send(columnar::rows(&part, &columns, first)?) {
                    return Ok(());
                }
                first += part.num_rows() as u64;
            }
        }
        if must_end {
            batches.expect_end()?;
        }
        bytes_read.add(size as usize);
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use std::{io::Cursor, sync::Arc};

    use arrow::{array::StringArray, ipc::writer::StreamWriter};

    use super::*;

    /// Two batches of two rows.
    fn stream() -> Vec<u8> {
        let ids = Arc::new(StringArray::from(vec!["a", "b"])) as _;
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    /// The rows of a stream that must end with its marker.
    fn rows(bytes: &[u8]) -> Result<usize, ReadError> {
        let mut batches = Batches::read_header(Box::new(Cursor::new(bytes.to_vec())))?;
        let mut rows = 0;
        for batch in batches.by_ref() {
            rows += batch?.num_rows();
        }
        batches.expect_end()?;
        Ok(rows)
    }

    #[test]
    fn stream_that_breaks_off_anywhere_is_not_read_to_its_end() {
        let whole = stream();
        assert_eq!(rows(&whole).unwrap(), 4);
        for length in 0..whole.len() {
            assert!(rows(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
        }
        let marker = rows(&whole[..whole.len() - 8]).unwrap_err();
        assert!(marker.to_string().contains("end-of-stream marker"), "{marker}");
        let two = rows(&[whole.clone(), whole].concat()).unwrap_err();
        assert!(two.to_string().contains("bytes follow"), "{two}");
    }
}
