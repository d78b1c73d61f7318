//! How a daemon tells the world how it is: readiness, status text, watchdog, reload, stop.
//!
//! ```text
//! start -> ready()  READY=1: configuration valid, listeners open
//!            |      conditions missing -> STATUS= says which, /ready is 503
//!            |      conditions all ok  -> /ready is 200
//!          SIGHUP   RELOADING=1 -> reload() counts up -> reload_done() READY=1
//!          SIGTERM  STOPPING=1  -> shutdown() is cancelled
//! ```

mod state;
mod tasks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use state::MissingCondition;
use state::State;
use tasks::Tasks;
pub use tasks::{FAIL_VARIABLE, TaskFailure, TaskView, contained};

/// How often STATUS= is renewed while something is missing, so that its ages are right.
const STATUS_PERIOD: Duration = Duration::from_secs(5);

/// The life of this process; clones are the same life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shutdown: CancellationToken,
    reload: watch::Sender<u64>,
    state: Mutex<State>,
    tasks: Tasks,
    /// False in tests: nothing is said to systemd.
    real: bool,
}

impl Lifecycle {
    fn new(real: bool) -> Self {
        let inner = Inner {
            shutdown: CancellationToken::new(),
            reload: watch::channel(0).0,
            state: Mutex::new(State::default()),
            tasks: Tasks::default(),
            real,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A life without signals and without systemd.
    pub fn for_tests() -> Self {
        Self::new(false)
    }

    /// The process' own life: listens to signals and serves systemd's watchdog. Within a runtime.
    pub(crate) fn start() -> std::io::Result<Self> {
        let lifecycle = Self::new(true);
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        // Not among the tasks that can be ended: they are at work until the process is gone.
        let signals = lifecycle.clone().obey(terminate, interrupt, hangup);
        tokio::spawn(lifecycle.clone().supervised("signals", signals));
        let watchdog = lifecycle.clone().tell_systemd(sd_notify::watchdog_enabled());
        tokio::spawn(lifecycle.clone().supervised("watchdog", watchdog));
        Ok(lifecycle)
    }

    /// Cancelled when the daemon is to stop (SIGTERM, SIGINT). Cancelling it oneself stops the
    /// daemon as well.
    pub fn shutdown(&self) -> CancellationToken {
        self.inner.shutdown.clone()
    }

    /// Says once that the configuration is valid and the listeners are open.
    pub fn ready(&self) {
        if !self.state().set_ready() {
            return;
        }
        self.notify(&[NotifyState::Ready]);
        self.show_status();
        tracing::info!("ready");
    }

    /// Sets the one line that `systemctl status` shows.
    pub fn status(&self, text: &str) {
        self.state().text = text.to_owned();
        self.show_status();
    }

    /// Registers something that the daemon needs for its work; it is missing until
    /// [`Condition::ok`]. The same name gives the same condition.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.state().register_condition(name, Instant::now());
        self.show_status();
        ::metrics::gauge!("dinp_condition_ok", "condition" => name).set(0.0);
        Condition { lifecycle: self.clone(), name }
    }

    /// True when listeners are open and every condition is met.
    pub fn is_ready(&self) -> bool {
        let state = self.state();
        state.ready && state.missing(Instant::now()).is_empty()
    }

    /// The conditions that are not met.
    pub fn missing(&self) -> Vec<MissingCondition> {
        self.state().missing(Instant::now())
    }

    /// Registers a loop that must give a sign of life at least every `max_silence`; the watchdog is
    /// fed only while all loops do.
    pub fn heartbeat(&self, name: &'static str, max_silence: Duration) -> Heartbeat {
        let id = self.state().register_heartbeat(name, max_silence, Instant::now());
        Heartbeat { lifecycle: self.clone(), id }
    }

    /// Counts the reloads asked for (SIGHUP). Who takes this must call
    /// [`reload_done`](Self::reload_done) for each.
    pub fn reload(&self) -> watch::Receiver<u64> {
        self.inner.reload.subscribe()
    }

    /// Ends a reload; on failure the old configuration goes on and STATUS= says why.
    pub fn reload_done(&self, outcome: Result<(), String>) {
        match &outcome {
            Ok(()) => tracing::info!("configuration reloaded"),
            Err(error) => {
                tracing::error!(%error, "configuration not reloaded, the old one stays in force")
            }
        }
        let ready = {
            let mut state = self.state();
            state.reload_error = outcome.err();
            state.ready
        };
        ::metrics::gauge!("dinp_config_reload_failed").set(f64::from(u8::from(self.state().reload_error.is_some())));
        if ready {
            self.notify(&[NotifyState::Ready]);
        }
        self.show_status();
    }

    /// Asks for a reload as SIGHUP does.
    pub fn request_reload(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "monotonic clock cannot be read"),
        }
        self.inner.reload.send_modify(|count| *count += 1);
        if self.inner.reload.receiver_count() == 0 {
            self.reload_done(Err("this daemon has nothing that can be reloaded, restart it".into()));
        }
    }

    /// What STATUS= says now.
    pub fn status_line(&self) -> String {
        self.state().status_line(Instant::now())
    }

    async fn obey(self, mut terminate: Signal, mut interrupt: Signal, mut hangup: Signal) {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
                _ = hangup.recv() => {
                    self.request_reload();
                    continue;
                }
            };
            if self.inner.shutdown.is_cancelled() && name == "SIGINT" {
                tracing::warn!("second SIGINT, ending without draining");
                std::process::exit(1);
            }
            tracing::info!(signal = name, "stopping");
            self.inner.shutdown.cancel();
        }
    }

    async fn tell_systemd(self, watchdog: Option<Duration>) {
        let period = watchdog.map_or(STATUS_PERIOD, |limit| (limit / 2).min(STATUS_PERIOD));
        let mut ticks = tokio::time::interval(period.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut stopping = false;
        let mut shown = String::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.inner.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    self.notify(&[NotifyState::Stopping]);
                }
            }
            let (stuck, line) = {
                let state = self.state();
                let now = Instant::now();
                (state.stuck(now), state.status_line(now))
            };
            if stuck.is_empty() {
                if watchdog.is_some() {
                    self.notify(&[NotifyState::Watchdog]);
                }
            } else {
                for beat in &stuck {
                    tracing::error!(
                        task = beat.name,
                        silent_secs = beat.silent.as_secs(),
                        "task {} is stuck",
                        beat.name
                    );
                }
            }
            if line != shown {
                self.notify(&[NotifyState::Status(&line)]);
                shown = line;
            }
        }
    }

    fn show_status(&self) {
        let line = self.status_line();
        self.notify(&[NotifyState::Status(&line)]);
    }

    fn notify(&self, what: &[NotifyState<'_>]) {
        if !self.inner.real {
            return;
        }
        if let Err(error) = sd_notify::notify(what) {
            tracing::debug!(%error, "systemd cannot be notified");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Something that the daemon needs for its work, such as its database.
#[derive(Clone, Debug)]
pub struct Condition {
    lifecycle: Lifecycle,
    name: &'static str,
}

impl Condition {
    /// It is there.
    pub fn ok(&self) {
        self.set(None);
    }

    /// It is missing, and why ("connection refused").
    pub fn missing(&self, detail: &str) {
        self.set(Some(detail));
    }

    fn set(&self, detail: Option<&str>) {
        if !self.lifecycle.state().set_condition(self.name, detail, Instant::now()) {
            return;
        }
        let ok = if detail.is_none() { 1.0 } else { 0.0 };
        ::metrics::gauge!("dinp_condition_ok", "condition" => self.name).set(ok);
        match detail {
            None => tracing::info!(condition = self.name, "{} is available", self.name),
            Some(detail) => tracing::warn!(condition = self.name, detail, "waiting for {}: {detail}", self.name),
        }
        self.lifecycle.show_status();
    }
}

/// A loop's sign of life; dropping it means that the loop ended on purpose.
#[derive(Debug)]
pub struct Heartbeat {
    lifecycle: Lifecycle,
    id: u64,
}

impl Heartbeat {
    /// The loop makes progress.
    pub fn beat(&self) {
        self.lifecycle.state().beat(self.id, Instant::now());
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.lifecycle.state().drop_heartbeat(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_listeners_and_conditions() {
        let lifecycle = Lifecycle::for_tests();
        let database = lifecycle.condition("database");
        lifecycle.ready();
        assert!(!lifecycle.is_ready());
        database.missing("connection refused");
        assert!(lifecycle.status_line().starts_with("waiting for database: connection refused"));
        database.ok();
        assert!(lifecycle.is_ready());
        assert_eq!(lifecycle.status_line(), "running");
        lifecycle.status("leader, epoch 7");
        assert_eq!(lifecycle.status_line(), "leader, epoch 7");
    }

    #[test]
    fn reload_counts_and_keeps_the_error() {
        let lifecycle = Lifecycle::for_tests();
        lifecycle.ready();
        let mut reloads = lifecycle.reload();
        lifecycle.request_reload();
        assert!(reloads.has_changed().unwrap());
        assert_eq!(*reloads.borrow_and_update(), 1);
        lifecycle.reload_done(Err("server.toml:1: bad".into()));
        assert_eq!(lifecycle.status_line(), "running; configuration not reloaded: server.toml:1: bad");
        lifecycle.reload_done(Ok(()));
        assert_eq!(lifecycle.status_line(), "running");
    }
}
