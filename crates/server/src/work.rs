//! Where requests are worked on: beside the threads that read and answer them, a few at a time, and not for ever.
//!
//! A statement that nests deeply needs a deep stack: planners go down a call for each level. And one that computes for
//! seconds without a pause cannot be ended before, not even when its time is up: so each statement, and each search with
//! a condition, has threads that no other uses meanwhile, and they are given back when it has really ended. While none of
//! them comes back, the server is not ready.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

use crate::{Limits, error::ApiError};

/// Bytes of a thread's stack: only what is used takes memory.
const STACK: usize = 256 << 20;

/// How many may wait for each that works.
const QUEUE: usize = 4;

/// Reads of local files that searches do at the same time, at least. A search does a hundred of some microseconds each:
/// with hundreds of threads for them most of the time would go to waking one after another.
const READERS: usize = 4;

/// Threads of a statement that do what blocks. Each spilled run that is merged holds one until the merge is done, so few
/// would wait for each other for ever.
const SPILLED: usize = 512;

/// Searches with a condition that compute at once.
const CONDITIONS: usize = 16;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A search, a lookup, a model.
    Search,
    /// A search with a condition, which is computed for each row.
    Condition,
    /// Anything that is planned as SQL.
    Statement,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Work {
    searches: Threads,
    conditions: Lanes,
    lanes: Lanes,
    turns: Turns,
    time: Duration,
}

impl Work {
    pub(crate) fn new(limits: &Limits) -> io::Result<Self> {
        Ok(Self {
            searches: Threads::start("polylance-search", cores(), cores().max(READERS))?,
            conditions: Lanes::new("polylance-where", CONDITIONS, READERS, limits.queue),
            lanes: Lanes::new("polylance-sql", limits.statements, SPILLED, limits.queue),
            turns: Turns::new(limits.requests, limits.queue),
            time: limits.time,
        })
    }

    /// Does the work once it is its turn. Dropping the future ends the work, at its next pause.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        // Dropped after the work was aborted.
        let _request;
        let mut running = JoinSet::new();
        let _turn = match kind {
            Kind::Search => {
                _request = None;
                let turn = self.turns.next().await?;
                running.spawn_on(work, self.searches.handle());
                turn
            }
            Kind::Condition | Kind::Statement => {
                let lanes = if kind == Kind::Statement { &self.lanes } else { &self.conditions };
                let lane = lanes.next().await?;
                let turn = self.turns.next().await?;
                _request = Some(Request(Arc::clone(&lane.use_)));
                let threads = lane.handle().clone();
                let in_lane = async move {
                    let _lane = lane;
                    work.await
                };
                running.spawn_on(in_lane, &threads);
                turn
            }
        };
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

    /// Why no statement or no condition can be computed now, while that is so.
    pub(crate) fn is_held(&self) -> Option<&'static str> {
        if self.lanes.are_held() {
            return Some("all threads for SQL compute for requests that have ended");
        }
        self.conditions.are_held().then_some("all threads for conditions compute for requests that have ended")
    }

    /// Requests that are being worked on.
    pub(crate) fn in_work(&self) -> usize {
        self.turns.taken()
    }
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A runtime whose end waits for nobody.
#[derive(Debug)]
struct Threads {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Threads {
    /// `readers` threads beside them do what blocks.
    fn start(name: &str, threads: usize, readers: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.enable_all().worker_threads(threads).thread_name(name).thread_stack_size(STACK);
        builder.max_blocking_threads(readers);
        let runtime = builder.build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Threads for what computes: as many lanes as may compute at once, each made when it is first needed.
#[derive(Debug)]
struct Lanes {
    name: &'static str,
    readers: usize,
    turns: Turns,
    free: Arc<Mutex<Vec<Threads>>>,
    held: Arc<AtomicUsize>,
}

/// Who is done with a lane: it is held while its request has ended and its work has not.
#[derive(Debug)]
struct Use {
    ended: Mutex<(bool, bool)>,
    held: Arc<AtomicUsize>,
}

impl Use {
    fn end(&self, work: bool) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (work_ended, request_ended) = *ended;
        if work {
            if request_ended {
                self.held.fetch_sub(1, Ordering::Relaxed);
            }
            ended.0 = true;
        } else {
            if !work_ended {
                self.held.fetch_add(1, Ordering::Relaxed);
            }
            ended.1 = true;
        }
    }
}

/// A request that waits for its work.
struct Request(Arc<Use>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.end(false);
    }
}

/// Threads with one statement on them.
struct Lane {
    threads: Option<Threads>,
    free: Arc<Mutex<Vec<Threads>>>,
    use_: Arc<Use>,
    _turn: OwnedSemaphorePermit,
}

impl Lanes {
    fn new(name: &'static str, lanes: usize, readers: usize, queue: Duration) -> Self {
        Self { name, readers, turns: Turns::new(lanes, queue), free: Arc::default(), held: Arc::default() }
    }

    fn are_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) >= self.turns.all
    }

    async fn next(&self) -> Result<Lane, ApiError> {
        let turn = self.turns.next().await?;
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let threads = match free {
            Some(threads) => threads,
            // Two at least: while one computes, the other reads.
            None => Threads::start(self.name, (cores() / 2).max(2), self.readers).map_err(|error| {
                tracing::error!(%error, "the threads for a request could not be started");
                ApiError::busy()
            })?,
        };
        let use_ = Arc::new(Use { ended: Mutex::default(), held: Arc::clone(&self.held) });
        Ok(Lane { threads: Some(threads), free: Arc::clone(&self.free), use_, _turn: turn })
    }
}

impl Lane {
    fn handle(&self) -> &Handle {
        self.threads.as_ref().expect("the threads are taken at the end only").handle()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).extend(self.threads.take());
        self.use_.end(true);
    }
}

/// Who may work, and a short queue of those who want to.
#[derive(Debug)]
struct Turns {
    places: Arc<Semaphore>,
    all: usize,
    waiting: AtomicUsize,
    patience: Duration,
}

impl Turns {
    fn new(turns: usize, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(turns)), all: turns, waiting: AtomicUsize::new(0), patience }
    }

    async fn next(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        if let Ok(turn) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(turn);
        }
        let waiting = Waiting::new(&self.waiting);
        if waiting.before >= QUEUE * self.all {
            return Err(ApiError::busy());
        }
        match timeout(self.patience, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::busy()),
        }
    }

    fn taken(&self) -> usize {
        self.all - self.places.available_permits()
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
    async fn a_statement_without_a_pause_holds_its_own_lane_alone() {
        let work = work(|limits| {
            (limits.statements, limits.queue, limits.time) = (2, Duration::ZERO, Duration::from_millis(50));
        });
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (gone, went) = oneshot::channel();
        let busy = async move {
            // Cannot be ended: as a function that computes for long.
            let _ended = ended.recv();
            let _gone = gone.send(());
            Ok(())
        };
        assert_eq!(work.run(Kind::Statement, busy).await.unwrap_err().code, "too_slow");
        assert_eq!((work.lanes.turns.taken(), work.in_work()), (1, 0));
        assert_eq!(work.lanes.held.load(Ordering::Relaxed), 1);
        work.run(Kind::Statement, async { Ok(()) }).await.unwrap();
        assert_eq!(work.is_held(), None);
        drop(end);
        went.await.unwrap();
        while work.lanes.turns.taken() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(work.lanes.held.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_condition_without_a_pause_stops_no_other_search() {
        let work = work(|limits| (limits.queue, limits.time) = (Duration::ZERO, Duration::from_millis(50)));
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        for _ in 0..CONDITIONS {
            let ended = Arc::clone(&ended);
            let busy = async move {
                let _ended = ended.lock().unwrap().recv();
                Ok(())
            };
            assert_eq!(work.run(Kind::Condition, busy).await.unwrap_err().code, "too_slow");
        }
        // All their threads are held: another condition is sent away, searches and statements are answered.
        assert_eq!(work.run(Kind::Condition, async { Ok(()) }).await.unwrap_err().code, "busy");
        work.run(Kind::Search, async { Ok(()) }).await.unwrap();
        work.run(Kind::Statement, async { Ok(()) }).await.unwrap();
        assert!(work.is_held().is_some());
        drop(end);
        while work.is_held().is_some() {
            tokio::task::yield_now().await;
        }
        while work.conditions.turns.taken() > 0 {
            tokio::task::yield_now().await;
        }
        work.run(Kind::Condition, async { Ok(()) }).await.unwrap();
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
