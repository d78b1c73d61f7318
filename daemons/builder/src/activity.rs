//! Whether anything is going on: a socket-activated builder that is idle exits.

use dinp_common::lifecycle::Lifecycle;
use std::time::Duration;
use tokio::sync::watch;

/// Counts what holds off the idle exit.
#[derive(Debug, Clone)]
pub struct Activity(watch::Sender<usize>);

/// One thing that is going on, until dropped.
#[derive(Debug)]
pub struct Busy(watch::Sender<usize>);

impl Default for Activity {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}

impl Activity {
    /// Something begins.
    pub fn begin(&self) -> Busy {
        self.0.send_modify(|count| *count += 1);
        Busy(self.0.clone())
    }

    /// Stops the daemon once nothing was going on for so long. What arrives after that waits in the socket, which
    /// is systemd's, and starts the next one.
    pub async fn exit_when_idle(&self, limit: Duration, lifecycle: &Lifecycle) {
        let mut count = self.0.subscribe();
        loop {
            if count.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
            if tokio::time::timeout(limit, count.changed()).await.is_err() {
                tracing::info!(idle_secs = limit.as_secs(), "idle, stopping until the next request");
                lifecycle.shutdown().cancel();
                return;
            }
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_holds_off_the_exit() {
        let (activity, lifecycle) = (Activity::default(), Lifecycle::for_tests());
        let limit = Duration::from_millis(10);
        let busy = activity.begin();
        let early = tokio::time::timeout(limit * 5, activity.exit_when_idle(limit, &lifecycle)).await;
        assert!(early.is_err() && !lifecycle.shutdown().is_cancelled());
        drop(busy);
        activity.exit_when_idle(limit, &lifecycle).await;
        assert!(lifecycle.shutdown().is_cancelled());
    }
}
