//! Streams that give up on a client: one that takes next to nothing, and one that does not begin.

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

/// Bytes per second that a client takes at least while there is something for it.
const SLOWEST: u64 = 4096;

/// Fails when a client takes less than [`SLOWEST`] for so long. Reading has limits of its own.
#[derive(Debug)]
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Since the client was first waited for: until when it may be, and the bytes that it has taken.
    waiting: Option<(Pin<Box<Sleep>>, u64)>,
}

impl<S: Unpin> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, waiting: None }
    }

    fn stream(&mut self) -> Pin<&mut S> {
        Pin::new(&mut self.stream)
    }

    fn written(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some((_, taken))) = (&polled, &mut self.waiting) {
            *taken += *bytes as u64;
        }
        if polled.is_ready() { polled } else { self.wait(cx) }
    }

    /// Everything is written: nothing is waited for.
    fn flushed(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        if polled.is_pending() {
            return self.wait(cx);
        }
        self.waiting = None;
        polled
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let patience = self.patience;
        let least = (patience.as_secs_f64() * SLOWEST as f64) as u64;
        loop {
            let (until, taken) = self.waiting.get_or_insert_with(|| (Box::pin(sleep(patience)), 0));
            ready!(until.as_mut().poll(cx));
            if *taken < least.max(1) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.waiting = None;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
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

/// Fails reading when a client has not sent its first bytes in time. What comes after them is not its business.
#[derive(Debug)]
pub(crate) struct Greeted<S> {
    stream: S,
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> Greeted<S> {
    pub(crate) fn new(stream: S, bytes: usize, within: Duration) -> Self {
        Self { stream, missing: bytes, deadline: Box::pin(sleep(within)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Greeted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        self.missing = self.missing.saturating_sub(buffer.filled().len() - before);
        if polled.is_pending() && self.missing > 0 {
            ready!(self.deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Greeted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn a_reader_that_stops_is_given_up_and_one_that_reads_is_not() {
        let (near, mut far) = duplex(4);
        let mut near = Impatient::new(near, Duration::from_millis(1));
        let error = near.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (near, rest) = duplex(4);
        let mut near = Impatient::new(near, Duration::from_mins(1));
        drop(std::mem::replace(&mut far, rest));
        let mut read = vec![0; 64];
        let (written, taken) = tokio::join!(near.write_all(&[7; 64]), far.read_exact(&mut read));
        assert!(written.is_ok() && taken.is_ok() && read == [7; 64]);
    }

    #[tokio::test]
    async fn a_reader_of_a_few_bytes_at_a_time_is_given_up() {
        let (near, mut far) = duplex(4);
        let patience = Duration::from_millis(100);
        let mut near = Impatient::new(near, patience);
        let reading = async {
            // A byte each 10 ms: always some progress, and far below the slowest.
            let mut byte = [0];
            while far.read_exact(&mut byte).await.is_ok() {
                sleep(patience / 10).await;
            }
        };
        tokio::select! {
            written = near.write_all(&[0; 4096]) => assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut),
            () = reading => panic!("the reader ended first"),
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_begin_is_given_up_and_one_that_has_begun_may_rest() {
        let (near, mut far) = duplex(8);
        far.write_all(b"abc").await.unwrap();
        let mut near = Greeted::new(near, 4, Duration::from_millis(1));
        let mut begun = [0; 3];
        near.read_exact(&mut begun).await.unwrap();
        assert_eq!(near.read(&mut [0; 3]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);

        far.write_all(b"d").await.unwrap();
        near.read_exact(&mut begun[..1]).await.unwrap();
        let mut rest = [0; 3];
        tokio::select! {
            read = near.read(&mut rest) => panic!("{read:?} was read"),
            () = sleep(Duration::from_millis(20)) => {}
        }
    }
}
