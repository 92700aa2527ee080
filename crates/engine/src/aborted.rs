//! The end of tasks that a failed plan leaves behind.

use std::time::Duration;

use tokio::{runtime::Handle, time::sleep};

/// How often the tasks are counted, and how many times.
const POLL: Duration = Duration::from_millis(1);
const MAX_POLLS: usize = 500;

/// Tasks of the runtime before a plan was executed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TasksBefore(usize);

impl TasksBefore {
    pub(crate) fn count() -> Self {
        Self(Handle::current().metrics().num_alive_tasks())
    }

    /// Waits until the tasks of a dropped plan have ended, for at most half a second.
    ///
    /// Dropping a plan only requests their end. If the runtime shuts down before a thread has dropped a task of Lance,
    /// the task finds its own blocking call cancelled, and Lance panics.
    pub(crate) async fn wait_for_aborted(self) {
        for _ in 0..MAX_POLLS {
            if Self::count().0 <= self.0 {
                return;
            }
            sleep(POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use datafusion::common::runtime::SpawnedTask;

    use super::*;

    /// Sets a flag when it is dropped.
    struct Dropped(Arc<AtomicBool>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn an_aborted_task_has_been_dropped_after_the_wait() {
        let before = TasksBefore::count();
        let flag = Arc::new(AtomicBool::new(false));
        let dropped = Dropped(Arc::clone(&flag));
        let task = SpawnedTask::spawn(async move {
            let _dropped = dropped;
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(task);
        before.wait_for_aborted().await;
        assert!(flag.load(Ordering::SeqCst));
    }
}
