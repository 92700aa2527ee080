//! Calls to a backend in which one refused input costs nothing but itself.

use futures::{FutureExt, future::BoxFuture};
use polylance_backend::BackendError;

use crate::datafusion_error;

/// One input's result, or why it has none.
pub(crate) type Outcome<T> = Result<T, String>;

/// A call to the backend: one result per input, which the call checks.
pub(crate) type Call<T> = BoxFuture<'static, datafusion::error::Result<polylance_backend::Result<Vec<T>>>>;

/// What happens to several inputs for which a device has too little memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnOutOfMemory {
    /// They are computed in two parts, which may fit.
    Bisect,
    /// The run fails.
    Fail,
}

impl OnOutOfMemory {
    fn is_bisected(self, error: &BackendError) -> bool {
        match error {
            BackendError::Input(_) => true,
            BackendError::OutOfMemory { .. } => self == Self::Bisect,
            _ => false,
        }
    }
}

/// The outcome of each input, in their order. A refused call is repeated in halves until the input at fault is alone.
pub(crate) fn call_or_bisect<I, T, C>(
    call: C,
    inputs: Vec<I>,
    on_out_of_memory: OnOutOfMemory,
) -> BoxFuture<'static, datafusion::error::Result<Vec<Outcome<T>>>>
where
    I: Clone + Send + Sync + 'static,
    T: Send + 'static,
    C: Fn(Vec<I>) -> Call<T> + Clone + Send + Sync + 'static,
{
    async move {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        match call(inputs.clone()).await? {
            Ok(results) => Ok(results.into_iter().map(Ok).collect()),
            Err(BackendError::Input(message)) if inputs.len() == 1 => Ok(vec![Err(message)]),
            Err(error) if inputs.len() > 1 && on_out_of_memory.is_bisected(&error) => {
                let (first, second) = inputs.split_at(inputs.len() / 2);
                let mut outcomes = call_or_bisect(call.clone(), first.to_vec(), on_out_of_memory).await?;
                outcomes.extend(call_or_bisect(call, second.to_vec(), on_out_of_memory).await?);
                Ok(outcomes)
            }
            Err(error) => Err(datafusion_error::backend(error)),
        }
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Calls = Arc<Mutex<Vec<Vec<u32>>>>;

    /// Refuses every call with an odd number in it; two numbers do not fit into memory together with a zero.
    fn backend(calls: &Calls) -> impl Fn(Vec<u32>) -> Call<u32> + Clone + Send + Sync + 'static {
        let calls = Arc::clone(calls);
        move |inputs: Vec<u32>| {
            calls.lock().unwrap().push(inputs.clone());
            let answer = if inputs.len() > 1 && inputs.contains(&0) {
                Err(BackendError::OutOfMemory { device: "fake".into() })
            } else if let Some(odd) = inputs.iter().find(|input| *input % 2 == 1) {
                Err(BackendError::Input(format!("{odd} is odd")))
            } else {
                Ok(inputs.iter().map(|input| input * 10).collect())
            };
            futures::future::ready(Ok(answer)).boxed()
        }
    }

    #[tokio::test]
    async fn only_the_input_at_fault_is_refused() {
        let calls = Calls::default();
        let outcomes = call_or_bisect(backend(&calls), vec![2, 4, 5, 6, 8], OnOutOfMemory::Fail).await.unwrap();
        assert_eq!(outcomes, [Ok(20), Ok(40), Err("5 is odd".to_owned()), Ok(60), Ok(80)]);
        let expected: [&[u32]; 5] = [&[2, 4, 5, 6, 8], &[2, 4], &[5, 6, 8], &[5], &[6, 8]];
        assert_eq!(*calls.lock().unwrap(), expected);
        assert!(call_or_bisect(backend(&calls), Vec::new(), OnOutOfMemory::Fail).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn memory_that_runs_out_ends_the_run_unless_smaller_calls_are_tried() {
        let calls = Calls::default();
        let failed = call_or_bisect(backend(&calls), vec![0, 2], OnOutOfMemory::Fail).await.unwrap_err();
        assert!(failed.to_string().contains("out of memory"), "{failed}");
        let outcomes = call_or_bisect(backend(&calls), vec![0, 2], OnOutOfMemory::Bisect).await.unwrap();
        assert_eq!(outcomes, [Ok(0), Ok(20)]);
    }
}
