//! Where requests run: not on the threads that read and write connections, a few at once, and for a limited time.
//!
//! Planners recurse once for each level of nesting, so the threads have deep stacks. A statement that computes for
//! seconds without a pause cannot be stopped, not even when its time is up. So each statement, and each search with a
//! condition, has a runtime of its own, which is reused after the work has really ended. While no runtime comes back, the
//! server is not ready.

mod runtimes;

use std::{io, time::Duration};

use tokio::{task::JoinSet, time::timeout};

use self::runtimes::{DetachedRuntime, RuntimePool, cores};
use crate::{
    error::ApiError,
    limits::{Limits, concurrency::ConcurrencyLimiter},
};

/// Threads at least for the reads of local files that searches do. A search does about a hundred reads of some
/// microseconds each: with hundreds of threads most of the time would go to waking them.
const MIN_LOCAL_READ_THREADS: usize = 4;

/// Threads for the blocking calls of a statement. Each spilled run that is being merged holds one until the merge is
/// done, so that with too few threads they would wait for each other forever.
const STATEMENT_BLOCKING_THREADS: usize = 512;

/// Searches with a condition that run at once.
const MAX_FILTERED_SEARCHES: usize = 16;

/// What a request needs of the executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestClass {
    /// A search, a lookup, a model call.
    Search,
    /// A search with a condition, which is computed for each row.
    FilteredSearch,
    /// Anything that is planned as SQL.
    Statement,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Executor {
    search_runtime: DetachedRuntime,
    filter_runtimes: RuntimePool,
    statement_runtimes: RuntimePool,
    limiter: ConcurrencyLimiter,
    request_timeout: Duration,
}

impl Executor {
    pub(crate) fn new(limits: &Limits) -> io::Result<Self> {
        let queue_timeout = limits.queue_timeout;
        let (read_threads, statements) = (MIN_LOCAL_READ_THREADS, limits.max_statements);
        Ok(Self {
            search_runtime: DetachedRuntime::start("polylance-search", cores(), cores().max(read_threads))?,
            filter_runtimes: RuntimePool::new("polylance-where", MAX_FILTERED_SEARCHES, read_threads, queue_timeout),
            statement_runtimes: RuntimePool::new(
                "polylance-sql",
                statements,
                STATEMENT_BLOCKING_THREADS,
                queue_timeout,
            ),
            limiter: ConcurrencyLimiter::new(limits.max_requests, queue_timeout),
            request_timeout: limits.request_timeout,
        })
    }

    /// Runs the work when its turn has come. Dropping the future stops the work at its next pause.
    pub(crate) async fn execute<T: Send + 'static>(
        &self,
        class: RequestClass,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        // Declared first, so that it is dropped after the work was aborted.
        let _request;
        let mut running = JoinSet::new();
        let runtimes = match class {
            RequestClass::Search => None,
            RequestClass::FilteredSearch => Some(&self.filter_runtimes),
            RequestClass::Statement => Some(&self.statement_runtimes),
        };
        let _permit = if let Some(runtimes) = runtimes {
            let leased = runtimes.lease().await?;
            let permit = self.limiter.acquire().await?;
            _request = Some(leased.request());
            let handle = leased.handle().clone();
            let leasing_work = async move {
                let _leased = leased;
                work.await
            };
            running.spawn_on(leasing_work, &handle);
            permit
        } else {
            _request = None;
            let permit = self.limiter.acquire().await?;
            running.spawn_on(work, self.search_runtime.handle());
            permit
        };
        match timeout(self.request_timeout, running.join_next()).await {
            Ok(Some(Ok(done))) => done,
            Ok(failed) => {
                let error = failed.and_then(Result::err);
                tracing::error!(?error, "a request panicked");
                Err(ApiError::too_much("failed", "the request failed"))
            }
            Err(_) => {
                let message = format!("the request did not finish within {} seconds", self.request_timeout.as_secs());
                Err(ApiError::too_much("too_slow", message).hint("request less at once"))
            }
        }
    }

    /// Why no statement or no condition can be computed now, as long as that is so.
    pub(crate) fn stuck_reason(&self) -> Option<&'static str> {
        if self.statement_runtimes.are_all_stuck() {
            return Some("all threads for SQL still compute for requests that have ended");
        }
        let filters = self.filter_runtimes.are_all_stuck();
        filters.then_some("all threads for conditions still compute for requests that have ended")
    }

    /// Requests that are running.
    pub(crate) fn running(&self) -> usize {
        self.limiter.running()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex, atomic::Ordering, mpsc},
    };

    use axum::http::StatusCode;
    use tokio::sync::oneshot;

    use super::*;

    fn executor(change: impl FnOnce(&mut Limits)) -> Executor {
        let mut limits = Limits::default();
        change(&mut limits);
        Executor::new(&limits).unwrap()
    }

    #[tokio::test]
    async fn queue_full_returns_busy() {
        let executor = executor(|limits| (limits.max_requests, limits.queue_timeout) = (1, Duration::ZERO));
        let (began, begun) = oneshot::channel();
        let first = executor.execute(RequestClass::Search, async {
            began.send(()).unwrap();
            pending::<Result<(), ApiError>>().await
        });
        let second = async {
            begun.await.unwrap();
            executor.execute(RequestClass::Search, async { Ok(()) }).await
        };
        tokio::select! {
            _ = first => panic!("the first never ends"),
            refused = second => assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE),
        }
        // The first was dropped and returned its permit.
        assert_eq!(executor.running(), 0);
        executor.execute(RequestClass::Search, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_request_ends_at_its_timeout() {
        let executor = executor(|limits| limits.request_timeout = Duration::from_millis(1));
        let error = executor.execute(RequestClass::Statement, pending::<Result<(), ApiError>>()).await.unwrap_err();
        assert_eq!((error.status, error.code), (StatusCode::UNPROCESSABLE_ENTITY, "too_slow"));
    }

    #[tokio::test]
    async fn a_statement_that_cannot_be_stopped_blocks_only_its_own_runtime() {
        let executor = executor(|limits| {
            (limits.max_statements, limits.queue_timeout, limits.request_timeout) =
                (2, Duration::ZERO, Duration::from_millis(50));
        });
        let (end, ended) = mpsc::channel::<()>();
        let (gone, went) = oneshot::channel();
        let busy = async move {
            // Cannot be stopped, like a function that computes for long.
            let _ended = ended.recv();
            let _gone = gone.send(());
            Ok(())
        };
        assert_eq!(executor.execute(RequestClass::Statement, busy).await.unwrap_err().code, "too_slow");
        assert_eq!((executor.statement_runtimes.limiter.running(), executor.running()), (1, 0));
        assert_eq!(executor.statement_runtimes.stuck.load(Ordering::Relaxed), 1);
        executor.execute(RequestClass::Statement, async { Ok(()) }).await.unwrap();
        assert_eq!(executor.stuck_reason(), None);
        drop(end);
        went.await.unwrap();
        while executor.statement_runtimes.limiter.running() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(executor.statement_runtimes.stuck.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn conditions_that_cannot_be_stopped_block_no_other_requests() {
        let executor = executor(|limits| {
            (limits.queue_timeout, limits.request_timeout) = (Duration::ZERO, Duration::from_millis(50));
        });
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..MAX_FILTERED_SEARCHES {
            let ended = Arc::clone(&ended);
            let busy = async move {
                let _ended = ended.lock().unwrap().recv();
                Ok(())
            };
            assert_eq!(executor.execute(RequestClass::FilteredSearch, busy).await.unwrap_err().code, "too_slow");
        }
        // All their runtimes are stuck: another condition is refused, searches and statements still run.
        assert_eq!(executor.execute(RequestClass::FilteredSearch, async { Ok(()) }).await.unwrap_err().code, "busy");
        executor.execute(RequestClass::Search, async { Ok(()) }).await.unwrap();
        executor.execute(RequestClass::Statement, async { Ok(()) }).await.unwrap();
        assert!(executor.stuck_reason().is_some());
        drop(end);
        while executor.stuck_reason().is_some() {
            tokio::task::yield_now().await;
        }
        while executor.filter_runtimes.limiter.running() > 0 {
            tokio::task::yield_now().await;
        }
        executor.execute(RequestClass::FilteredSearch, async { Ok(()) }).await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_returns_an_error() {
        let executor = executor(|_| {});
        let panics = async { Err(ApiError::bad("never", [""; 0].first().expect("nothing").to_string())) };
        let error = executor.execute::<()>(RequestClass::Statement, panics).await.unwrap_err();
        assert_eq!(error.code, "failed");
    }

    #[tokio::test]
    async fn threads_have_deep_stacks() {
        fn down(levels: usize) -> usize {
            let frame = std::hint::black_box([levels; 128]);
            if levels == 0 { frame[0] } else { 1 + down(levels - 1) }
        }
        let levels = 30_000;
        assert_eq!(
            executor(|_| {}).execute(RequestClass::Statement, async move { Ok(down(levels)) }).await.unwrap(),
            levels
        );
    }
}
