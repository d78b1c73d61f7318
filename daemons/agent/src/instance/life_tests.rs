use super::*;
use InstanceState::*;

/// A clock that a test moves.
struct Clock(Now);

impl Clock {
    fn new() -> Self {
        Self(Now { instant: Instant::now(), millis: 1_000_000 })
    }

    fn pass(&mut self, secs: u64) -> Now {
        self.0.instant += Duration::from_secs(secs);
        self.0.millis += i64::try_from(secs * 1000).unwrap();
        self.0
    }

    fn now(&self) -> Now {
        self.0
    }

    fn instant(&self) -> Instant {
        self.0.instant
    }
}

const START: Duration = Duration::from_secs(30);

fn up(name: &str) -> Observed {
    Observed::Up(name.into())
}

fn down(code: i64) -> Observed {
    Observed::Down(Some(Exit { code, ..Exit::default() }))
}

fn ordered(clock: &Clock, health: Option<HealthCheck>) -> Life {
    let mut life = Life::ordered(START, health, clock.now());
    life.set_goal(Goal::Run { can_create: true }, "", clock.now());
    life
}

/// A life that has come to Ready.
fn ready(clock: &Clock, health: Option<HealthCheck>) -> Life {
    let mut life = ordered(clock, health);
    life.pulled();
    life.created();
    life.starting();
    life.observe(up("a"), clock.now());
    life.probed(Ok(()), clock.now());
    assert_eq!(life.shown().state, Ready);
    life
}

#[test]
fn from_order_to_ready() {
    let mut clock = Clock::new();
    let mut life = ordered(&clock, None);
    assert_eq!((life.shown().state, life.step(clock.instant())), (Accepted, Step::Pull));
    life.pulling(clock.now());
    assert_eq!(life.shown().state, Pulling);
    life.pulled();
    assert_eq!(life.step(clock.instant()), Step::Create);
    life.created();
    assert_eq!(life.step(clock.instant()), Step::Start);
    assert!(!life.starting());
    life.observe(up("a"), clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (Starting, Step::Probe));
    life.probed(Err("port 1 cannot be connected".into()), clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (Starting, "port 1 cannot be connected"));
    assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_millis(50))));
    clock.pass(1);
    assert_eq!(life.step(clock.instant()), Step::Probe);
    life.probed(Ok(()), clock.now());
    assert_eq!((life.shown().state, life.shown().since, life.shown().restarts), (Ready, clock.now().millis, 0));
    let remembered = life.to_remember().unwrap();
    assert_eq!((&*remembered.started_at, remembered.since), ("a", life.shown().since));
    assert_eq!(life.step(clock.instant()), Step::Wait(None), "without a health path it is not asked again");
}

#[test]
fn crashes_are_restarted_at_once_and_then_with_patience() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, None);
    for restart in 1..=3 {
        life.observe(down(3), clock.now());
        assert_eq!((life.shown().state, life.shown().exit_code), (BackOff, Some(3)));
        assert_eq!(life.step(clock.instant()), Step::Start);
        assert!(life.starting());
        life.observe(up(&restart.to_string()), clock.now());
        assert_eq!((life.shown().state, life.shown().restarts), (Starting, restart));
    }
    life.observe(down(3), clock.now());
    assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_secs(10))));
    clock.pass(10);
    assert_eq!(life.step(clock.instant()), Step::Start);
    life.observe(up("z"), clock.now());
    life.probed(Ok(()), clock.now());
    clock.pass(60);
    life.observe(down(3), clock.now());
    assert_eq!(life.step(clock.instant()), Step::Start, "60 s of service make good");
}

#[test]
fn an_end_that_nobody_saw_counts_too() {
    let clock = Clock::new();
    let mut life = ordered(&clock, None);
    life.pulled();
    life.created();
    for _ in 0..3 {
        assert_eq!(life.step(clock.instant()), Step::Start);
        life.starting();
        life.observe(down(127), clock.now());
        assert_eq!(
            (life.shown().state, life.shown().reason.as_str()),
            (BackOff, "exited with code 127 (its command was not found)")
        );
    }
    life.starting();
    life.not_started("exec format error", clock.now());
    assert_eq!(life.shown().restarts, 3);
    assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_secs(10))));
}

#[test]
fn the_event_of_an_end_counts_if_it_is_of_this_run() {
    let clock = Clock::new();
    let mut life = ordered(&clock, None);
    life.pulled();
    life.created();
    life.observe(up("1970-01-01T00:00:10.5Z"), clock.now());
    life.probed(Ok(()), clock.now());
    life.died(Died { at_nanos: 10_400_000_000, code: 1 }, clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (Ready, Step::Look), "that was the run before");
    life.observe(up("1970-01-01T00:00:10.5Z"), clock.now());
    life.died(Died { at_nanos: 10_600_000_000, code: 137 }, clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (BackOff, Step::Look));
    life.observe(Observed::Down(Some(Exit { code: 137, out_of_memory: true, error: String::new() })), clock.now());
    assert_eq!((life.shown().reason.as_str(), life.step(clock.instant())), ("out of memory", Step::Start));
    assert_eq!(life.crashes.failed(), 1, "it counts once");
}

#[test]
fn the_reason_of_an_end_is_told() {
    let clock = Clock::new();
    let mut life = ready(&clock, None);
    life.observe(Observed::Down(Some(Exit { code: 137, out_of_memory: true, error: String::new() })), clock.now());
    assert_eq!((life.shown().reason.as_str(), life.shown().exit_code), ("out of memory", Some(137)));
    let mut life = ready(&clock, None);
    life.observe(down(2), clock.now());
    assert_eq!(life.shown().reason, "exited with code 2");
}

#[test]
fn who_is_not_ready_in_time_is_stopped_and_started_again() {
    let mut clock = Clock::new();
    let mut life = ordered(&clock, None);
    life.pulled();
    life.created();
    life.observe(up("a"), clock.now());
    life.probed(Err("no".into()), clock.now());
    clock.pass(30);
    assert_eq!(life.step(clock.instant()), Step::Abort);
    life.aborting();
    life.observe(down(143), clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (BackOff, "not ready within 30 s"));
    assert_eq!(life.step(clock.instant()), Step::Start);
}

#[test]
fn the_threshold_decides_in_both_directions() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, Some(HealthCheck::new("/health")));
    assert!(matches!(life.step(clock.instant()), Step::Wait(Some(_))));
    clock.pass(5);
    assert_eq!(life.step(clock.instant()), Step::Probe);
    let bad = || Err("/health answers 500".to_owned());
    life.probed(bad(), clock.now());
    life.probed(bad(), clock.now());
    life.probed(Ok(()), clock.now());
    life.probed(bad(), clock.now());
    life.probed(bad(), clock.now());
    assert_eq!(life.shown().state, Ready, "only failures in a row count");
    life.probed(bad(), clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (Unfit, "/health answers 500"));
    life.probed(Ok(()), clock.now());
    life.probed(Ok(()), clock.now());
    assert_eq!(life.shown().state, Unfit);
    life.probed(Ok(()), clock.now());
    assert_eq!(life.shown().state, Ready);
}

#[test]
fn an_order_to_stop_is_carried_out_from_any_state() {
    let clock = Clock::new();
    let mut running = ready(&clock, None);
    running.set_goal(Goal::Stop, "scaled in", clock.now());
    assert_eq!((running.shown().state, running.shown().reason.as_str()), (Stopping, "scaled in"));
    assert_eq!(running.step(clock.instant()), Step::End);
    running.observe(down(0), clock.now());
    assert_eq!((running.shown().state, running.step(clock.instant())), (Stopping, Step::Remove));
    running.observe(Observed::Absent, clock.now());
    assert_eq!(running.step(clock.instant()), Step::Gone);

    let mut pulling = ordered(&clock, None);
    pulling.pulling(clock.now());
    pulling.set_goal(Goal::Stop, "", clock.now());
    assert_eq!(pulling.step(clock.instant()), Step::Gone);
}

#[test]
fn absence_is_no_order() {
    let clock = Clock::new();
    let mut life = ready(&clock, None);
    life.set_goal(Goal::Unnamed, "", clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (Ready, Step::Wait(None)));
    life.observe(down(1), clock.now());
    assert_eq!(life.step(clock.instant()), Step::Start, "what crashes is restarted, named or not");
    life.observe(Observed::Absent, clock.now());
    assert_eq!(life.step(clock.instant()), Step::Gone, "but nobody says how to make it anew");
}

#[test]
fn what_was_found_running_and_ready_stays_ready() {
    let clock = Clock::new();
    let known = Remembered { started_at: "a".into(), restarts: 2, since: 7 };
    let found = |observed, known| Life::found(START, None, observed, known, clock.now());
    let life = found(up("a"), Some(&known));
    assert_eq!((life.shown().state, life.shown().restarts, life.shown().since), (Ready, 2, 7));
    assert_eq!(life.to_remember().as_ref(), Some(&known));
    assert_eq!(life.step(clock.instant()), Step::Wait(None));
    let started_again = found(up("b"), Some(&known));
    assert_eq!((started_again.shown().state, started_again.shown().since), (Starting, clock.now().millis));
    assert_eq!(found(up("a"), None).step(clock.instant()), Step::Probe);
}

#[test]
fn what_was_found_down_is_started_only_if_it_is_named() {
    let clock = Clock::new();
    let mut life = Life::found(START, None, down(137), None, clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (BackOff, Step::Wait(None)));
    life.set_goal(Goal::Unnamed, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Wait(None), "its replacement may run elsewhere");
    life.set_goal(Goal::Run { can_create: false }, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Start, "the container has its environment");
}

#[test]
fn without_its_environment_nothing_is_created() {
    let clock = Clock::new();
    let mut life = Life::ordered(START, None, clock.now());
    life.set_goal(Goal::Run { can_create: false }, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Wait(None));
    assert!(life.shown().reason.contains("waits for a server"));
    life.set_goal(Goal::Run { can_create: true }, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Pull);
}

#[test]
fn an_engine_that_hangs_changes_no_state() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, Some(HealthCheck::new("/")));
    life.nudge();
    assert_eq!(life.step(clock.instant()), Step::Look);
    life.engine_failed("it hangs", clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (Ready, ""));
    let Step::Wait(Some(until)) = life.step(clock.instant()) else { panic!("it must wait") };
    assert_eq!(until, clock.instant() + Duration::from_millis(250), "it asks again soon");
    life.call_at = clock.instant() + Duration::from_secs(100);
    clock.pass(5);
    assert_eq!(life.step(clock.instant()), Step::Probe, "probes go on");
    life.probed(Ok(()), clock.now());
    clock.pass(95);
    assert_eq!(life.step(clock.instant()), Step::Look);
    life.observe(up("a"), clock.now());
    assert_eq!(life.shown().state, Ready);
}

#[test]
fn failed_preparations_wait_longer_and_longer() {
    let mut clock = Clock::new();
    let mut life = ordered(&clock, None);
    for wait in [1, 2, 4] {
        life.not_prepared("pull image: not found", clock.now());
        assert_eq!((life.shown().state, life.shown().reason.as_str()), (BackOff, "pull image: not found"));
        assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_secs(wait))));
        clock.pass(wait);
        assert_eq!(life.step(clock.instant()), Step::Pull);
    }
}
