//! Responses on their way to clients: their memory is reserved until they are received, and their calls are open.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::activity::{Activity, OpenCall};
use crate::limits::response_memory::ResponseMemory;

/// Maximum bytes that a connection receives at once. They are in the connection then, and no longer counted.
const FRAME_BYTES: usize = 64 << 10;

/// Answers a request of a connection. The memory of the response is reserved until the client has received it.
pub(super) async fn track(memory: ResponseMemory, activity: Activity, request: Request, next: Next) -> Response {
    let call = OpenCall::new(activity);
    let (head, body) = next.run(request).await.into_parts();
    if head.status.is_success() && head.headers.get("grpc-status").is_none_or(|status| status == "0") {
        call.set_answered();
    }
    let memory = match body.size_hint().exact() {
        // A streamed body is made at the speed of its client.
        None | Some(0) => None,
        Some(bytes) => match memory.try_reserve(bytes) {
            Ok(reserved) => Some(reserved),
            Err(busy) => return busy.into_response(),
        },
    };
    Response::from_parts(head, Body::new(TrackedBody { body, rest: Bytes::new(), call, _memory: memory }))
}

/// A body in frames of [`FRAME_BYTES`], with its reserved memory and its call.
struct TrackedBody {
    body: Body,
    rest: Bytes,
    call: OpenCall,
    _memory: Option<OwnedSemaphorePermit>,
}

impl HttpBody for TrackedBody {
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
        self.call.progress();
        let bytes = FRAME_BYTES.min(self.rest.len());
        let frame = self.rest.split_to(bytes);
        Poll::Ready(Some(Ok(Frame::data(frame))))
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
    use std::time::Duration;

    use axum::{Router, body::to_bytes, middleware::from_fn, routing::get};
    use tokio::time::sleep;
    use tower::ServiceExt;

    use super::{super::activity::IdleTimeouts, *};

    fn router(memory: &ResponseMemory, activity: &Activity, bytes: usize) -> Router {
        let (memory, activity) = (memory.clone(), activity.clone());
        Router::new()
            .route("/", get(move || async move { vec![7_u8; bytes] }))
            .layer(from_fn(move |request, next| track(memory.clone(), activity.clone(), request, next)))
    }

    async fn get_root(router: &Router) -> Response {
        router.clone().oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn memory_is_reserved_until_the_response_is_received() {
        let (memory, activity) = (ResponseMemory::new(1 << 20), Activity::new());
        let router = router(&memory, &activity, 700 << 10);
        let first = get_root(&router).await;
        assert_eq!(first.body().size_hint().exact(), Some(700 << 10));
        assert_eq!(get_root(&router).await.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(to_bytes(first.into_body(), usize::MAX).await.unwrap(), vec![7_u8; 700 << 10]);
        assert_eq!(get_root(&router).await.status(), axum::http::StatusCode::OK);
        assert_eq!(activity.open_calls(), 0);
    }

    #[tokio::test]
    async fn a_connection_is_idle_without_calls_and_not_with_one() {
        let (memory, activity) = (ResponseMemory::new(1 << 20), Activity::new());
        let long = Duration::from_hours(1);
        let timeouts = IdleTimeouts { unanswered: Duration::ZERO, between_calls: long, stalled: long };
        activity.until_idle(timeouts).await;
        let open = get_root(&router(&memory, &activity, 10)).await;
        let without_pause = IdleTimeouts { between_calls: Duration::ZERO, ..timeouts };
        tokio::select! {
            () = activity.until_idle(without_pause) => panic!("a call is open"),
            () = sleep(Duration::from_millis(5)) => {}
        }
        drop(open);
        tokio::select! {
            () = activity.until_idle(timeouts) => panic!("a call was answered"),
            () = sleep(Duration::from_millis(5)) => {}
        }
        activity.until_idle(without_pause).await;
    }
}
