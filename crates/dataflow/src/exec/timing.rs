//! Times of operators that wait for something else: their own work, and the time in which nothing but a store,
//! tokenizers or devices could make the stream go on.

use std::{
    future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use datafusion::physical_plan::metrics::Time;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};

/// Calls of an operator that are not answered yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenCalls(Arc<AtomicUsize>);

impl OpenCalls {
    /// Awaits a call, which counts as open until then or until it is dropped.
    pub(crate) async fn track<F: Future>(&self, call: F) -> F::Output {
        self.0.fetch_add(1, Ordering::Relaxed);
        let _open = OpenCall(&self.0);
        call.await
    }

    pub(crate) fn is_any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// One open call, until it is dropped.
struct OpenCall<'a>(&'a AtomicUsize);

impl Drop for OpenCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Adds to `work` the time that polls of a future take.
pub(crate) async fn time_work<F: Future>(call: F, work: Time) -> F::Output {
    let mut call = pin!(call);
    future::poll_fn(|context| {
        let _timer = work.timer();
        call.as_mut().poll(context)
    })
    .await
}

/// Adds to `work` the time that polls of a stream take.
pub(crate) fn time_polls<T: 'static>(mut input: BoxStream<'static, T>, work: Time) -> impl Stream<Item = T> + Send {
    stream::poll_fn(move |context| {
        let _timer = work.timer();
        input.poll_next_unpin(context)
    })
}

/// Adds to `wait` the time from a poll that is pending to the next one, as long as `is_waiting` holds at the first.
pub(crate) fn time_waits<T: 'static>(
    mut input: BoxStream<'static, T>,
    wait: Time,
    is_waiting: impl Fn() -> bool + Send,
) -> impl Stream<Item = T> + Send {
    let mut pending_since: Option<Instant> = None;
    stream::poll_fn(move |context| {
        if let Some(since) = pending_since.take() {
            wait.add_duration(since.elapsed());
        }
        let polled = input.poll_next_unpin(context);
        if polled.is_pending() && is_waiting() {
            pending_since = Some(Instant::now());
        }
        polled
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(200);

    fn paused() -> BoxStream<'static, u32> {
        stream::once(async {
            tokio::time::sleep(PAUSE).await;
            7
        })
        .boxed()
    }

    #[tokio::test]
    async fn a_pending_stream_counts_as_waiting_only_where_it_waits() {
        for (is_waiting, expected) in [(true, true), (false, false)] {
            let wait = Time::new();
            let found: Vec<u32> = time_waits(paused(), wait.clone(), move || is_waiting).collect().await;
            assert_eq!((found, wait.value() as u128 >= PAUSE.as_nanos() / 2), (vec![7], expected));
        }
    }

    #[tokio::test]
    async fn work_is_the_time_of_polls_without_the_time_between_them() {
        let work = Time::new();
        let found: Vec<u32> = time_polls(paused(), work.clone()).collect().await;
        assert_eq!(found, [7]);
        assert!(work.value() > 0 && (work.value() as u128) < PAUSE.as_nanos());
        let work = Time::new();
        time_work(tokio::time::sleep(PAUSE), work.clone()).await;
        assert!(work.value() > 0 && (work.value() as u128) < PAUSE.as_nanos());
    }

    #[tokio::test]
    async fn a_call_is_open_until_it_is_answered_or_dropped() {
        let calls = OpenCalls::default();
        assert!(!calls.is_any());
        assert_eq!(calls.track(async { (calls.is_any(), 7) }).await, (true, 7));
        assert!(!calls.is_any());
        let mut pending = Box::pin(calls.track(future::pending::<()>()));
        assert!(futures::poll!(&mut pending).is_pending() && calls.is_any());
        drop(pending);
        assert!(!calls.is_any());
    }
}
