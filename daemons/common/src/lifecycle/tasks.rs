//! Long-lived tasks, by name: one that ends when nobody asked it to ends the process, and systemd starts it again.
//!
//! ```text
//! task("report", work)   runs until it returns after shutdown(), or end_tasks()
//!    panics, or returns before shutdown()
//!      -> one message, shutdown() is cancelled, the daemon drains for LAST_WORDS at most
//!      -> exit code 1
//! ```

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Heartbeat, Lifecycle};

/// Names the task that is to panic a second after it has started: for tests of supervision.
pub const FAIL_VARIABLE: &str = "DINP_FAIL_TASK";

/// How long the daemon may drain after one of its tasks has failed.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The tasks of one life.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: TaskTracker,
    /// Cancelled when those that still run are to be dropped.
    end: CancellationToken,
}

/// How a task ended that should not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskFailure {
    /// It panicked.
    #[error("task {task} panicked: {text}")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What the panic says.
        text: String,
    },
    /// It returned although the daemon is not stopping.
    #[error("task {task} ended though nobody asked it to")]
    Returned {
        /// Its name.
        task: &'static str,
    },
}

/// A task that runs, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskView {
    /// Its name.
    pub task: &'static str,
    /// For how long it has been running.
    pub running_secs: u64,
    /// How long ago its last sign of life was; none for a task without a heartbeat.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silent_secs: Option<u64>,
    /// The silence from which on it counts as stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_silence_secs: Option<u64>,
}

impl Lifecycle {
    /// Starts a task that lives as long as the daemon, under a name of its own: if it panics, or returns before
    /// [`shutdown`](Self::shutdown) is cancelled, the daemon ends with a message and exit code 1.
    pub fn task(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let end = self.inner.tasks.end.clone();
        let supervised = self.clone().supervised(name, work);
        self.inner.tasks.running.spawn(async move {
            end.run_until_cancelled(supervised).await;
        })
    }

    /// As [`task`](Self::task), for a loop that gives a sign of life at least every `max_silence`; the watchdog is
    /// fed only while it does.
    pub fn task_with_heartbeat<F>(
        &self,
        name: &'static str,
        max_silence: Duration,
        work: impl FnOnce(Heartbeat) -> F,
    ) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let work = work(self.heartbeat(name, max_silence));
        self.task(name, work)
    }

    /// Drops the tasks that still run, and waits until they are gone.
    pub async fn end_tasks(&self) {
        let Tasks { running, end } = &self.inner.tasks;
        end.cancel();
        running.close();
        running.wait().await;
    }

    /// The tasks that run.
    pub fn tasks(&self) -> Vec<TaskView> {
        self.state().tasks(Instant::now())
    }

    /// The first failure of a task, if there was any.
    pub fn failure(&self) -> Option<TaskFailure> {
        self.state().failure.clone()
    }

    /// Does the work under supervision; it cannot be ended but by dropping it.
    pub(super) async fn supervised(self, name: &'static str, work: impl Future<Output = ()>) {
        let _listed = Listed::new(&self, name);
        let work = AssertUnwindSafe(work).catch_unwind();
        let outcome = if self.inner.real && std::env::var(FAIL_VARIABLE).is_ok_and(|doomed| doomed == name) {
            let fail = AssertUnwindSafe(fail_on_demand()).catch_unwind();
            tokio::select! {
                outcome = work => outcome,
                panic = fail => panic.map(|never| match never {}),
            }
        } else {
            work.await
        };
        match outcome {
            Err(panic) => self.fail(TaskFailure::Panicked { task: name, text: text_of(&*panic) }),
            Ok(()) if !self.inner.shutdown.is_cancelled() => self.fail(TaskFailure::Returned { task: name }),
            Ok(()) => {}
        }
    }

    fn fail(&self, failure: TaskFailure) {
        tracing::error!("{failure}; the daemon ends, to be started again");
        self.state().failure.get_or_insert(failure);
        self.inner.shutdown.cancel();
        self.show_status();
        if self.inner.real {
            // Not a task: the runtime may be what does not work.
            std::thread::spawn(end_anyway);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the end of the process is all that this thread waits for")]
fn end_anyway() {
    std::thread::sleep(LAST_WORDS);
    tracing::error!("still not drained after {} s, ending anyway", LAST_WORDS.as_secs());
    std::process::exit(crate::daemon::EXIT_FAILURE.into());
}

/// Does the work of one task among many, whose fault must not end the daemon; false, after a message, where it panicked.
pub async fn contained(what: &str, work: impl Future<Output = ()>) -> bool {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    if let Err(panic) = &outcome {
        tracing::error!("{what} panicked: {}", text_of(&**panic));
        ::metrics::counter!("dinp_contained_panics_total").increment(1);
    }
    outcome.is_ok()
}

/// A task's place in the list of those that run.
struct Listed {
    lifecycle: Lifecycle,
    name: &'static str,
}

impl Listed {
    fn new(lifecycle: &Lifecycle, name: &'static str) -> Self {
        lifecycle.state().add_task(name, Instant::now());
        ::metrics::gauge!("dinp_task_up", "task" => name).set(1.0);
        Self { lifecycle: lifecycle.clone(), name }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.lifecycle.state().remove_task(self.name);
        ::metrics::gauge!("dinp_task_up", "task" => self.name).set(0.0);
    }
}

async fn fail_on_demand() -> Infallible {
    tokio::time::sleep(Duration::from_secs(1)).await;
    panic!("{FAIL_VARIABLE} names it");
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_daemon_and_says_why() {
        let lifecycle = Lifecycle::for_tests();
        let (number, list) = (7, [1, 2, 3]);
        let task = lifecycle.task("report", async move {
            assert!(list.contains(&number), "node {number} is not known");
        });
        lifecycle.shutdown().cancelled().await;
        task.await.unwrap();
        assert_eq!(lifecycle.failure().unwrap().to_string(), "task report panicked: node 7 is not known");
        assert_eq!(lifecycle.status_line(), "task report panicked: node 7 is not known");
    }

    #[tokio::test]
    async fn a_task_that_returns_unasked_ends_the_daemon() {
        let lifecycle = Lifecycle::for_tests();
        lifecycle.task("poll", async {});
        lifecycle.shutdown().cancelled().await;
        let failure = lifecycle.failure().unwrap();
        assert_eq!(failure.to_string(), "task poll ended though nobody asked it to");
    }

    #[tokio::test]
    async fn a_task_that_ends_with_the_daemon_is_no_failure() {
        let lifecycle = Lifecycle::for_tests();
        let shutdown = lifecycle.shutdown();
        let obedient = lifecycle.task("obedient", async move { shutdown.cancelled().await });
        lifecycle.task("endless", std::future::pending());
        lifecycle.shutdown().cancel();
        obedient.await.unwrap();
        lifecycle.end_tasks().await;
        assert_eq!(lifecycle.failure(), None);
        assert!(lifecycle.tasks().is_empty());
    }

    #[tokio::test]
    async fn one_of_many_that_panics_does_not_end_the_others() {
        let poison: Option<u8> = None;
        assert!(!contained("probing of i1", async { panic!("{poison:?}") }).await);
        assert!(contained("probing of i2", async {}).await);
    }

    #[tokio::test]
    async fn operators_see_what_runs_and_how_silent_it_is() {
        let lifecycle = Lifecycle::for_tests();
        lifecycle.task("keep", std::future::pending());
        lifecycle.task_with_heartbeat("report", Duration::from_secs(60), |beat| async move {
            beat.beat();
            std::future::pending().await
        });
        while lifecycle.tasks().len() < 2 {
            tokio::task::yield_now().await;
        }
        let tasks = serde_json::to_value(lifecycle.tasks()).unwrap();
        assert_eq!(tasks[0], serde_json::json!({"task": "keep", "running_secs": 0}));
        let report = serde_json::json!({"task": "report", "running_secs": 0, "silent_secs": 0, "max_silence_secs": 60});
        assert_eq!(tasks[1], report);
    }
}
