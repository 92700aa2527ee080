//! Requests that wait at the same moment are embedded in one call.
//!
//! A call costs a pass over the weights whatever it holds: ten queries in one call take hardly longer than one. Nobody
//! waits for others to come: a call begins as soon as the one before has ended, with all that wait by then.

use std::{collections::VecDeque, fmt, sync::Arc};

use datafusion::common::runtime::SpawnedTask;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use polylance_backend::{Backend, BackendError, BackendInfo, Chunk, Embeddings, Load, Result, TokenizeSpec};
use tokio::sync::{mpsc, oneshot};

/// Inputs of one request that go into a call together: between the parts of a long request others have their turn.
const PART: usize = 32;

/// Parts that wait; whoever has more waits before.
const WAITING: usize = 256;

/// A backend that embeds for many at once.
#[derive(Debug)]
pub(crate) struct Batched {
    inner: Arc<dyn Backend>,
    texts: Queue<(String, TokenizeSpec), Vec<Chunk>>,
    ids: Queue<Vec<u32>, Vec<f32>>,
}

impl Batched {
    /// `batch_size` hears how many inputs each call to the devices has.
    pub(crate) fn new(inner: Arc<dyn Backend>, batch_size: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let tokenizer = Arc::clone(&inner);
        let texts = Queue::start(usize::MAX, |_| 1, move |texts| tokenize(Arc::clone(&tokenizer), texts));
        let encoder = Arc::clone(&inner);
        let budget = inner.info().window_tokens;
        let ids = Queue::start(budget, Vec::len, move |inputs: Vec<Vec<u32>>| {
            batch_size(inputs.len());
            encode(Arc::clone(&encoder), inputs)
        });
        Self { inner, texts, ids }
    }
}

/// Texts that are cut alike go together.
async fn tokenize(backend: Arc<dyn Backend>, texts: Vec<(String, TokenizeSpec)>) -> Result<Vec<Vec<Chunk>>> {
    let mut cut = Vec::with_capacity(texts.len());
    let mut rest = VecDeque::from(texts);
    while let Some((first, spec)) = rest.pop_front() {
        let mut alike = vec![first];
        while let Some((text, _)) = rest.pop_front_if(|(_, other)| *other == spec) {
            alike.push(text);
        }
        cut.extend(backend.tokenize(alike, &spec).await?);
    }
    Ok(cut)
}

async fn encode(backend: Arc<dyn Backend>, inputs: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>> {
    let embeddings = backend.encode(inputs).await?;
    Ok(embeddings.values.chunks(embeddings.dim.max(1)).map(<[f32]>::to_vec).collect())
}

impl Backend for Batched {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>> {
        let queue = self.texts.clone();
        let texts = texts.into_iter().map(|text| (text, spec.clone())).collect();
        async move { queue.ask(texts).await }.boxed()
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>> {
        let (queue, dim) = (self.ids.clone(), self.inner.info().dim);
        async move { Ok(Embeddings { dim, values: queue.ask(inputs).await?.concat() }) }.boxed()
    }

    fn load(&self) -> Load {
        self.inner.load()
    }
}

/// Parts of requests on their way into calls.
struct Queue<I, O> {
    parts: mpsc::Sender<Part<I, O>>,
    /// Ends with the last that may ask.
    calls: Arc<SpawnedTask<()>>,
}

impl<I, O> Clone for Queue<I, O> {
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), calls: Arc::clone(&self.calls) }
    }
}

impl<I, O> fmt::Debug for Queue<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("room", &self.parts.capacity()).finish_non_exhaustive()
    }
}

struct Part<I, O> {
    inputs: Vec<I>,
    answer: oneshot::Sender<Result<Vec<O>>>,
}

impl<I: Clone + Send + 'static, O: Send + 'static> Queue<I, O> {
    /// A call takes parts whose inputs cost `budget` together at most, or one part alone.
    fn start<F: Future<Output = Result<Vec<O>>> + Send + 'static>(
        budget: usize,
        cost: impl Fn(&I) -> usize + Send + 'static,
        call: impl Fn(Vec<I>) -> F + Send + Sync + 'static,
    ) -> Self {
        let (parts, mut waiting) = mpsc::channel::<Part<I, O>>(WAITING);
        let calls = SpawnedTask::spawn(async move {
            let mut parts = Vec::new();
            while waiting.recv_many(&mut parts, WAITING).await > 0 {
                let mut rest = VecDeque::from(std::mem::take(&mut parts));
                rest.retain(|part| !part.answer.is_closed());
                while !rest.is_empty() {
                    let mut spent = 0;
                    let fits = rest.iter().position(|part| {
                        spent += part.inputs.iter().map(&cost).sum::<usize>();
                        spent > budget
                    });
                    let together = fits.unwrap_or(rest.len()).max(1);
                    answer(rest.drain(..together).collect(), &call).await;
                }
            }
        });
        Self { parts, calls: Arc::new(calls) }
    }

    async fn ask(&self, inputs: Vec<I>) -> Result<Vec<O>> {
        let mut answers = Vec::with_capacity(inputs.len());
        for inputs in inputs.chunks(PART) {
            let (answer, answered) = oneshot::channel();
            let part = Part { inputs: inputs.to_vec(), answer };
            self.parts.send(part).await.map_err(|_| BackendError::Closed)?;
            answers.extend(answered.await.map_err(|_| BackendError::Closed)??);
        }
        Ok(answers)
    }
}

/// One call for all parts. When an input is refused, each part is asked for alone: the others have done nothing wrong.
async fn answer<I: Clone, O, F: Future<Output = Result<Vec<O>>>>(parts: Vec<Part<I, O>>, call: &impl Fn(Vec<I>) -> F) {
    let together = parts.iter().flat_map(|part| part.inputs.iter().cloned()).collect();
    match call(together).await {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for part in parts {
                let own = answers.by_ref().take(part.inputs.len()).collect();
                // Who no longer waits needs no answer.
                let _gone = part.answer.send(Ok(own));
            }
        }
        Err(BackendError::Input(_)) if parts.len() > 1 => {
            join_all(parts.into_iter().map(async |part| {
                let _gone = part.answer.send(call(part.inputs).await);
            }))
            .await;
        }
        Err(error) => {
            for part in parts {
                let _gone = part.answer.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use polylance_schema::Chunking;
    use polylance_testkit::{FakeBackend, conformance};
    use tokio::sync::Semaphore;

    use super::*;

    /// A fake device that does one call each time it is let.
    #[derive(Debug)]
    struct Slow {
        inner: FakeBackend,
        calls: Arc<Semaphore>,
    }

    impl Backend for Slow {
        fn info(&self) -> &BackendInfo {
            self.inner.info()
        }

        fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>> {
            self.inner.tokenize(texts, spec)
        }

        fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>> {
            let (encoding, calls) = (self.inner.encode(inputs), Arc::clone(&self.calls));
            async move {
                calls.acquire().await.unwrap().forget();
                encoding.await
            }
            .boxed()
        }
    }

    fn slow() -> (Batched, Arc<Semaphore>, Arc<Mutex<Vec<usize>>>) {
        let (calls, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let inner = Arc::new(Slow { inner: FakeBackend::new(4), calls: Arc::clone(&calls) });
        let seen = Arc::clone(&sizes);
        (Batched::new(inner, move |size| seen.lock().unwrap().push(size)), calls, sizes)
    }

    // Some of the laws are about threads that wait, on which the calls must not depend.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_is_a_backend_like_any_other() {
        conformance::backend(&Batched::new(Arc::new(FakeBackend::new(8)), |_| {})).await;
    }

    #[tokio::test]
    async fn those_who_wait_together_are_answered_together() {
        let (batched, calls, sizes) = slow();
        let ask = |id| batched.encode(vec![vec![0, id, 2]]);
        let mut asked: Vec<_> = (10..20).map(|id| SpawnedTask::spawn(ask(id))).collect();
        // The first call is on its way with what was there; the rest waits behind it.
        while sizes.lock().unwrap().is_empty()
            || batched.ids.parts.capacity() > WAITING - (10 - sizes.lock().unwrap()[0])
        {
            tokio::task::yield_now().await;
        }
        calls.add_permits(2);
        let alone = FakeBackend::new(4);
        for (id, task) in (10..).zip(asked.drain(..)) {
            let answer = task.join().await.unwrap().unwrap();
            assert_eq!(answer, alone.encode(vec![vec![0, id, 2]]).await.unwrap());
        }
        let sizes = sizes.lock().unwrap();
        assert!(sizes.len() <= 2 && sizes.iter().sum::<usize>() == 10, "{sizes:?}");
    }

    #[tokio::test]
    async fn a_refused_input_fails_its_own_request_alone() {
        let batched = Batched::new(Arc::new(FakeBackend::new(4)), |_| {});
        let spec = TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 8 } };
        let asked = ["good", FakeBackend::REFUSED, "better"].map(|text| batched.tokenize(vec![text.to_owned()], &spec));
        let answers = join_all(asked).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(matches!(answers[1], Err(BackendError::Input(_))), "{answers:?}");
    }

    #[tokio::test]
    async fn a_long_request_goes_in_parts() {
        let (batched, calls, sizes) = slow();
        calls.add_permits(10);
        let inputs: Vec<Vec<u32>> = (0..70).map(|id| vec![0, id, 2]).collect();
        let answer = batched.encode(inputs.clone()).await.unwrap();
        assert_eq!(answer, FakeBackend::new(4).encode(inputs).await.unwrap());
        assert_eq!(*sizes.lock().unwrap(), [32, 32, 6]);
    }
}
