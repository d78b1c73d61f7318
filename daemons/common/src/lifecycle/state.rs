//! What a life is made of, as plain data and functions of the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::tasks::{TaskFailure, TaskView};

/// A condition that is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingCondition {
    /// Its name.
    pub condition: &'static str,
    /// Why it is missing.
    pub detail: String,
    /// For how long.
    pub since_secs: u64,
}

/// A loop that gave no sign of life for too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) name: &'static str,
    pub(super) silent: Duration,
}

#[derive(Debug)]
struct ConditionState {
    /// Why it is missing; none when it is met.
    missing: Option<String>,
    since: Instant,
}

#[derive(Debug)]
struct HeartbeatState {
    name: &'static str,
    max_silence: Duration,
    last: Instant,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) ready: bool,
    pub(super) text: String,
    pub(super) reload_error: Option<String>,
    /// The first task that failed.
    pub(super) failure: Option<TaskFailure>,
    /// Since when each task runs.
    tasks: BTreeMap<&'static str, Instant>,
    conditions: BTreeMap<&'static str, ConditionState>,
    heartbeats: BTreeMap<u64, HeartbeatState>,
    next_heartbeat: u64,
}

impl State {
    /// False if it was ready already.
    pub(super) fn set_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.ready, true)
    }

    pub(super) fn register_condition(&mut self, name: &'static str, now: Instant) {
        let missing = Some("not tried yet".to_owned());
        self.conditions.entry(name).or_insert(ConditionState { missing, since: now });
    }

    /// False if nothing changed. A new reason does not begin a new period of absence.
    pub(super) fn set_condition(&mut self, name: &'static str, detail: Option<&str>, now: Instant) -> bool {
        let Some(condition) = self.conditions.get_mut(name) else {
            return false;
        };
        if condition.missing.as_deref() == detail {
            return false;
        }
        if condition.missing.is_some() != detail.is_some() {
            condition.since = now;
        }
        condition.missing = detail.map(str::to_owned);
        true
    }

    pub(super) fn missing(&self, now: Instant) -> Vec<MissingCondition> {
        let missing = self.conditions.iter().filter_map(|(name, condition)| {
            let detail = condition.missing.clone()?;
            let since_secs = now.saturating_duration_since(condition.since).as_secs();
            Some(MissingCondition { condition: name, detail, since_secs })
        });
        missing.collect()
    }

    pub(super) fn register_heartbeat(&mut self, name: &'static str, max_silence: Duration, now: Instant) -> u64 {
        let id = self.next_heartbeat;
        self.next_heartbeat += 1;
        self.heartbeats.insert(id, HeartbeatState { name, max_silence, last: now });
        id
    }

    pub(super) fn beat(&mut self, id: u64, now: Instant) {
        if let Some(heartbeat) = self.heartbeats.get_mut(&id) {
            heartbeat.last = now;
        }
    }

    pub(super) fn drop_heartbeat(&mut self, id: u64) {
        self.heartbeats.remove(&id);
    }

    pub(super) fn stuck(&self, now: Instant) -> Vec<Stuck> {
        let silent = |beat: &HeartbeatState| now.saturating_duration_since(beat.last);
        let stuck = self.heartbeats.values().filter(|beat| silent(beat) > beat.max_silence);
        stuck.map(|beat| Stuck { name: beat.name, silent: silent(beat) }).collect()
    }

    pub(super) fn add_task(&mut self, name: &'static str, now: Instant) {
        self.tasks.insert(name, now);
    }

    pub(super) fn remove_task(&mut self, name: &'static str) {
        self.tasks.remove(name);
    }

    pub(super) fn tasks(&self, now: Instant) -> Vec<TaskView> {
        let secs_since = |moment: Instant| now.saturating_duration_since(moment).as_secs();
        let view = |(name, since): (&&'static str, &Instant)| {
            let beat = self.heartbeats.values().find(|beat| beat.name == *name);
            TaskView {
                task: name,
                running_secs: secs_since(*since),
                silent_secs: beat.map(|beat| secs_since(beat.last)),
                max_silence_secs: beat.map(|beat| beat.max_silence.as_secs()),
            }
        };
        self.tasks.iter().map(view).collect()
    }

    /// The line for STATUS=: which task failed, what the daemon says, then what it waits for, then what is stuck.
    pub(super) fn status_line(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        parts.extend(self.failure.as_ref().map(ToString::to_string));
        if !self.text.is_empty() {
            parts.push(self.text.clone());
        }
        for missing in self.missing(now) {
            let MissingCondition { condition, detail, since_secs } = missing;
            parts.push(format!("waiting for {condition}: {detail} (since {since_secs} s)"));
        }
        for stuck in self.stuck(now) {
            parts.push(format!("task {} is stuck (since {} s)", stuck.name, stuck.silent.as_secs()));
        }
        if parts.is_empty() {
            parts.push(if self.ready { "running" } else { "starting" }.to_owned());
        }
        if let Some(error) = &self.reload_error {
            parts.push(format!("configuration not reloaded: {error}"));
        }
        // A line end would end the assignment that systemd reads.
        parts.join("; ").replace('\n', " ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn conditions_age_from_the_moment_they_went_missing() {
        let start = Instant::now();
        let mut state = State::default();
        state.register_condition("database", start);
        assert!(state.set_condition("database", Some("connection refused"), start + 4 * SECOND));
        assert!(!state.set_condition("database", Some("connection refused"), start + 5 * SECOND));
        assert_eq!(state.status_line(start + 12 * SECOND), "waiting for database: connection refused (since 12 s)");
        assert!(state.set_condition("database", None, start + 13 * SECOND));
        assert!(!state.set_condition("database", None, start + 14 * SECOND));
        assert!(state.missing(start + 15 * SECOND).is_empty());
        assert!(state.set_condition("database", Some("gone away"), start + 20 * SECOND));
        assert_eq!(state.missing(start + 21 * SECOND)[0].since_secs, 1);
    }

    #[test]
    fn one_silent_loop_is_enough() {
        let start = Instant::now();
        let mut state = State::default();
        let accept = state.register_heartbeat("accept", 3 * SECOND, start);
        let reconcile = state.register_heartbeat("reconcile", 10 * SECOND, start);
        assert!(state.stuck(start + 3 * SECOND).is_empty());
        state.beat(reconcile, start + 4 * SECOND);
        let stuck = state.stuck(start + 4 * SECOND);
        assert_eq!(stuck, [Stuck { name: "accept", silent: 4 * SECOND }]);
        assert_eq!(state.status_line(start + 4 * SECOND), "task accept is stuck (since 4 s)");
        state.beat(accept, start + 5 * SECOND);
        assert!(state.stuck(start + 6 * SECOND).is_empty());
        state.drop_heartbeat(accept);
        state.drop_heartbeat(reconcile);
        assert!(state.stuck(start + 600 * SECOND).is_empty());
    }

    #[test]
    fn status_is_one_line() {
        let state = State { text: "a\nb".into(), ..State::default() };
        assert_eq!(state.status_line(Instant::now()), "a b");
    }
}
