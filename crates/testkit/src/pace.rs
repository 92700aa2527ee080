//! The time of a simulated device.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::sleep_until,
};

/// A device that computes one call after the other, each for a fixed time per token, without using the CPU.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    per_token: Duration,
    /// When the last call ended.
    free: Arc<Mutex<Instant>>,
}

impl Pace {
    pub(crate) fn new(per_token: Duration) -> Self {
        Self { per_token, free: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Waits until the device has computed this many tokens. A call that waited for another one starts when that one
    /// ended, even if it is woken later.
    pub(crate) async fn compute(self, tokens: usize) {
        let arrived = Instant::now();
        let free = self.free.lock_owned().await;
        let end = arrived.max(*free) + self.per_token * tokens as u32;
        let _call = Call { free, end };
        sleep_until(end.into()).await;
    }
}

/// A call that occupies the device, until it ends or is dropped.
struct Call {
    free: OwnedMutexGuard<Instant>,
    end: Instant,
}

impl Drop for Call {
    fn drop(&mut self) {
        *self.free = self.end.min(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn calls_take_turns_and_a_dropped_one_frees_the_device() {
        let pace = Pace::new(Duration::from_millis(1));
        let started = Instant::now();
        tokio::join!(pace.clone().compute(10), pace.clone().compute(20));
        assert!(started.elapsed() >= Duration::from_millis(30));
        let hour = 3_600_000;
        tokio::select! {
            () = pace.clone().compute(hour) => panic!("an hour passed"),
            () = tokio::task::yield_now() => {}
        }
        pace.compute(1).await;
    }
}
