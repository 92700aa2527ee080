//! Where requests are worked on: beside the threads that read and answer them, a few at a time, and not for ever.
//!
//! A statement that computes keeps a thread busy, and one that nests deeply needs a deep stack: planners go down a
//! call for each level. So work runs on threads of its own, and SQL on others than searches.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::{Semaphore, SemaphorePermit},
    task::JoinSet,
    time::timeout,
};

use crate::{Limits, error::ApiError};

/// Bytes of a thread's stack: only what is used takes memory.
const STACK: usize = 256 << 20;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A search, a lookup, a model.
    Search,
    /// Anything that is planned as SQL.
    Statement,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Work {
    searches: Threads,
    statements: Threads,
    turns: Turns,
    statement_turns: Turns,
    time: Duration,
}

impl Work {
    pub(crate) fn new(limits: &Limits) -> std::io::Result<Self> {
        Ok(Self {
            searches: Threads::start("polylance-search")?,
            statements: Threads::start("polylance-sql")?,
            turns: Turns::new(limits.requests, limits.queue),
            statement_turns: Turns::new(limits.statements, limits.queue),
            time: limits.time,
        })
    }

    /// Does the work once it is its turn. Dropping the future ends the work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let threads = match kind {
            Kind::Search => &self.searches,
            Kind::Statement => &self.statements,
        };
        let _statement = match kind {
            Kind::Search => None,
            Kind::Statement => Some(self.statement_turns.next().await?),
        };
        let _turn = self.turns.next().await?;
        let mut running = JoinSet::new();
        running.spawn_on(work, threads.runtime().handle());
        match timeout(self.time, running.join_next()).await {
            Ok(Some(Ok(done))) => done,
            Ok(failed) => {
                let error = failed.and_then(Result::err);
                tracing::error!(?error, "a request panicked");
                Err(ApiError::too_much("failed", "the request could not be worked on"))
            }
            Err(_) => {
                let message = format!("the request was not done within {} seconds", self.time.as_secs());
                Err(ApiError::too_much("too_slow", message).hint("ask for less at once"))
            }
        }
    }

    /// Requests that are being worked on.
    pub(crate) fn in_work(&self) -> usize {
        self.turns.taken()
    }
}

/// A runtime whose end waits for nobody.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn start(name: &str) -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name(name).thread_stack_size(STACK).build()?;
        Ok(Self(Some(runtime)))
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("the runtime is taken at the end only")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who may work, and a short queue of those who want to.
#[derive(Debug)]
struct Turns {
    free: Semaphore,
    all: usize,
    waiting: AtomicUsize,
    patience: Duration,
}

impl Turns {
    fn new(turns: usize, patience: Duration) -> Self {
        Self { free: Semaphore::new(turns), all: turns, waiting: AtomicUsize::new(0), patience }
    }

    async fn next(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        if let Ok(turn) = self.free.try_acquire() {
            return Ok(turn);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= self.all {
            return Err(ApiError::busy());
        }
        match timeout(self.patience, self.free.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::busy()),
        }
    }

    fn taken(&self) -> usize {
        self.all - self.free.available_permits()
    }
}

/// One that waits, counted until it is dropped.
struct Waiting<'c> {
    count: &'c AtomicUsize,
    before: usize,
}

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        Self { count, before: count.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use axum::http::StatusCode;
    use tokio::sync::oneshot;

    use super::*;

    fn work(change: impl FnOnce(&mut Limits)) -> Work {
        let mut limits = Limits::default();
        change(&mut limits);
        Work::new(&limits).unwrap()
    }

    #[tokio::test]
    async fn who_finds_no_place_is_told_to_come_again() {
        let work = work(|limits| (limits.requests, limits.queue) = (1, Duration::ZERO));
        let (began, begun) = oneshot::channel();
        let first = work.run(Kind::Search, async {
            began.send(()).unwrap();
            pending::<Result<(), ApiError>>().await
        });
        let second = async {
            begun.await.unwrap();
            work.run(Kind::Search, async { Ok(()) }).await
        };
        tokio::select! {
            _ = first => panic!("the first never ends"),
            refused = second => assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE),
        }
        // The first was dropped, and gave its place back.
        assert_eq!(work.in_work(), 0);
        work.run(Kind::Search, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn work_ends_in_time() {
        let work = work(|limits| limits.time = Duration::from_millis(1));
        let error = work.run(Kind::Statement, pending::<Result<(), ApiError>>()).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::UNPROCESSABLE_ENTITY, "too_slow"));
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_too() {
        let work = work(|_| {});
        let panics = async { Err(ApiError::bad("never", [""; 0].first().expect("nothing").to_string())) };
        let error = work.run::<()>(Kind::Statement, panics).await.unwrap_err();
        assert_eq!(error.code, "failed");
    }

    #[tokio::test]
    async fn stacks_are_deep() {
        fn down(levels: usize) -> usize {
            let frame = std::hint::black_box([levels; 128]);
            if levels == 0 { frame[0] } else { 1 + down(levels - 1) }
        }
        let levels = 30_000;
        assert_eq!(work(|_| {}).run(Kind::Statement, async move { Ok(down(levels)) }).await.unwrap(), levels);
    }
}
