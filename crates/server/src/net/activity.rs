//! Which calls are open on a connection, and how long there have been none.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// How long a connection may be idle.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleTimeouts {
    /// Before a call was answered: any stranger can open a connection.
    pub(super) unanswered: Duration,
    /// Between calls.
    pub(super) between_calls: Duration,
    /// While a call is open and no part of its response is received.
    pub(super) stalled: Duration,
}

/// The calls of a connection.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<Calls>>);

#[derive(Debug)]
struct Calls {
    open: usize,
    last: Instant,
    /// Whether a call was answered with anything but a refusal.
    answered: bool,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Calls { open: 0, last: Instant::now(), answered: false })))
    }

    /// Returns when the connection has been idle for too long.
    pub(super) async fn until_idle(&self, timeouts: IdleTimeouts) {
        loop {
            let (timeout, idle) = {
                let calls = self.calls();
                let timeout = match (calls.open, calls.answered) {
                    (0, false) => timeouts.unanswered,
                    (0, true) => timeouts.between_calls,
                    _ => timeouts.stalled,
                };
                (timeout, calls.last.elapsed())
            };
            let Some(rest) = timeout.checked_sub(idle).filter(|rest| !rest.is_zero()) else { return };
            sleep(rest).await;
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, open: isize) {
        let mut calls = self.calls();
        calls.open = calls.open.saturating_add_signed(open);
        calls.last = Instant::now();
    }

    #[cfg(test)]
    pub(super) fn open_calls(&self) -> usize {
        self.calls().open
    }
}

/// A call that is open on a connection until it is dropped.
#[derive(Debug)]
pub(super) struct OpenCall(Activity);

impl OpenCall {
    pub(super) fn new(activity: Activity) -> Self {
        activity.change(1);
        Self(activity)
    }

    /// The call was answered with anything but a refusal.
    pub(super) fn set_answered(&self) {
        self.0.calls().answered = true;
    }

    /// A part of the response goes to the client.
    pub(super) fn progress(&self) {
        self.0.change(0);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}
