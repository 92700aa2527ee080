//! Text files: readers on blocking threads, whose rows come back through a bounded channel.

use std::io::{self, Read};

use datafusion::{common::runtime::SpawnedTask, physical_plan::metrics::Count};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    runtime::Handle,
    sync::{mpsc, oneshot},
};
use tokio_util::io::StreamReader;

use super::{
    error::ReadError,
    format::Compression,
    open_file::OpenFile,
    rows::{RowStream, Rows},
};

/// The largest number of batches that wait in the channel.
const MAX_WAITING_BATCHES: usize = 2;

/// Runs a reader on a blocking thread. It receives a function that sends rows, and returns false when the stream was
/// dropped. An error of the reader is the last item of the stream.
pub(super) fn spawn_rows(
    read: impl FnOnce(&mut dyn FnMut(Rows) -> bool) -> Result<(), ReadError> + Send + 'static,
) -> RowStream {
    let (sender, receiver) = mpsc::channel(MAX_WAITING_BATCHES);
    let task = SpawnedTask::spawn_blocking(move || {
        let mut send = |rows| sender.blocking_send(Ok(rows)).is_ok();
        if let Err(error) = read(&mut send) {
            // The send fails only if the stream was dropped, which needs no error.
            drop(sender.blocking_send(Err(error)));
        }
    });
    // The task lives as long as the stream. A panic of the reader is an error and not the end of the file.
    stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
        if let Some(rows) = receiver.recv().await {
            return Some((rows, (receiver, task)));
        }
        let error = task?.await.err()?;
        Some((Err(ReadError::Content(format!("the reader failed: {error}"))), (receiver, None)))
    })
    .boxed()
}

/// Reads a file on a blocking thread. `read` receives a function that returns whether the caller was dropped.
pub(super) async fn spawn_blocking_read<T: Send + 'static>(
    read: impl FnOnce(&dyn Fn() -> bool) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let (alive, watched) = oneshot::channel::<()>();
    let task = SpawnedTask::spawn_blocking(move || read(&|| alive.is_closed()));
    let found = task.await.map_err(io::Error::other)?;
    drop(watched);
    found
}

/// The decompressed bytes of a file, to be read on a blocking thread.
pub(super) async fn plain(file: &OpenFile, compression: Compression) -> Result<impl Read + Send + use<>, ReadError> {
    let bytes = file.get(None).await?.into_stream();
    let counted = count(bytes.map_err(io::Error::other), file.counts.bytes_read.clone());
    let reader = compression.plain(StreamReader::new(counted.boxed()));
    Ok(io::BufReader::with_capacity(64 << 10, Blocking { reader, runtime: Handle::current() }))
}

/// An asynchronous reader on a blocking thread.
struct Blocking {
    reader: Box<dyn AsyncRead + Send + Unpin>,
    runtime: Handle,
}

impl Read for Blocking {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.reader.read(buffer))
    }
}

fn count(
    bytes: impl stream::Stream<Item = io::Result<bytes::Bytes>> + Send + 'static,
    read: Count,
) -> impl stream::Stream<Item = io::Result<bytes::Bytes>> + Send + 'static {
    bytes.inspect_ok(move |bytes| read.add(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_of_a_reader_is_an_error_and_not_the_end() {
        let mut rows = spawn_rows(|_| panic!("a defect"));
        assert!(
            matches!(rows.next().await, Some(Err(ReadError::Content(message))) if message.contains("the reader failed"))
        );
        assert!(rows.next().await.is_none());
    }
}
