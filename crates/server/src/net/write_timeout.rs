//! A stream that fails when its client receives too slowly.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// The slowest a client may receive while there is something to send.
const MIN_BYTES_PER_SECOND: u64 = 4096;

/// Fails a write when the client receives less than [`MIN_BYTES_PER_SECOND`] for the whole timeout. Reads have limits of
/// their own.
#[derive(Debug)]
pub(crate) struct WriteTimeout<S> {
    stream: S,
    timeout: Duration,
    /// While the client is waited for: the deadline, and the bytes that it has received since.
    waiting: Option<(Pin<Box<Sleep>>, u64)>,
}

impl<S: Unpin> WriteTimeout<S> {
    pub(crate) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, waiting: None }
    }

    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some((_, received))) = (&polled, &mut self.waiting) {
            *received += *bytes as u64;
        }
        if polled.is_ready() { polled } else { self.wait(cx) }
    }

    /// After a flush everything is written: the client is no longer waited for.
    fn flushed(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if polled.is_pending() {
            return self.wait(cx);
        }
        self.waiting = None;
        polled
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let timeout = self.timeout;
        let min_bytes = (timeout.as_secs_f64() * MIN_BYTES_PER_SECOND as f64) as u64;
        loop {
            let (deadline, received) = self.waiting.get_or_insert_with(|| (Box::pin(sleep(timeout)), 0));
            ready!(deadline.as_mut().poll(cx));
            if *received < min_bytes.max(1) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.waiting = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write(cx, buffer);
        self.written(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = self.stream().poll_write_vectored(cx, buffers);
        self.written(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_flush(cx);
        self.flushed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.stream().poll_shutdown(cx);
        self.flushed(cx, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_stops_times_out_and_one_that_reads_does_not() {
        let (near, mut far) = duplex(4);
        let mut near = WriteTimeout::new(near, Duration::from_millis(1));
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (near, rest) = duplex(4);
        let mut near = WriteTimeout::new(near, Duration::from_mins(1));
        drop(std::mem::replace(&mut far, rest));
        let mut read = vec![0; 64];
        let (written, received) = tokio::join!(near.write_all(&[7; 64]), far.read_exact(&mut read));
        assert!(written.is_ok() && received.is_ok() && read == [7; 64]);
    }

    #[tokio::test]
    async fn a_reader_of_a_few_bytes_at_a_time_times_out() {
        let (near, mut far) = duplex(4);
        let timeout = Duration::from_millis(100);
        let mut near = WriteTimeout::new(near, timeout);
        let reading = async {
            // A byte each 10 ms: always some progress, and far below the minimum.
            let mut byte = [0];
            while far.read_exact(&mut byte).await.is_ok() {
                sleep(timeout / 10).await;
            }
        };
        tokio::select! {
            written = near.write_all(&[0; 4096]) => assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut),
            () = reading => panic!("the reader ended first"),
        }
    }
}
