//! The life of an instance, without I/O: what was seen and what is wanted go in, the next step comes out.

use super::terms::{Died, Exit, Goal, Now, Observed, Shown, Step};
use crate::backoff::Backoff;
use crate::probe::pace;
use crate::shared::Remembered;
use dinp_common::api::agent::InstanceState;
use dinp_common::model::HealthCheck;
use std::time::{Duration, Instant};

/// An instance that was ready for so long starts with a clean record.
const PROVEN: Duration = Duration::from_secs(60);

/// Whether it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    NotYet,
    Fit,
    Unfit,
}

/// See the module [`super`].
#[derive(Clone, Debug)]
pub struct Life {
    goal: Goal,
    container: Option<Observed>,
    start_timeout: Duration,
    health: Option<HealthCheck>,
    shown: Shown,
    image_is_here: bool,
    /// Something may have happened to the container.
    must_look: bool,
    service: Service,
    /// Probes in a row that speak against the present opinion.
    streak: u32,
    up_since: Instant,
    ready_since: Option<Instant>,
    next_probe: Instant,
    /// It has run before: the next start is a restart.
    has_run: bool,
    /// It was down when it was found: it stays so until orders name it.
    found_down: bool,
    /// It is being stopped because it was not ready in time.
    aborted: bool,
    /// No attempt to create or start before that.
    retry_at: Instant,
    /// No call to the engine before that.
    call_at: Instant,
    crashes: Backoff,
    preparation: Backoff,
    calls: Backoff,
}

impl Life {
    /// Of an instance that was ordered and has no container.
    pub fn ordered(start_timeout: Duration, health: Option<HealthCheck>, now: Now) -> Self {
        Self {
            goal: Goal::Undecided,
            container: Some(Observed::Absent),
            start_timeout,
            health,
            shown: Shown {
                state: InstanceState::Accepted,
                since: now.millis,
                reason: String::new(),
                restarts: 0,
                exit_code: None,
            },
            image_is_here: false,
            must_look: false,
            service: Service::NotYet,
            streak: 0,
            up_since: now.instant,
            ready_since: None,
            next_probe: now.instant,
            has_run: false,
            found_down: false,
            aborted: false,
            retry_at: now.instant,
            call_at: now.instant,
            crashes: Backoff::crashes(),
            preparation: Backoff::preparation(),
            calls: Backoff::calls(),
        }
    }

    /// Of an instance whose container was found, with what is remembered of it from when it was ready.
    pub fn found(
        start_timeout: Duration,
        health: Option<HealthCheck>,
        observed: Observed,
        remembered: Option<&Remembered>,
        now: Now,
    ) -> Self {
        let mut life = Self::ordered(start_timeout, health, now);
        life.shown.restarts = remembered.map_or(0, |remembered| remembered.restarts);
        life.has_run = true;
        life.image_is_here = true;
        life.container = None;
        life.found_down = matches!(observed, Observed::Down(_));
        let same_start = |known: &&Remembered| matches!(&observed, Observed::Up(start) if *start == known.started_at);
        let ready = remembered.filter(same_start);
        life.observe(observed, now);
        if let Some(known) = ready {
            life.become_ready(now);
            if known.since > 0 {
                life.shown.since = known.since;
            }
        }
        life
    }

    /// What a report says.
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// What a new agent has to know of an instance that is ready.
    pub fn to_remember(&self) -> Option<Remembered> {
        let Some(Observed::Up(started)) = &self.container else { return None };
        let since = if self.shown.state == InstanceState::Ready { self.shown.since } else { 0 };
        (self.service != Service::NotYet).then(|| Remembered {
            started_at: started.clone(),
            restarts: self.shown.restarts,
            since,
        })
    }

    /// The orders in force say this now.
    pub fn set_goal(&mut self, goal: Goal, reason: &str, now: Now) {
        if goal == self.goal {
            return;
        }
        let was = std::mem::replace(&mut self.goal, goal);
        match goal {
            Goal::Stop => self.enter(InstanceState::Stopping, reason, now),
            _ if was == Goal::Stop => {
                self.service = Service::NotYet;
                self.must_look = true;
                let state = match self.container {
                    Some(Observed::Up(_)) => InstanceState::Starting,
                    Some(Observed::Down(_)) => InstanceState::BackOff,
                    _ => InstanceState::Accepted,
                };
                self.enter(state, "the order to stop was taken back", now);
            }
            _ => {}
        }
        if matches!(goal, Goal::Run { .. }) {
            self.found_down = false;
        }
        if goal == (Goal::Run { can_create: false }) && self.container == Some(Observed::Absent) {
            self.shown.reason = "waits for a server: its environment is not kept on this node".into();
        }
    }

    /// Something may have happened to the container.
    pub fn nudge(&mut self) {
        self.must_look = true;
    }

    /// The engine's event says that it has ended. It counts if it is younger than the start that is known:
    /// events may come late, and twice.
    pub fn died(&mut self, died: Died, now: Now) {
        let Some(Observed::Up(started)) = &self.container else { return self.nudge() };
        let started = started.parse::<jiff::Timestamp>();
        if started.is_ok_and(|started| started.as_nanosecond() < i128::from(died.at_nanos)) {
            self.observe(Observed::Down(Some(Exit { code: died.code, ..Exit::default() })), now);
        }
        // Whether it was for memory is not in the event.
        self.nudge();
    }

    /// What is to be done now.
    pub fn step(&self, now: Instant) -> Step {
        let may_call = now >= self.call_at;
        if self.must_look && may_call {
            return Step::Look;
        }
        let Some(container) = &self.container else { return self.calling(Step::Look, now) };
        if matches!(container, Observed::Up(_)) && self.goal != Goal::Stop {
            return self.attend(now);
        }
        let step = match (self.goal, container) {
            (Goal::Stop, Observed::Absent) | (Goal::Unnamed, Observed::Absent) => return Step::Gone,
            (Goal::Stop, Observed::Up(_)) => Step::End,
            (Goal::Stop, Observed::Down(_)) => Step::Remove,
            (Goal::Undecided, _) | (Goal::Run { can_create: false }, Observed::Absent) => return self.wait(None),
            (Goal::Unnamed, Observed::Down(_)) if self.found_down => return self.wait(None),
            _ if now < self.retry_at => return self.wait(Some(self.retry_at)),
            (_, Observed::Down(_)) => Step::Start,
            _ if !self.image_is_here => Step::Pull,
            _ => Step::Create,
        };
        self.calling(step, now)
    }

    /// The steps of an instance that runs. They do not need the engine, but for an end.
    fn attend(&self, now: Instant) -> Step {
        if self.service == Service::NotYet {
            let late = self.up_since + self.start_timeout;
            if now >= late && now >= self.call_at {
                return Step::Abort;
            }
            return if now >= self.next_probe {
                Step::Probe
            } else {
                self.wait(Some(self.next_probe.min(late.max(now))))
            };
        }
        match self.health {
            None => self.wait(None),
            Some(_) if now >= self.next_probe => Step::Probe,
            Some(_) => self.wait(Some(self.next_probe)),
        }
    }

    fn calling(&self, step: Step, now: Instant) -> Step {
        if now < self.call_at { Step::Wait(Some(self.call_at)) } else { step }
    }

    /// Waits, but not past the moment when the engine may be asked what it could not answer before.
    fn wait(&self, until: Option<Instant>) -> Step {
        if !self.must_look {
            return Step::Wait(until);
        }
        Step::Wait(Some(until.map_or(self.call_at, |until| until.min(self.call_at))))
    }

    /// The engine told this of the container.
    pub fn observe(&mut self, observed: Observed, now: Now) {
        self.engine_answers();
        self.must_look = false;
        let before = self.container.replace(observed.clone());
        match observed {
            Observed::Up(started) => {
                if before == Some(Observed::Up(started)) {
                    return;
                }
                self.service = Service::NotYet;
                self.streak = 0;
                self.aborted = false;
                self.up_since = now.instant;
                self.next_probe = now.instant;
                self.ready_since = None;
                self.enter_unless_stopping(InstanceState::Starting, "", now);
            }
            Observed::Down(exit) => {
                if let Some(exit) = &exit {
                    self.shown.exit_code = Some(exit.code);
                }
                match before {
                    Some(Observed::Up(_)) => {
                        let reason = exit.map(|exit| exit.reason()).unwrap_or_default();
                        self.ended(reason, now);
                    }
                    None => {
                        let reason = exit.map(|exit| exit.reason()).unwrap_or_default();
                        self.enter_unless_stopping(InstanceState::BackOff, &reason, now);
                    }
                    // The event told of it before.
                    Some(_) => {
                        if let Some(exit) = exit.filter(|exit| exit.out_of_memory) {
                            self.shown.reason = exit.reason();
                        }
                    }
                }
            }
            Observed::Absent => {
                if matches!(before, Some(Observed::Up(_) | Observed::Down(_))) && self.goal != Goal::Stop {
                    self.ended("its container was removed".into(), now);
                }
            }
        }
    }

    fn ended(&mut self, reason: String, now: Now) {
        self.service = Service::NotYet;
        let proven = self.ready_since.take().is_some_and(|since| now.instant.duration_since(since) >= PROVEN);
        if proven {
            self.crashes.reset();
        }
        let reason = match std::mem::take(&mut self.aborted) {
            true => format!("not ready within {} s", self.start_timeout.as_secs()),
            false => reason,
        };
        self.crashed(&reason, now);
    }

    fn crashed(&mut self, reason: &str, now: Now) {
        self.retry_at = now.instant + self.crashes.fail();
        self.enter_unless_stopping(InstanceState::BackOff, reason, now);
    }

    /// The image is being pulled.
    pub fn pulling(&mut self, now: Now) {
        self.enter_unless_stopping(InstanceState::Pulling, "", now);
    }

    /// The image is here.
    pub fn pulled(&mut self) {
        self.engine_answers();
        self.image_is_here = true;
    }

    /// The engine says that the image is not here after all.
    pub fn image_is_missing(&mut self) {
        self.image_is_here = false;
    }

    /// The container was created.
    pub fn created(&mut self) {
        self.engine_answers();
        self.preparation.reset();
        self.container = Some(Observed::Down(None));
    }

    /// Pull or creation failed.
    pub fn not_prepared(&mut self, reason: &str, now: Now) {
        self.retry_at = now.instant + self.preparation.fail();
        self.enter_unless_stopping(InstanceState::BackOff, reason, now);
    }

    /// The container was removed in order to make it anew.
    pub fn discarded(&mut self) {
        self.container = Some(Observed::Absent);
    }

    /// The container is about to be started; true if this is a restart.
    pub fn starting(&mut self) -> bool {
        // Believed until the engine is asked, so that an end before that counts as one.
        self.container = Some(Observed::Up(String::new()));
        self.service = Service::NotYet;
        let again = std::mem::replace(&mut self.has_run, true);
        if again {
            self.shown.restarts = self.shown.restarts.saturating_add(1);
        }
        again
    }

    /// The engine could not start it.
    pub fn not_started(&mut self, reason: &str, now: Now) {
        self.engine_answers();
        self.container = Some(Observed::Down(None));
        self.crashed(reason, now);
    }

    /// It is being stopped because it was not ready in time.
    pub fn aborting(&mut self) {
        self.aborted = true;
    }

    /// A probe came back.
    pub fn probed(&mut self, result: Result<(), String>, now: Now) {
        let (interval, threshold) = match &self.health {
            Some(health) => (Duration::from_secs(health.interval_secs.into()), health.threshold),
            None => (self.start_timeout, 1),
        };
        self.next_probe = now.instant + interval;
        match (self.service, result) {
            (Service::NotYet, Ok(())) => self.become_ready(now),
            (Service::NotYet, Err(reason)) => {
                self.shown.reason = reason;
                self.next_probe = now.instant + pace(now.instant.duration_since(self.up_since));
            }
            (Service::Fit, Ok(())) | (Service::Unfit, Err(_)) => self.streak = 0,
            (Service::Fit, Err(reason)) => {
                self.streak += 1;
                if self.streak >= threshold {
                    self.streak = 0;
                    self.service = Service::Unfit;
                    self.enter_unless_stopping(InstanceState::Unfit, &reason, now);
                }
            }
            (Service::Unfit, Ok(())) => {
                self.streak += 1;
                if self.streak >= threshold {
                    self.become_ready(now);
                }
            }
        }
    }

    fn become_ready(&mut self, now: Now) {
        self.service = Service::Fit;
        self.streak = 0;
        self.ready_since.get_or_insert(now.instant);
        self.next_probe = now.instant
            + self
                .health
                .as_ref()
                .map_or(self.start_timeout, |health| Duration::from_secs(health.interval_secs.into()));
        self.enter_unless_stopping(InstanceState::Ready, "", now);
    }

    /// The engine did not answer: nothing is known, and it is asked again later.
    pub fn engine_failed(&mut self, reason: &str, now: Now) {
        self.call_at = now.instant + self.calls.fail();
        self.must_look = self.container != Some(Observed::Absent);
        if !matches!(self.shown.state, InstanceState::Ready | InstanceState::Unfit) {
            self.shown.reason = reason.to_owned();
        }
    }

    fn engine_answers(&mut self) {
        self.calls.reset();
    }

    fn enter_unless_stopping(&mut self, state: InstanceState, reason: &str, now: Now) {
        if self.goal != Goal::Stop {
            self.enter(state, reason, now);
        }
    }

    fn enter(&mut self, state: InstanceState, reason: &str, now: Now) {
        if self.shown.state != state {
            self.shown.state = state;
            self.shown.since = now.millis;
        }
        self.shown.reason = reason.to_owned();
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
