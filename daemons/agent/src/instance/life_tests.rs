use super::*;
use crate::probe::FailureKind;
use InstanceState::*;
use dinp_common::model::HealthCheck;

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

fn rules(check: Option<HealthCheck>) -> Rules {
    Rules { start_timeout: START, min_healthy: Duration::from_secs(5), check }
}

fn silent() -> Result<(), Failure> {
    Err(Failure { reason: "nothing listens on port 8080".into(), kind: FailureKind::NoListener })
}

fn wrong() -> Result<(), Failure> {
    Err(Failure { reason: "GET /health answered 500".into(), kind: FailureKind::Answer })
}

/// It ends, and this is found out.
fn dies(life: &mut Life, code: i64, reason: &str, clock: &Clock) {
    life.observe(down(code), clock.now());
    examined(life, reason, clock);
}

fn examined(life: &mut Life, reason: &str, clock: &Clock) {
    assert_eq!(life.step(clock.instant()), Step::Examine);
    let out_of_memory = life.unexplained().is_some_and(|exit| exit.out_of_memory);
    life.examined(Findings { reason: reason.into(), out_of_memory, output: vec!["Traceback".into()] }, clock.now());
}

fn ordered(clock: &Clock, health: Option<HealthCheck>) -> Life {
    let mut life = Life::ordered(rules(health), clock.now());
    life.set_goal(Goal::Run { can_create: true }, "", clock.now());
    life
}

/// A life that has come to Ready.
fn ready(clock: &Clock, health: Option<HealthCheck>) -> Life {
    let mut life = ordered(clock, health);
    life.pulled();
    life.created();
    life.starting(clock.now());
    life.observe(up("a"), clock.now());
    life.probed(Ok(()), clock.now());
    assert_eq!(life.shown().state, Ready);
    life
}

/// It stays well for as long as a proof takes.
fn proves(life: &mut Life, clock: &mut Clock) {
    clock.pass(5);
    assert_eq!(life.step(clock.instant()), Step::Reckon);
    life.reckon(256, clock.now());
    assert!(life.is_proved());
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
    assert!(!life.starting(clock.now()));
    life.observe(up("a"), clock.now());
    assert_eq!((life.shown().state, life.step(clock.instant())), (Starting, Step::Probe));
    life.probed(silent(), clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (Starting, "nothing listens on port 8080"));
    assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_millis(50))));
    clock.pass(1);
    assert_eq!(life.step(clock.instant()), Step::Probe);
    life.probed(Ok(()), clock.now());
    assert_eq!((life.shown().state, life.shown().since, life.shown().restarts), (Ready, clock.now().millis, 0));
    let remembered = life.to_remember().unwrap();
    assert_eq!((&*remembered.started_at, remembered.since, remembered.proved), ("a", life.shown().since, false));
    clock.pass(4);
    assert_eq!((life.step(clock.instant()), life.is_proved()), (Step::Probe, false));
    life.probed(Ok(()), clock.now());
    clock.pass(1);
    assert_eq!(life.step(clock.instant()), Step::Reckon);
    life.reckon(256, clock.now());
    assert!(life.is_proved() && life.to_remember().unwrap().proved);
    assert_eq!(life.step(clock.instant()), Step::Wait(None), "without a health path it is not asked again");
}

#[test]
fn crashes_are_restarted_at_once_and_then_with_patience() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, None);
    for restart in 1..=3 {
        life.observe(down(3), clock.now());
        assert_eq!((life.shown().state, life.shown().exit_code), (BackOff, Some(3)));
        examined(&mut life, "exited with code 3", &clock);
        assert_eq!(life.step(clock.instant()), Step::Start);
        assert!(life.starting(clock.now()));
        life.observe(up(&restart.to_string()), clock.now());
        assert_eq!((life.shown().state, life.shown().restarts), (Starting, restart));
    }
    dies(&mut life, 3, "exited with code 3", &clock);
    assert_eq!(life.step(clock.instant()), Step::Wait(Some(clock.instant() + Duration::from_secs(10))));
    clock.pass(10);
    assert_eq!(life.step(clock.instant()), Step::Start);
    life.observe(up("z"), clock.now());
    life.probed(Ok(()), clock.now());
    clock.pass(60);
    dies(&mut life, 3, "exited with code 3", &clock);
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
        life.starting(clock.now());
        dies(&mut life, 127, "`./control` was not found", &clock);
        assert_eq!((life.shown().state, life.shown().reason.as_str()), (BackOff, "`./control` was not found"));
    }
    life.starting(clock.now());
    life.not_started("exec format error", clock.now());
    assert_eq!((life.shown().restarts, life.shown().failures), (3, 4));
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
    let told = Exit { code: 137, out_of_memory: true, ..Exit::default() };
    life.observe(Observed::Down(Some(told.clone())), clock.now());
    assert_eq!(life.unexplained(), Some(&told));
    assert_eq!((life.shown().failures, life.shown().reason.as_str()), (0, ""), "told once, when it is known why");
    examined(&mut life, "out of memory (limit 256 MiB)", &clock);
    assert_eq!(life.step(clock.instant()), Step::Start);
    let shown = life.shown();
    assert_eq!(
        (shown.reason.as_str(), shown.last_failure.as_str()),
        (&*shown.last_failure, "out of memory (limit 256 MiB)")
    );
    assert_eq!((shown.failures, life.crashes.failed()), (1, 1), "it counts once");
    assert!(shown.out_of_memory);
    life.observe(up("1970-01-01T00:00:11.5Z"), clock.now());
    life.observe(down(3), clock.now());
    examined(&mut life, "exited with code 3", &clock);
    assert!(!life.shown().out_of_memory, "the next failure has its own reason");
}

#[test]
fn a_failure_is_told_until_the_instance_has_proved_itself_and_counted_for_ever() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, None);
    dies(&mut life, 2, "exited with code 2", &clock);
    life.starting(clock.now());
    life.observe(up("b"), clock.now());
    life.probed(Ok(()), clock.now());
    let shown = life.shown();
    assert_eq!((shown.state, shown.failures, shown.last_failure.as_str()), (Ready, 1, "exited with code 2"));
    assert_eq!(shown.output, ["Traceback"]);
    proves(&mut life, &mut clock);
    let shown = life.shown();
    assert_eq!((shown.failures, shown.last_failure.as_str(), shown.output.len()), (1, "", 0));
    assert_eq!(life.to_remember().unwrap().failures, 1);
}

#[test]
fn what_the_node_does_to_it_is_no_failure_of_its_own() {
    let clock = Clock::new();
    let mut life = ordered(&clock, None);
    let blamed = |life: &Life| (life.shown().state, life.shown().failures, life.shown().node_fault);
    life.not_prepared("pull image: no route to host", clock.now());
    assert_eq!(blamed(&life), (BackOff, 0, true));
    life.pulled();
    life.created();
    life.not_started("driver failed programming external connectivity", clock.now());
    assert_eq!(blamed(&life), (BackOff, 0, true));
    life.starting(clock.now());
    life.observe(up("a"), clock.now());
    assert_eq!(blamed(&life), (Starting, 0, false));
    life.observe(Observed::Down(Some(Exit { code: 143, is_unwatched: true, ..Exit::default() })), clock.now());
    examined(&mut life, "ended with code 143 while nobody watched it", &clock);
    assert_eq!(blamed(&life), (BackOff, 0, true), "the engine was restarted");
    life.observe(Observed::Absent, clock.now());
    assert_eq!(blamed(&life), (BackOff, 0, true), "somebody removed it");
}

#[test]
fn a_worker_that_is_killed_for_memory_is_told_though_the_instance_runs_on() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, None);
    life.out_of_memory(clock.now());
    assert_eq!(life.shown().oom_kills, 0, "perhaps all of it ends");
    clock.pass(1);
    assert_eq!(life.step(clock.instant()), Step::Reckon);
    life.reckon(256, clock.now());
    let shown = life.shown();
    assert_eq!((shown.state, shown.oom_kills, shown.restarts, shown.failures), (Ready, 1, 0, 0));
    assert_eq!(shown.reason, "a process in it was killed: out of memory (limit 256 MiB)");
}

#[test]
fn an_end_right_after_a_kill_for_memory_is_one_event_with_that_reason() {
    let clock = Clock::new();
    let mut life = ready(&clock, None);
    life.out_of_memory(clock.now());
    life.observe(down(137), clock.now());
    assert!(life.unexplained().unwrap().out_of_memory);
    assert_eq!(life.shown().oom_kills, 0);
}

#[test]
fn who_is_not_ready_in_time_is_stopped_and_started_again() {
    let mut clock = Clock::new();
    let mut life = ordered(&clock, None);
    life.pulled();
    life.created();
    life.observe(up("a"), clock.now());
    life.probed(silent(), clock.now());
    clock.pass(30);
    assert_eq!(life.step(clock.instant()), Step::Abort);
    life.aborting(None);
    dies(&mut life, 143, "exited with code 143", &clock);
    let shown = life.shown();
    let reason = "not ready within 30 s: nothing listens on port 8080";
    assert_eq!((shown.state, shown.reason.as_str(), shown.failed_start), (BackOff, reason, true));
    assert_eq!(life.step(clock.instant()), Step::Start);
    life.observe(up("b"), clock.now());
    clock.pass(30);
    life.aborting(Some("nothing listens on port 8080: it listens on 5000".into()));
    dies(&mut life, 143, "exited with code 143", &clock);
    assert_eq!(life.shown().reason, "not ready within 30 s: nothing listens on port 8080: it listens on 5000");
}

#[test]
fn wrong_answers_of_the_health_path_end_the_start_in_the_words_of_the_last() {
    let mut clock = Clock::new();
    let mut life = ordered(&clock, Some(HealthCheck::new("/health")));
    life.pulled();
    life.created();
    life.observe(up("a"), clock.now());
    for _ in 0..2 {
        life.probed(wrong(), clock.now());
        assert!(matches!(life.step(clock.instant()), Step::Wait(_)));
        clock.pass(5);
    }
    life.probed(wrong(), clock.now());
    assert_eq!(life.step(clock.instant()), Step::Abort, "10 s and not the whole start timeout");
    life.aborting(None);
    dies(&mut life, 0, "exited with code 0", &clock);
    let shown = life.shown();
    assert_eq!((shown.reason.as_str(), shown.failures, shown.failed_start), ("GET /health answered 500", 1, true));
}

#[test]
fn the_threshold_decides_in_both_directions() {
    let mut clock = Clock::new();
    let mut life = ready(&clock, Some(HealthCheck::new("/health")));
    assert!(matches!(life.step(clock.instant()), Step::Wait(Some(_))));
    proves(&mut life, &mut clock);
    clock.pass(5);
    assert_eq!(life.step(clock.instant()), Step::Probe);
    let bad = wrong;
    life.probed(bad(), clock.now());
    life.probed(bad(), clock.now());
    life.probed(Ok(()), clock.now());
    life.probed(bad(), clock.now());
    life.probed(bad(), clock.now());
    assert_eq!(life.shown().state, Ready, "only failures in a row count");
    life.probed(bad(), clock.now());
    assert_eq!((life.shown().state, life.shown().reason.as_str()), (Unfit, "GET /health answered 500"));
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
    assert!(matches!((life.shown().state, life.step(clock.instant())), (Ready, Step::Wait(_))));
    dies(&mut life, 1, "exited with code 1", &clock);
    assert_eq!(life.step(clock.instant()), Step::Start, "what crashes is restarted, named or not");
    life.observe(Observed::Absent, clock.now());
    assert_eq!(life.step(clock.instant()), Step::Gone, "but nobody says how to make it anew");
}

#[test]
fn what_was_found_running_and_ready_stays_ready() {
    let clock = Clock::new();
    let known = Remembered { started_at: "a".into(), restarts: 2, since: 7, proved: true, failures: 3 };
    let found = |observed, known| Life::found(rules(None), observed, known, clock.now());
    let life = found(up("a"), Some(&known));
    assert_eq!((life.shown().state, life.shown().restarts, life.shown().since), (Ready, 2, 7));
    assert_eq!(life.to_remember().as_ref(), Some(&known));
    assert_eq!(life.step(clock.instant()), Step::Wait(None));
    let started_again = found(up("b"), Some(&known));
    assert_eq!((started_again.shown().state, started_again.shown().since), (Starting, clock.now().millis));
    assert!(!started_again.is_proved());
    assert_eq!((started_again.shown().failures, started_again.to_remember().unwrap().failures), (3, 3));
    assert_eq!(found(up("a"), None).step(clock.instant()), Step::Probe);
    let doubted = Remembered { proved: false, ..known.clone() };
    assert!(!found(up("a"), Some(&doubted)).is_proved(), "its proof begins anew");
    let before = r#"{"started_at": "a", "restarts": 0}"#;
    assert!(
        serde_json::from_str::<Remembered>(before).unwrap().proved,
        "what an older agent found ready is not doubted"
    );
}

#[test]
fn what_was_found_down_is_started_only_if_it_is_named() {
    let clock = Clock::new();
    let mut life = Life::found(rules(None), down(137), None, clock.now());
    examined(&mut life, "ended with code 137 while nobody watched it", &clock);
    assert_eq!((life.shown().state, life.shown().failures, life.step(clock.instant())), (BackOff, 0, Step::Wait(None)));
    life.set_goal(Goal::Unnamed, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Wait(None), "its replacement may run elsewhere");
    life.set_goal(Goal::Run { can_create: false }, "", clock.now());
    assert_eq!(life.step(clock.instant()), Step::Start, "the container has its environment");
}

#[test]
fn without_its_environment_nothing_is_created() {
    let clock = Clock::new();
    let mut life = Life::ordered(rules(None), clock.now());
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
    proves(&mut life, &mut clock);
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

#[test]
fn what_was_stopped_for_its_nodes_sake_begins_anew_and_keeps_the_reason() {
    let clock = Clock::new();
    let mut life = ready(&clock, None);
    life.evicted("stopped: it had written 3.1 GiB to its disk", clock.now());
    assert_eq!(
        (life.shown().state, life.shown().reason.as_str()),
        (BackOff, "stopped: it had written 3.1 GiB to its disk")
    );
    // The engine's event comes late.
    life.died(Died { at_nanos: i64::MAX, code: 137 }, clock.now());
    life.observe(Observed::Absent, clock.now());
    assert_eq!(life.shown().reason, "stopped: it had written 3.1 GiB to its disk");
    assert_eq!(life.step(clock.instant()), Step::Create, "what it had written went with its container");
}
