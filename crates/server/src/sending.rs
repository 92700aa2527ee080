//! Answers on their way to clients: what they take counts until they are taken, and a connection without any is idle.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use crate::error::ApiError;

/// Bytes of a permit: semaphores count up to 2^29.
const UNIT: usize = 1024;

/// Bytes that are given to a connection at once: so much of an answer is with the connection when it is no longer counted.
const PART: usize = 64 << 10;

/// The bytes of all answers that are made and not taken.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    units: Arc<Semaphore>,
    all: u32,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let all = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, 1 << 28);
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// Takes the bytes of an answer; one that is larger than the whole budget takes all of it.
    fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT as u64)).unwrap_or(u32::MAX).min(self.all);
        Arc::clone(&self.units).try_acquire_many_owned(units).map_err(|_| ApiError::busy())
    }
}

/// How long a connection may rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Before a call of it was answered: any stranger can open one.
    pub(crate) first: Duration,
    /// Between calls.
    pub(crate) idle: Duration,
    /// While a call is open.
    pub(crate) stalled: Duration,
}

/// What happens on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Activity(Arc<Mutex<Calls>>);

#[derive(Debug)]
struct Calls {
    open: usize,
    last: Instant,
    /// Whether a call was answered with anything but a refusal.
    answered: bool,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Calls { open: 0, last: Instant::now(), answered: false })))
    }

    /// Ends when nothing was called for so long, or when no open call has had a part of its answer taken.
    pub(crate) async fn rests(&self, patience: Patience) {
        loop {
            let (patience, since) = {
                let calls = self.calls();
                let patience = match (calls.open, calls.answered) {
                    (0, false) => patience.first,
                    (0, true) => patience.idle,
                    _ => patience.stalled,
                };
                (patience, calls.last.elapsed())
            };
            let Some(rest) = patience.checked_sub(since).filter(|rest| !rest.is_zero()) else { return };
            sleep(rest).await;
        }
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, open: isize) {
        let mut calls = self.calls();
        calls.open = calls.open.saturating_add_signed(open);
        calls.last = Instant::now();
    }
}

/// A call that is open on a connection.
struct Call(Activity);

impl Call {
    fn open(activity: Activity) -> Self {
        activity.change(1);
        Self(activity)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

/// Answers a request of a connection; the answer is counted until it is taken.
pub(crate) async fn count(budget: Budget, activity: Activity, request: Request, next: Next) -> Response {
    let call = Call::open(activity);
    let (head, body) = next.run(request).await.into_parts();
    if head.status.is_success() && head.headers.get("grpc-status").is_none_or(|status| status == "0") {
        call.0.calls().answered = true;
    }
    let taken = match body.size_hint().exact() {
        // What is made while it is sent waits for its client by itself.
        None | Some(0) => None,
        Some(bytes) => match budget.take(bytes) {
            Ok(taken) => Some(taken),
            Err(busy) => return busy.into_response(),
        },
    };
    Response::from_parts(head, Body::new(Counted { body, rest: Bytes::new(), call, _taken: taken }))
}

/// A body that is counted, in parts.
struct Counted {
    body: Body,
    rest: Bytes,
    call: Call,
    _taken: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.rest.is_empty() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { return Poll::Ready(None) };
            match frame?.into_data() {
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        self.call.0.change(0);
        let first = PART.min(self.rest.len());
        let part = self.rest.split_to(first);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + rest);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::to_bytes, middleware::from_fn, routing::get};
    use tower::ServiceExt;

    use super::*;

    fn router(budget: &Budget, activity: &Activity, bytes: usize) -> Router {
        let (budget, activity) = (budget.clone(), activity.clone());
        Router::new()
            .route("/", get(move || async move { vec![7_u8; bytes] }))
            .layer(from_fn(move |request, next| count(budget.clone(), activity.clone(), request, next)))
    }

    async fn ask(router: &Router) -> Response {
        router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_counts_until_it_is_taken() {
        let (budget, activity) = (Budget::new(1 << 20), Activity::new());
        let router = router(&budget, &activity, 700 << 10);
        let first = ask(&router).await;
        assert_eq!(first.body().size_hint().exact(), Some(700 << 10));
        assert_eq!(ask(&router).await.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(to_bytes(first.into_body(), usize::MAX).await.unwrap(), vec![7_u8; 700 << 10]);
        assert_eq!(ask(&router).await.status(), axum::http::StatusCode::OK);
        assert_eq!(activity.calls().open, 0);
    }

    #[tokio::test]
    async fn a_connection_without_calls_rests_and_one_with_a_call_does_not() {
        let (budget, activity) = (Budget::new(1 << 20), Activity::new());
        let long = Duration::from_hours(1);
        let patience = Patience { first: Duration::ZERO, idle: long, stalled: long };
        activity.rests(patience).await;
        let open = ask(&router(&budget, &activity, 10)).await;
        tokio::select! {
            () = activity.rests(Patience { idle: Duration::ZERO, ..patience }) => panic!("a call is open"),
            () = sleep(Duration::from_millis(5)) => {}
        }
        drop(open);
        tokio::select! {
            () = activity.rests(patience) => panic!("a call was answered"),
            () = sleep(Duration::from_millis(5)) => {}
        }
        activity.rests(Patience { idle: Duration::ZERO, ..patience }).await;
    }
}
