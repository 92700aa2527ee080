//! Text files: plain bytes on a thread that may block, rows back through a bounded channel.

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

/// Batches that may wait for the operator above.
const WAITING: usize = 2;

/// Runs a reader on a blocking thread. It is given a function that passes rows on and says whether anyone still wants
/// them; an error it returns is the stream's last item.
pub(super) fn spawn_rows(
    read: impl FnOnce(&mut dyn FnMut(Rows) -> bool) -> Result<(), ReadError> + Send + 'static,
) -> RowStream {
    let (sender, receiver) = mpsc::channel(WAITING);
    let task = SpawnedTask::spawn_blocking(move || {
        let mut send = |rows| sender.blocking_send(Ok(rows)).is_ok();
        if let Err(error) = read(&mut send) {
            // Nobody listens any more: nobody needs to know.
            drop(sender.blocking_send(Err(error)));
        }
    });
    // The task lives as long as the stream. A reader that panics must not look like the end of its file.
    stream::unfold((receiver, Some(task)), |(mut receiver, task)| async move {
        if let Some(rows) = receiver.recv().await {
            return Some((rows, (receiver, task)));
        }
        let error = task?.await.err()?;
        Some((Err(ReadError::Content(format!("the reader broke down: {error}"))), (receiver, None)))
    })
    .boxed()
}

/// Looks at a file on a thread that may block. The function is given another that says whether nobody waits any more.
pub(super) async fn spawn_look<T: Send + 'static>(
    look: impl FnOnce(&dyn Fn() -> bool) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    let (alive, watched) = oneshot::channel::<()>();
    let task = SpawnedTask::spawn_blocking(move || look(&|| alive.is_closed()));
    let found = task.await.map_err(io::Error::other)?;
    drop(watched);
    found
}

/// The file's plain bytes, to be read on a thread that may block.
pub(super) async fn plain(file: &OpenFile, compression: Compression) -> Result<impl Read + Send + use<>, ReadError> {
    let bytes = file.get(None).await?.into_stream();
    let counted = count(bytes.map_err(io::Error::other), file.bytes_read.clone());
    let reader = compression.plain(StreamReader::new(counted.boxed()));
    Ok(io::BufReader::with_capacity(64 << 10, Blocking { reader, runtime: Handle::current() }))
}

/// An asynchronous reader on a thread that may block.
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
    async fn a_reader_that_panics_is_an_error_and_not_an_end() {
        let mut rows = spawn_rows(|_| panic!("a defect"));
        assert!(matches!(rows.next().await, Some(Err(ReadError::Content(message))) if message.contains("broke down")));
        assert!(rows.next().await.is_none());
    }
}
