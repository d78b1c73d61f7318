//! What probes have shown of an instance since its start.
//!
//! Asked often until it is ready, each second until it has proved itself, and then as its check says. Without a check any
//! HTTP answer to `GET /` will do, and nobody asks once it has proved itself: a slow home page never takes it out of service.

use crate::probe::{Failure, FailureKind, pace};
use dinp_common::model::HealthCheck;
use std::time::{Duration, Instant};

/// Time from one probe to the next until an instance has proved itself.
const PROVING: Duration = Duration::from_secs(1);

/// Failures in a row that make an instance without a check unfit.
const THRESHOLD: u32 = 3;

/// How an instance is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Time from start to ready.
    pub start_timeout: Duration,
    /// Time of being ready without a failed probe after which it has proved itself.
    pub min_healthy: Duration,
    /// How it is asked; none for `GET /` until it has proved itself.
    pub check: Option<HealthCheck>,
}

impl Rules {
    fn threshold(&self) -> u32 {
        self.check.as_ref().map_or(THRESHOLD, |check| check.threshold)
    }

    fn interval(&self) -> Duration {
        self.check.as_ref().map_or(PROVING, |check| Duration::from_secs(check.interval_secs.into()))
    }
}

/// Whether it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    NotYet,
    Fit,
    Unfit,
}

/// What follows from a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Nothing that was not known.
    Nothing,
    /// It is not ready yet, for this reason.
    NotYet(String),
    /// It has become ready, or is well again.
    Ready,
    /// It was ready, and has failed as often as the threshold says, the last time for this reason.
    Unfit(String),
    /// It answers wrongly since its start, as often as the threshold says, the last time so: it will not become ready.
    Refuses(String),
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fitness {
    rules: Rules,
    service: Service,
    proved: bool,
    begun: Instant,
    next: Instant,
    /// Probes in a row that speak against the present opinion.
    streak: u32,
    /// Wrong answers in a row since the start, at the check's pace, and when the last of them was counted.
    wrong: (u32, Option<Instant>),
    ready_since: Option<Instant>,
    /// Since when no probe has failed.
    well_since: Option<Instant>,
    /// Why the last probe failed, if it did.
    failure: Option<Failure>,
}

impl Fitness {
    /// Of an instance that has just been started.
    pub fn begin(rules: Rules, now: Instant) -> Self {
        Self {
            rules,
            service: Service::NotYet,
            proved: false,
            begun: now,
            next: now,
            streak: 0,
            wrong: (0, None),
            ready_since: None,
            well_since: None,
            failure: None,
        }
    }

    /// It was started again.
    pub fn begin_again(&mut self, now: Instant) {
        *self = Self::begin(self.rules.clone(), now);
    }

    /// It was ready when an agent before this one looked, and had proved itself or not.
    pub fn recall(&mut self, proved: bool, now: Instant) {
        self.become_ready(now);
        self.proved = proved;
        self.schedule(now);
    }

    /// Whether it has been ready since its start.
    pub fn was_ready(&self) -> bool {
        self.service != Service::NotYet
    }

    /// Whether it has proved itself since its start.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// How long it has been ready, with pauses, since its start.
    pub fn ready_for(&self, now: Instant) -> Duration {
        self.ready_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    /// Why the last probe failed, if it did.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// When it is to be asked next, if ever.
    pub fn next_probe(&self) -> Option<Instant> {
        (self.rules.check.is_some() || !self.proved).then_some(self.next)
    }

    /// When it will have proved itself, if nothing happens meanwhile.
    pub fn proof_due(&self) -> Option<Instant> {
        let since = self.well_since.filter(|_| self.service == Service::Fit && !self.proved)?;
        Some(since + self.rules.min_healthy)
    }

    /// When its time to start is over, as long as it is not well and has not proved itself.
    pub fn too_late(&self) -> Option<Instant> {
        (self.service != Service::Fit && !self.proved).then(|| self.begun + self.rules.start_timeout)
    }

    /// It has been well for long enough.
    pub fn prove(&mut self, now: Instant) {
        self.proved = true;
        self.schedule(now);
    }

    /// Takes in what a probe has shown.
    pub fn probed(&mut self, result: Result<(), Failure>, now: Instant) -> Finding {
        let finding = match result {
            Ok(()) => self.went_well(now),
            Err(failure) => self.failed(failure, now),
        };
        self.schedule(now);
        finding
    }

    fn went_well(&mut self, now: Instant) -> Finding {
        self.failure = None;
        self.well_since.get_or_insert(now);
        match self.service {
            Service::Fit => self.streak = 0,
            Service::Unfit if self.streak + 1 < self.rules.threshold() => self.streak += 1,
            Service::NotYet | Service::Unfit => {
                self.become_ready(now);
                return Finding::Ready;
            }
        }
        Finding::Nothing
    }

    fn failed(&mut self, failure: Failure, now: Instant) -> Finding {
        self.failure = Some(failure.clone());
        self.well_since = None;
        match self.service {
            Service::NotYet => return self.not_ready(failure, now),
            Service::Unfit => self.streak = 0,
            Service::Fit => {
                self.streak += 1;
                if self.streak >= self.rules.threshold() {
                    self.streak = 0;
                    self.service = Service::Unfit;
                    return Finding::Unfit(failure.reason);
                }
            }
        }
        Finding::Nothing
    }

    /// Wrong answers count at the pace of the check, however often it is asked.
    fn not_ready(&mut self, failure: Failure, now: Instant) -> Finding {
        let (count, last) = self.wrong;
        self.wrong = match last {
            _ if failure.kind != FailureKind::Answer => (0, None),
            Some(last) if now.saturating_duration_since(last) < self.rules.interval() => (count, Some(last)),
            _ => (count + 1, Some(now)),
        };
        if self.wrong.0 >= self.rules.threshold() {
            return Finding::Refuses(failure.reason);
        }
        Finding::NotYet(failure.reason)
    }

    fn become_ready(&mut self, now: Instant) {
        self.service = Service::Fit;
        self.streak = 0;
        self.ready_since.get_or_insert(now);
        self.well_since = Some(now);
    }

    fn schedule(&mut self, now: Instant) {
        let is_proving = self.service == Service::Fit && !self.proved && self.failure.is_none();
        let pause = match self.service {
            Service::NotYet => pace(now.saturating_duration_since(self.begun)),
            _ if is_proving => PROVING.min(self.rules.interval()),
            Service::Fit | Service::Unfit => self.rules.interval(),
        };
        self.next = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fitness, and a clock that a test moves.
    struct Trial(Fitness, Instant);

    impl Trial {
        fn new(check: Option<HealthCheck>) -> Self {
            let now = Instant::now();
            let rules = Rules { start_timeout: Duration::from_secs(60), min_healthy: Duration::from_secs(5), check };
            Self(Fitness::begin(rules, now), now)
        }

        fn pass(&mut self, secs: u64) {
            self.1 += Duration::from_secs(secs);
        }

        fn well(&mut self) -> Finding {
            self.0.probed(Ok(()), self.1)
        }

        fn wrong(&mut self) -> Finding {
            let failure = Failure { reason: "GET /health answered 500".into(), kind: FailureKind::Answer };
            self.0.probed(Err(failure), self.1)
        }

        fn silent(&mut self) -> Finding {
            let failure = Failure { reason: "nothing listens on port 8080".into(), kind: FailureKind::NoListener };
            self.0.probed(Err(failure), self.1)
        }

        /// Seconds from now on.
        fn until(&self, moment: Option<Instant>) -> Option<u64> {
            moment.map(|moment| moment.duration_since(self.1).as_secs())
        }
    }

    fn refuses() -> Finding {
        Finding::Refuses("GET /health answered 500".into())
    }

    #[test]
    fn without_a_check_it_is_asked_until_it_has_proved_itself_and_never_again() {
        let mut trial = Trial::new(None);
        assert_eq!(trial.silent(), Finding::NotYet("nothing listens on port 8080".into()));
        assert_eq!(trial.well(), Finding::Ready);
        assert_eq!(trial.until(trial.0.proof_due()), Some(5));
        assert_eq!(trial.until(trial.0.next_probe()), Some(1));
        trial.pass(5);
        trial.0.prove(trial.1);
        assert!(trial.0.is_proved());
        assert_eq!((trial.0.next_probe(), trial.0.proof_due(), trial.0.too_late()), (None, None, None));
    }

    #[test]
    fn a_failed_probe_begins_the_proof_anew() {
        let mut trial = Trial::new(None);
        trial.well();
        trial.pass(4);
        assert_eq!(trial.silent(), Finding::Nothing, "one failure is no verdict");
        assert_eq!(trial.0.proof_due(), None);
        trial.pass(1);
        trial.well();
        assert_eq!(trial.until(trial.0.proof_due()), Some(5));
    }

    #[test]
    fn who_fails_again_and_again_before_it_has_proved_itself_is_not_ready_and_is_late_in_the_end() {
        let mut trial = Trial::new(None);
        trial.well();
        assert_eq!(trial.0.too_late(), None);
        trial.silent();
        trial.silent();
        assert!(matches!(trial.silent(), Finding::Unfit(_)));
        assert_eq!(trial.until(trial.0.too_late()), Some(60));
        trial.well();
        trial.well();
        assert_eq!(trial.well(), Finding::Ready);
        assert_eq!(trial.0.too_late(), None);
    }

    #[test]
    fn what_has_proved_itself_stays_so_until_its_next_start() {
        let mut trial = Trial::new(Some(HealthCheck::new("/health")));
        trial.well();
        trial.0.prove(trial.1);
        for _ in 0..3 {
            trial.wrong();
        }
        assert!(trial.0.is_proved());
        assert_eq!(trial.0.too_late(), None, "what has served is not stopped by its own agent");
        assert_eq!(trial.until(trial.0.next_probe()), Some(5));
        trial.0.begin_again(trial.1);
        assert!(!trial.0.is_proved() && !trial.0.was_ready());
    }

    #[test]
    fn a_health_path_that_answers_wrongly_ends_the_start_at_the_pace_of_its_check() {
        let mut trial = Trial::new(Some(HealthCheck::new("/health")));
        for _ in 0..10 {
            assert!(matches!(trial.wrong(), Finding::NotYet(_)), "asked often, counted once in 5 s");
        }
        trial.pass(5);
        assert!(matches!(trial.wrong(), Finding::NotYet(_)));
        trial.pass(5);
        assert_eq!(trial.wrong(), refuses());
    }

    #[test]
    fn only_answers_in_a_row_count_and_silence_waits_for_the_start_timeout() {
        let mut trial = Trial::new(Some(HealthCheck::new("/health")));
        for _ in 0..2 {
            trial.wrong();
            trial.pass(5);
            trial.wrong();
            trial.pass(5);
            assert!(matches!(trial.silent(), Finding::NotYet(_)));
        }
        assert_eq!(trial.until(trial.0.too_late()), Some(40));
    }
}
