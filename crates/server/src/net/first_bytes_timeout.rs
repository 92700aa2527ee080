//! A stream that fails when its client does not begin to send.

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

/// Fails a read when the client has not sent its first bytes in time. Later reads have no timeout here.
#[derive(Debug)]
pub(crate) struct FirstBytesTimeout<S> {
    stream: S,
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl<S> FirstBytesTimeout<S> {
    pub(crate) fn new(stream: S, bytes: usize, timeout: Duration) -> Self {
        Self { stream, missing: bytes, deadline: Box::pin(sleep(timeout)) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytesTimeout<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytesTimeout<S> {
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
    async fn a_client_that_does_not_begin_times_out_and_one_that_has_begun_may_pause() {
        let (near, mut far) = duplex(8);
        far.write_all(b"abc").await.unwrap();
        let mut near = FirstBytesTimeout::new(near, 4, Duration::from_millis(1));
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
