//! Embeds requests that wait at the same moment in one call.
//!
//! A call costs a pass over the weights for any number of inputs: ten queries in one call take hardly longer than one. No
//! request waits for others to arrive: a call begins as soon as the previous one has ended, with all that wait by then.

use std::{collections::VecDeque, fmt, sync::Arc};

use datafusion::common::runtime::SpawnedTask;
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use polylance_backend::{Backend, BackendError, BackendInfo, Chunk, Embeddings, Load, Result, TokenizeSpec};
use tokio::sync::{mpsc, oneshot};

/// Inputs of one request that go into a call together. Other requests take turns with the parts of a long one.
const PART_INPUTS: usize = 32;

/// Parts in the queue; senders wait when it is full.
const MAX_WAITING_PARTS: usize = 256;

/// A backend that combines the inputs of concurrent requests.
#[derive(Debug)]
pub(crate) struct BatchingBackend {
    inner: Arc<dyn Backend>,
    texts: Queue<(String, TokenizeSpec), Vec<Chunk>>,
    tokens: Queue<Vec<u32>, Vec<f32>>,
}

impl BatchingBackend {
    /// `on_call` receives the number of inputs of each call to the devices.
    pub(crate) fn new(inner: Arc<dyn Backend>, on_call: impl Fn(usize) + Send + Sync + 'static) -> Self {
        let tokenizer = Arc::clone(&inner);
        let texts = Queue::start(usize::MAX, |_| 1, move |texts| tokenize(Arc::clone(&tokenizer), texts));
        let encoder = Arc::clone(&inner);
        let budget = inner.info().window_tokens;
        let tokens = Queue::start(budget, Vec::len, move |inputs: Vec<Vec<u32>>| {
            on_call(inputs.len());
            encode(Arc::clone(&encoder), inputs)
        });
        Self { inner, texts, tokens }
    }
}

/// Tokenizes texts with the same settings together.
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

impl Backend for BatchingBackend {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn tokenize(&self, texts: Vec<String>, spec: &TokenizeSpec) -> BoxFuture<'static, Result<Vec<Vec<Chunk>>>> {
        let queue = self.texts.clone();
        let texts = texts.into_iter().map(|text| (text, spec.clone())).collect();
        async move { queue.run(texts).await }.boxed()
    }

    fn encode(&self, inputs: Vec<Vec<u32>>) -> BoxFuture<'static, Result<Embeddings>> {
        let (queue, dim) = (self.tokens.clone(), self.inner.info().dim);
        async move { Ok(Embeddings { dim, values: queue.run(inputs).await?.concat() }) }.boxed()
    }

    fn load(&self) -> Load {
        self.inner.load()
    }
}

/// The queue of parts in front of the calls.
struct Queue<I, O> {
    parts: mpsc::Sender<Part<I, O>>,
    /// The task that makes the calls; it ends with the last clone.
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
    /// A call takes parts whose inputs cost at most `budget` together, or one part alone.
    fn start<F: Future<Output = Result<Vec<O>>> + Send + 'static>(
        budget: usize,
        cost: impl Fn(&I) -> usize + Send + 'static,
        call: impl Fn(Vec<I>) -> F + Send + Sync + 'static,
    ) -> Self {
        let (parts, mut waiting) = mpsc::channel::<Part<I, O>>(MAX_WAITING_PARTS);
        let calls = SpawnedTask::spawn(async move {
            let mut parts = Vec::new();
            while waiting.recv_many(&mut parts, MAX_WAITING_PARTS).await > 0 {
                let mut rest = VecDeque::from(std::mem::take(&mut parts));
                rest.retain(|part| !part.answer.is_closed());
                while !rest.is_empty() {
                    let mut spent = 0;
                    let fits = rest.iter().position(|part| {
                        spent += part.inputs.iter().map(&cost).sum::<usize>();
                        spent > budget
                    });
                    let together = fits.unwrap_or(rest.len()).max(1);
                    call_together(rest.drain(..together).collect(), &call).await;
                }
            }
        });
        Self { parts, calls: Arc::new(calls) }
    }

    async fn run(&self, inputs: Vec<I>) -> Result<Vec<O>> {
        let mut answers = Vec::with_capacity(inputs.len());
        for inputs in inputs.chunks(PART_INPUTS) {
            let (answer, answered) = oneshot::channel();
            let part = Part { inputs: inputs.to_vec(), answer };
            self.parts.send(part).await.map_err(|_| BackendError::Closed)?;
            answers.extend(answered.await.map_err(|_| BackendError::Closed)??);
        }
        Ok(answers)
    }
}

/// One call for all parts. If an input is refused, each part gets a call of its own: the others are valid.
async fn call_together<I: Clone, O, F: Future<Output = Result<Vec<O>>>>(
    parts: Vec<Part<I, O>>,
    call: &impl Fn(Vec<I>) -> F,
) {
    let together = parts.iter().flat_map(|part| part.inputs.iter().cloned()).collect();
    match call(together).await {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for part in parts {
                let own = answers.by_ref().take(part.inputs.len()).collect();
                // The request may have ended.
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

    /// A fake device that makes one call per permit.
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

    fn slow() -> (BatchingBackend, Arc<Semaphore>, Arc<Mutex<Vec<usize>>>) {
        let (calls, sizes) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let inner = Arc::new(Slow { inner: FakeBackend::new(4), calls: Arc::clone(&calls) });
        let seen = Arc::clone(&sizes);
        (BatchingBackend::new(inner, move |size| seen.lock().unwrap().push(size)), calls, sizes)
    }

    // Some of the laws block threads, and the calls must not depend on those.
    #[tokio::test(flavor = "multi_thread")]
    async fn it_satisfies_the_laws_of_backends() {
        conformance::backend(&BatchingBackend::new(Arc::new(FakeBackend::new(8)), |_| {})).await;
    }

    #[tokio::test]
    async fn waiting_requests_share_a_call() {
        let (batched, calls, sizes) = slow();
        let encode = |id| batched.encode(vec![vec![0, id, 2]]);
        let mut tasks: Vec<_> = (10..20).map(|id| SpawnedTask::spawn(encode(id))).collect();
        // The first call has started with the requests of that moment; the others wait in the queue.
        while sizes.lock().unwrap().is_empty()
            || batched.tokens.parts.capacity() > MAX_WAITING_PARTS - (10 - sizes.lock().unwrap()[0])
        {
            tokio::task::yield_now().await;
        }
        calls.add_permits(2);
        let alone = FakeBackend::new(4);
        for (id, task) in (10..).zip(tasks.drain(..)) {
            let answer = task.join().await.unwrap().unwrap();
            assert_eq!(answer, alone.encode(vec![vec![0, id, 2]]).await.unwrap());
        }
        let sizes = sizes.lock().unwrap();
        assert!(sizes.len() <= 2 && sizes.iter().sum::<usize>() == 10, "{sizes:?}");
    }

    #[tokio::test]
    async fn a_refused_input_fails_only_its_own_request() {
        let batched = BatchingBackend::new(Arc::new(FakeBackend::new(4)), |_| {});
        let spec = TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 8 } };
        let requests =
            ["good", FakeBackend::REFUSED, "better"].map(|text| batched.tokenize(vec![text.to_owned()], &spec));
        let answers = join_all(requests).await;
        assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
        assert!(matches!(answers[1], Err(BackendError::Input(_))), "{answers:?}");
    }

    #[tokio::test]
    async fn a_long_request_is_split_into_parts() {
        let (batched, calls, sizes) = slow();
        calls.add_permits(10);
        let inputs: Vec<Vec<u32>> = (0..70).map(|id| vec![0, id, 2]).collect();
        let answer = batched.encode(inputs.clone()).await.unwrap();
        assert_eq!(answer, FakeBackend::new(4).encode(inputs).await.unwrap());
        assert_eq!(*sizes.lock().unwrap(), [32, 32, 6]);
    }
}
