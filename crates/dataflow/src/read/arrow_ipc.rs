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
    /// Opens a file of which only these columns are decoded.
    async fn open(file: Box<dyn ReadSeek>, columns: Columns) -> Result<Self, ReadError> {
        blocking(move || Self::read_header(file, &columns)).await
    }

    fn read_header(mut file: Box<dyn ReadSeek>, columns: &Columns) -> Result<Self, ReadError> {
        let schema = read_schema(&mut file)?;
        let mut positions = columnar::positions(&schema, columns)?;
        positions.sort_unstable();
        positions.dedup();
        // A batch without columns may not have the number of its rows.
        if positions.is_empty() && !schema.fields().is_empty() {
            positions.push(0);
        }
        let is_file = is_file_format(&mut file)?;
        let input = BufReader::new(file);
        Ok(if is_file {
            Self::File(FileReader::try_new(input, Some(positions))?)
        } else {
            Self::Stream(StreamReader::try_new(NotedEnd { input, is_reached: false }, Some(positions))?)
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
}

fn is_file_format(file: &mut Box<dyn ReadSeek>) -> io::Result<bool> {
    let mut magic = [0; 6];
    file.rewind()?;
    file.read_exact(&mut magic)?;
    file.rewind()?;
    Ok(&magic == b"ARROW1")
}

fn read_schema(file: &mut Box<dyn ReadSeek>) -> Result<SchemaRef, ReadError> {
    Ok(if is_file_format(file)? {
        FileReader::try_new(BufReader::new(file), None)?.schema()
    } else {
        StreamReader::try_new(BufReader::new(file), None)?.schema()
    })
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

/// Runs on a blocking thread, where a panic over a damaged header is an error of this file alone.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let done = tokio::task::spawn_blocking(read).await;
    done.map_err(|error| ReadError::Content(format!("the reader failed: {error}")))?
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
    let mut file = file.seekable().await?;
    blocking(move || read_schema(&mut file)).await
}

pub(super) async fn rows(file: &OpenFile, columns: &Columns) -> Result<RowStream, ReadError> {
    let mut batches = Batches::open(file.seekable().await?, columns.clone()).await?;
    let (columns, bytes_read, size) = (columns.clone(), file.counts.bytes_read.clone(), file.file.size);
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
        let columns = Columns { id: Some("id".to_owned()), ..Columns::default() };
        let mut batches = Batches::read_header(Box::new(Cursor::new(bytes.to_vec())), &columns)?;
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
