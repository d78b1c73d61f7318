//! The life of an instance, without I/O: what was seen and what is wanted go in, the next step comes out.

use super::fitness::{Finding, Fitness, Rules};
use super::reason;
use super::shown::Shown;
use super::terms::{Died, Exit, Findings, Goal, Now, Observed, Step};
use crate::backoff::Backoff;
use crate::probe::Failure;
use crate::shared::Remembered;
use dinp_common::api::agent::InstanceState;
use std::time::{Duration, Instant};

/// An instance that was ready for so long starts with a clean record.
const PROVEN: Duration = Duration::from_secs(60);

/// An instance that ends within this after a process in it was killed for memory has ended for that.
const OOM_ENDS: Duration = Duration::from_secs(1);

/// An end whose reason is not known yet.
#[derive(Clone, Debug)]
struct Death {
    exit: Exit,
    /// Why its own agent stopped it, if that was so.
    aborted: Option<String>,
}

/// See the module [`super`].
#[derive(Clone, Debug)]
pub struct Life {
    goal: Goal,
    container: Option<Observed>,
    start_timeout: Duration,
    fitness: Fitness,
    shown: Shown,
    image_is_here: bool,
    /// Something may have happened to the container.
    must_look: bool,
    death: Option<Death>,
    /// It answers wrongly since its start: why there is no use in waiting.
    refuses: Option<String>,
    /// Why it is being stopped, if it did not become ready.
    aborted: Option<String>,
    /// When a process in it was killed for memory, until it is clear whether it lives on.
    oom_at: Option<Instant>,
    /// It has run before: the next start is a restart.
    has_run: bool,
    /// It was down when it was found: it stays so until orders name it.
    found_down: bool,
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
    pub fn ordered(rules: Rules, now: Now) -> Self {
        Self {
            goal: Goal::Undecided,
            container: Some(Observed::Absent),
            start_timeout: rules.start_timeout,
            fitness: Fitness::begin(rules, now.instant),
            shown: Shown::new(now.millis),
            image_is_here: false,
            must_look: false,
            death: None,
            refuses: None,
            aborted: None,
            oom_at: None,
            has_run: false,
            found_down: false,
            retry_at: now.instant,
            call_at: now.instant,
            crashes: Backoff::crashes(),
            preparation: Backoff::preparation(),
            calls: Backoff::calls(),
        }
    }

    /// Of an instance whose container was found, with what is remembered of it.
    pub fn found(rules: Rules, observed: Observed, remembered: Option<&Remembered>, now: Now) -> Self {
        let mut life = Self::ordered(rules, now);
        life.shown.restarts = remembered.map_or(0, |known| known.restarts);
        life.shown.failures = remembered.map_or(0, |known| known.failures);
        life.has_run = true;
        life.image_is_here = true;
        life.container = None;
        life.found_down = matches!(observed, Observed::Down(_));
        let same_start = |known: &&Remembered| matches!(&observed, Observed::Up(start) if *start == known.started_at && !start.is_empty());
        let ready = remembered.filter(same_start);
        life.observe(observed, now);
        if let Some(known) = ready {
            life.fitness.recall(known.proved, now.instant);
            life.shown.enter(InstanceState::Ready, "", now);
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

    /// Whether it has proved itself since its last start.
    pub fn is_proved(&self) -> bool {
        self.fitness.is_proved()
    }

    /// Why the last probe failed, if it did.
    pub fn probe_failure(&self) -> Option<&Failure> {
        self.fitness.failure()
    }

    /// How it ended, as long as nobody has found out why.
    pub fn unexplained(&self) -> Option<&Exit> {
        self.death.as_ref().map(|death| &death.exit)
    }

    /// What a new agent has to know of an instance.
    pub fn to_remember(&self) -> Option<Remembered> {
        let started_at = match &self.container {
            Some(Observed::Up(started)) if self.fitness.was_ready() => started.clone(),
            _ => String::new(),
        };
        let Shown { restarts, failures, .. } = self.shown;
        let is_news = !started_at.is_empty() || restarts > 0 || failures > 0;
        let since = if self.shown.state == InstanceState::Ready { self.shown.since } else { 0 };
        is_news.then(|| Remembered { started_at, restarts, since, proved: self.is_proved(), failures })
    }

    /// The orders in force say this now.
    pub fn set_goal(&mut self, goal: Goal, reason: &str, now: Now) {
        if goal == self.goal {
            return;
        }
        let was = std::mem::replace(&mut self.goal, goal);
        match goal {
            Goal::Stop => self.shown.enter(InstanceState::Stopping, reason, now),
            _ if was == Goal::Stop => {
                self.fitness.begin_again(now.instant);
                self.must_look = true;
                let state = match self.container {
                    Some(Observed::Up(_)) => InstanceState::Starting,
                    Some(Observed::Down(_)) => InstanceState::BackOff,
                    _ => InstanceState::Accepted,
                };
                self.shown.enter(state, "the order to stop was taken back", now);
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
        if self.death.is_some() && matches!(container, Observed::Down(_)) && self.goal != Goal::Stop {
            return self.calling(Step::Examine, now);
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
        let is_over = |moment: Option<Instant>| moment.is_some_and(|moment| now >= moment);
        let (proof, survival) = (self.fitness.proof_due(), self.oom_at.map(|at| at + OOM_ENDS));
        if is_over(proof) || is_over(survival) {
            return Step::Reckon;
        }
        let late = self.fitness.too_late();
        if (self.refuses.is_some() || is_over(late)) && now >= self.call_at {
            return Step::Abort;
        }
        let probe = self.fitness.next_probe();
        if is_over(probe) {
            return Step::Probe;
        }
        self.wait([proof, survival, late.map(|late| late.max(self.call_at)), probe].into_iter().flatten().min())
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
                self.begin(now);
                self.enter_unless_stopping(InstanceState::Starting, "", now);
            }
            Observed::Down(exit) => {
                if let Some(exit) = &exit {
                    self.shown.exit_code = Some(exit.code);
                }
                match (before, exit) {
                    (Some(Observed::Up(_)), exit) => self.end(exit.unwrap_or_default(), now),
                    (None, Some(exit)) => self.end(Exit { is_unwatched: true, ..exit }, now),
                    (None, None) => self.enter_unless_stopping(InstanceState::BackOff, "", now),
                    // The event told of it before, and less.
                    (Some(_), exit) => {
                        if let (Some(death), Some(exit)) = (&mut self.death, exit) {
                            death.exit.learn(exit);
                        }
                    }
                }
            }
            Observed::Absent => {
                if matches!(before, Some(Observed::Up(_) | Observed::Down(_))) && self.goal != Goal::Stop {
                    self.begin(now);
                    self.retry(now);
                    self.blame_node("its container was removed", now);
                }
            }
        }
    }

    /// It runs from its beginning, or is about to.
    fn begin(&mut self, now: Now) {
        self.fitness.begin_again(now.instant);
        (self.death, self.refuses, self.aborted, self.oom_at) = (None, None, None, None);
    }

    /// It has ended; why is to be found out.
    fn end(&mut self, exit: Exit, now: Now) {
        if self.fitness.ready_for(now.instant) >= PROVEN {
            self.crashes.reset();
        }
        let aborted = self.aborted.take();
        let out_of_memory = exit.out_of_memory || self.oom_at.is_some();
        self.begin(now);
        self.death = Some(Death { exit: Exit { out_of_memory, ..exit }, aborted });
        self.enter_unless_stopping(InstanceState::BackOff, "", now);
    }

    /// It is known why it ended.
    pub fn examined(&mut self, findings: Findings, now: Now) {
        let Some(Death { exit, aborted }) = self.death.take() else { return };
        self.shown.output = findings.output;
        self.retry(now);
        match aborted {
            Some(reason) => self.blame_app(&reason, true, now),
            None if exit.is_unwatched => self.blame_node(&findings.reason, now),
            None => {
                self.blame_app(&findings.reason, false, now);
                self.shown.out_of_memory = findings.out_of_memory;
            }
        }
    }

    fn retry(&mut self, now: Now) {
        self.retry_at = now.instant + self.crashes.fail();
    }

    fn blame_app(&mut self, reason: &str, failed_start: bool, now: Now) {
        self.shown.count_failure(reason, failed_start);
        self.enter_unless_stopping(InstanceState::BackOff, reason, now);
    }

    fn blame_node(&mut self, reason: &str, now: Now) {
        self.enter_unless_stopping(InstanceState::BackOff, reason, now);
        self.shown.node_fault = true;
    }

    /// Its container was removed for what it did to the node.
    pub fn evicted(&mut self, reason: &str, now: Now) {
        self.engine_answers();
        self.must_look = false;
        self.container = Some(Observed::Absent);
        self.begin(now);
        self.retry(now);
        self.blame_app(reason, false, now);
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
        self.blame_node(reason, now);
    }

    /// The container was removed in order to make it anew.
    pub fn discarded(&mut self) {
        self.container = Some(Observed::Absent);
    }

    /// The container is about to be started; true if this is a restart.
    pub fn starting(&mut self, now: Now) -> bool {
        // Believed until the engine is asked, so that an end before that counts as one.
        self.container = Some(Observed::Up(String::new()));
        self.begin(now);
        let again = std::mem::replace(&mut self.has_run, true);
        if again {
            self.shown.restarts = self.shown.restarts.saturating_add(1);
        }
        again
    }

    /// The engine could not start it.
    pub fn not_started(&mut self, error: &str, now: Now) {
        self.engine_answers();
        self.container = Some(Observed::Down(None));
        self.retry(now);
        match reason::is_own_fault(error) {
            true => self.blame_app(&reason::of_start_error(error), false, now),
            false => self.blame_node(error, now),
        }
    }

    /// It is being stopped because it did not become ready; `found` says more of why than its last probe.
    pub fn aborting(&mut self, found: Option<String>) {
        let secs = self.start_timeout.as_secs();
        let last = found.or_else(|| self.fitness.failure().map(|failure| failure.reason.clone()));
        self.aborted = Some(match (self.refuses.clone(), last) {
            (Some(answer), _) => answer,
            (None, Some(last)) => format!("not ready within {secs} s: {last}"),
            (None, None) => format!("not ready within {secs} s"),
        });
    }

    /// A probe came back.
    pub fn probed(&mut self, result: Result<(), Failure>, now: Now) {
        match self.fitness.probed(result, now.instant) {
            Finding::Nothing => {}
            Finding::NotYet(reason) => self.shown.reason = reason,
            Finding::Ready => self.enter_unless_stopping(InstanceState::Ready, "", now),
            Finding::Unfit(reason) => self.enter_unless_stopping(InstanceState::Unfit, &reason, now),
            Finding::Refuses(reason) => {
                self.shown.reason.clone_from(&reason);
                self.refuses = Some(reason);
            }
        }
    }

    /// A process in the container was killed for memory.
    pub fn out_of_memory(&mut self, now: Now) {
        if matches!(self.container, Some(Observed::Up(_))) {
            self.oom_at.get_or_insert(now.instant);
        }
    }

    /// Takes in what time has brought: that it has proved itself, and that it has survived the end of a process in it.
    pub fn reckon(&mut self, limit_mb: u32, now: Now) {
        if self.fitness.proof_due().is_some_and(|due| now.instant >= due) {
            self.fitness.prove(now.instant);
            self.shown.forgive();
        }
        if self.oom_at.take_if(|at| now.instant >= *at + OOM_ENDS).is_some() {
            self.shown.survive(limit_mb);
        }
    }

    /// The engine did not answer: nothing is known, and it is asked again later.
    pub fn engine_failed(&mut self, reason: &str, now: Now) {
        self.call_at = now.instant + self.calls.fail();
        self.must_look = self.container != Some(Observed::Absent);
        if !matches!(self.shown.state, InstanceState::Ready | InstanceState::Unfit) {
            self.shown.reason = reason.to_owned();
            self.shown.node_fault = true;
        }
    }

    fn engine_answers(&mut self) {
        self.calls.reset();
    }

    fn enter_unless_stopping(&mut self, state: InstanceState, reason: &str, now: Now) {
        if self.goal != Goal::Stop {
            self.shown.enter(state, reason, now);
        }
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
