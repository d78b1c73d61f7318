//! What nodes, routers and monitors claim, brought within bounds: every number, list and text of theirs comes through here
//! before anything is decided by it.
//!
//! Numbers become the nearest that can be, and texts are cut. A list that is longer than it can be is refused with its
//! whole document: what was cut from it would look as if it were gone. Documents are put together anew field by field, so
//! that a field that is new does not compile before its bound is chosen.

use dinp_common::api::agent::{
    Capacity, ENDED_INSTANCES, EndedInstance, InstanceReport, LimitReached, NodeFault, OUTPUT_LINE_CHARS, OUTPUT_LINES,
    Report, Seen,
};
use dinp_common::api::hm::{HmReport, Unfit};
use dinp_common::api::router::{ReleaseCounters, RouterReport};
use dinp_common::api::{ProvedRevision, UnixMillis};
use dinp_common::model::Version;
use dinp_common::problem::Problem;
use dinp_common::store::lease::EPOCH_MAX;
use std::ops::Deref;

/// Most memory that a machine has, in MiB: 16 TiB.
const MEMORY_MB: u32 = 16 << 20;
/// Most CPU that a machine has, in thousandths of a core: 1,024 cores.
const CPU_MILLIS: u32 = 1_024_000;
/// Most that an instance is said to have done again and again.
const TIMES: u32 = 1_000_000;
/// Most that a counter holds: what every program reads from JSON.
const COUNT: u64 = 1 << 53;
/// Most entries of a node's list: it has no more ports.
const OF_A_NODE: usize = 1 << 16;
/// Most entries of a list that is about the whole cluster.
const OF_A_CLUSTER: usize = 100_000;
/// Most faults of a node.
const FAULTS: usize = 16;
/// Characters of a name, a version or an id.
const WORD: usize = 64;
/// Characters of a ticket or a proof.
const TICKET: usize = 256;
/// Characters of a sentence for people.
const SENTENCE: usize = 1000;
/// Characters of a URL: as many as its column holds.
const URL: usize = 255;

/// A claim within bounds.
#[derive(Debug)]
pub struct Bounded<T>(T);

impl<T: Claim> Bounded<T> {
    /// Brings a claim that is made now within bounds, or says what it has too much of.
    pub fn of(claim: T, now: UnixMillis) -> Result<Self, Excess> {
        claim.bound(now).map(Self)
    }

    /// The claim.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl Bounded<Report> {
    /// Takes out what the node keeps of ended instances.
    pub fn take_ended(&mut self) -> Option<Vec<EndedInstance>> {
        self.0.ended.take()
    }
}

impl<T> Deref for Bounded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// A claim that is refused whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {list} of a report are {count}: at most {most}")]
pub struct Excess {
    list: &'static str,
    count: usize,
    most: usize,
}

impl From<Excess> for Problem {
    fn from(excess: Excess) -> Self {
        Self::unprocessable("claim-too-large", excess.to_string())
    }
}

/// A document with what its sender says of itself.
pub trait Claim: Sized {
    /// The same within bounds.
    fn bound(self, now: UnixMillis) -> Result<Self, Excess>;
}

impl Claim for Report {
    fn bound(self, now: UnixMillis) -> Result<Self, Excess> {
        Ok(Self {
            cluster: cut(self.cluster, WORD),
            agent_version: cut(self.agent_version, WORD),
            run_id: cut(self.run_id, WORD),
            seq: self.seq,
            full: self.full,
            seen: bound_seen(self.seen),
            capacity: Capacity {
                memory_mb: self.capacity.memory_mb.min(MEMORY_MB),
                cpu_millis: self.capacity.cpu_millis.min(CPU_MILLIS),
            },
            docker_error: self.docker_error.map(|error| cut(error, SENTENCE)),
            faults: self.faults.into_iter().take(FAULTS).map(bound_fault).collect(),
            instances: list("instances", self.instances, OF_A_NODE, |one| bound_instance(one, now))?,
            removed: list("removed instances", self.removed, OF_A_NODE, |id| id)?,
            held_ports: list("held ports", self.held_ports, OF_A_NODE, |held| held)?,
            // The newest come first, and nothing is decided by those that are missing.
            ended: self
                .ended
                .map(|all| all.into_iter().take(ENDED_INSTANCES).map(|one| bound_ended(one, now)).collect()),
        })
    }
}

impl Claim for RouterReport {
    fn bound(self, _now: UnixMillis) -> Result<Self, Excess> {
        within("characters of the status URL", self.status_url.chars().count(), URL)?;
        within("instances with requests in flight", self.in_flight.len(), OF_A_CLUSTER)?;
        Ok(Self {
            router: cut(self.router, WORD),
            version: cut(self.version, WORD),
            status_url: self.status_url,
            applied: Version::new(self.applied.epoch.min(EPOCH_MAX), self.applied.seq),
            in_flight: self.in_flight.into_iter().map(|(instance, count)| (instance, count.min(COUNT))).collect(),
            counters: list("counters", self.counters, OF_A_CLUSTER, bound_counters)?,
        })
    }
}

impl Claim for HmReport {
    fn bound(self, now: UnixMillis) -> Result<Self, Excess> {
        Ok(Self {
            monitor: cut(self.monitor, WORD),
            targets: cut(self.targets, WORD),
            unfit: list("unfit instances", self.unfit, OF_A_CLUSTER, |one| bound_unfit(one, now))?,
        })
    }
}

fn bound_seen(seen: Seen) -> Seen {
    Seen {
        epoch: seen.epoch.min(EPOCH_MAX),
        holder: cut(seen.holder, WORD),
        generation: seen.generation,
        proof: cut(seen.proof, TICKET),
        highest_revision: ProvedRevision {
            number: seen.highest_revision.number,
            proof: cut(seen.highest_revision.proof, TICKET),
        },
    }
}

fn bound_fault(fault: NodeFault) -> NodeFault {
    NodeFault { kind: fault.kind, detail: cut(fault.detail, SENTENCE) }
}

fn bound_instance(one: InstanceReport, now: UnixMillis) -> InstanceReport {
    InstanceReport {
        instance: one.instance,
        app: one.app,
        release: one.release,
        epoch: one.epoch.min(EPOCH_MAX),
        state: one.state,
        port: one.port,
        memory_mb: one.memory_mb.min(MEMORY_MB),
        cpu_millis: one.cpu_millis.min(CPU_MILLIS),
        since: past(one.since, now),
        restarts: one.restarts.min(TIMES),
        exit_code: one.exit_code.map(exit_code),
        reason: cut(one.reason, SENTENCE),
        claimed: one.claimed,
        ticket: cut(one.ticket, TICKET),
        proved: one.proved,
        failures: one.failures.min(TIMES),
        node_fault: one.node_fault,
        output: one.output.into_iter().take(OUTPUT_LINES).map(|line| cut(line, OUTPUT_LINE_CHARS)).collect(),
        last_failure: cut(one.last_failure, SENTENCE),
        failed_start: one.failed_start,
        out_of_memory: one.out_of_memory,
        oom_kills: one.oom_kills.min(TIMES),
        over_disk_mb: one.over_disk_mb,
        limits: one.limits.into_iter().map(|(limit, reached)| (limit, bound_limit(reached))).collect(),
    }
}

fn bound_limit(one: LimitReached) -> LimitReached {
    LimitReached { times: one.times.min(TIMES), detail: cut(one.detail, SENTENCE) }
}

fn bound_ended(one: EndedInstance, now: UnixMillis) -> EndedInstance {
    EndedInstance {
        instance: one.instance,
        app: one.app,
        release: one.release,
        at: past(one.at, now),
        exit_code: one.exit_code.map(exit_code),
        ticket: cut(one.ticket, TICKET),
    }
}

fn bound_counters(one: ReleaseCounters) -> ReleaseCounters {
    ReleaseCounters {
        app: cut(one.app, WORD),
        release: one.release,
        answers: one.answers.map(|count| count.min(COUNT)),
        failed: one.failed.min(COUNT),
        micros: one.micros.min(COUNT),
    }
}

fn bound_unfit(one: Unfit, now: UnixMillis) -> Unfit {
    Unfit { instance: one.instance, since: past(one.since, now), detail: cut(one.detail, SENTENCE) }
}

fn list<T>(what: &'static str, all: Vec<T>, most: usize, bound: impl Fn(T) -> T) -> Result<Vec<T>, Excess> {
    within(what, all.len(), most)?;
    Ok(all.into_iter().map(bound).collect())
}

fn within(list: &'static str, count: usize, most: usize) -> Result<(), Excess> {
    if count <= most { Ok(()) } else { Err(Excess { list, count, most }) }
}

/// The first characters of a text.
fn cut(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
    text
}

/// What has happened has happened since 1970, and before now.
fn past(at: UnixMillis, now: UnixMillis) -> UnixMillis {
    at.clamp(0, now.max(0))
}

fn exit_code(code: i64) -> i64 {
    code.clamp(i32::MIN.into(), i32::MAX.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::api::agent::{HeldPort, NodeFaultKind};
    use dinp_common::model::InstanceId;
    use dinp_common::testing::proved_report;

    const NOW: UnixMillis = 1_700_000_000_000;

    fn report() -> Report {
        Report {
            cluster: "c".into(),
            agent_version: "0.1.0".into(),
            run_id: "run".into(),
            seq: 1,
            full: true,
            seen: Seen::default(),
            capacity: Capacity { memory_mb: 4096, cpu_millis: 4000 },
            docker_error: None,
            faults: Vec::new(),
            instances: vec![instance()],
            removed: vec![InstanceId::from_bits(2)],
            held_ports: vec![HeldPort { instance: InstanceId::from_bits(2), port: 20_001 }],
            ended: Some(vec![ended()]),
        }
    }

    fn instance() -> InstanceReport {
        proved_report(InstanceId::from_bits(1), "web".parse().unwrap(), 7)
    }

    fn ended() -> EndedInstance {
        let instance = InstanceId::from_bits(3);
        let app = "web".parse().unwrap();
        EndedInstance { instance, app, release: 7, at: 10, exit_code: Some(1), ticket: "k1.abc".into() }
    }

    fn router() -> RouterReport {
        RouterReport {
            router: "r1".into(),
            version: "0.1.0".into(),
            status_url: "http://10.0.0.20:1982".into(),
            applied: Version::new(3, 9),
            in_flight: [(InstanceId::from_bits(1), 2)].into(),
            counters: vec![ReleaseCounters {
                app: "web".into(),
                release: 7,
                answers: [0, 5, 0, 1, 0],
                failed: 1,
                micros: 0,
            }],
        }
    }

    fn monitor() -> HmReport {
        let unfit = Unfit { instance: InstanceId::from_bits(1), since: 10, detail: "refused".into() };
        HmReport { monitor: "hm1".into(), targets: "v1".into(), unfit: vec![unfit] }
    }

    /// A report after some change, as it comes through.
    fn through(change: impl FnOnce(&mut Report)) -> Report {
        let mut report = report();
        change(&mut report);
        Bounded::of(report, NOW).unwrap().into_inner()
    }

    fn instance_through(change: impl FnOnce(&mut InstanceReport)) -> InstanceReport {
        through(|report| change(&mut report.instances[0])).instances.remove(0)
    }

    fn excess<T: Claim>(claim: T) -> String {
        claim.bound(NOW).err().map(|excess| excess.to_string()).expect("it is refused")
    }

    #[test]
    fn what_can_be_comes_through_as_it_is() {
        assert_eq!(*Bounded::of(report(), NOW).unwrap(), report());
        assert_eq!(*Bounded::of(router(), NOW).unwrap(), router());
        assert_eq!(*Bounded::of(monitor(), NOW).unwrap(), monitor());
    }

    #[test]
    fn a_node_has_no_more_than_a_machine_can_have() {
        let all = Capacity { memory_mb: u32::MAX, cpu_millis: u32::MAX };
        let seen = through(|report| report.capacity = all).capacity;
        assert_eq!((seen.memory_mb, seen.cpu_millis), (16 << 20, 1_024_000));
        let one = instance_through(|one| (one.memory_mb, one.cpu_millis) = (u32::MAX, u32::MAX));
        assert_eq!((one.memory_mb, one.cpu_millis), (16 << 20, 1_024_000));
    }

    #[test]
    fn an_instance_counts_so_far_and_no_further() {
        let one = instance_through(|one| (one.restarts, one.failures, one.oom_kills) = (u32::MAX, u32::MAX, u32::MAX));
        assert_eq!((one.restarts, one.failures, one.oom_kills), (TIMES, TIMES, TIMES));
        assert_eq!(instance_through(|one| one.exit_code = Some(i64::MIN)).exit_code, Some(i32::MIN.into()));
        assert_eq!(instance_through(|one| one.exit_code = Some(i64::MAX)).exit_code, Some(i32::MAX.into()));
    }

    #[test]
    fn epochs_end_where_those_of_the_lease_do() {
        assert_eq!(through(|report| report.seen.epoch = u64::MAX).seen.epoch, EPOCH_MAX);
        assert_eq!(instance_through(|one| one.epoch = u64::MAX).epoch, EPOCH_MAX);
        let applied = Version::new(u64::MAX, 9);
        let seen = Bounded::of(RouterReport { applied, ..router() }, NOW).unwrap();
        assert_eq!(seen.applied, Version::new(EPOCH_MAX, 9));
    }

    #[test]
    fn nothing_happens_in_the_future_or_before_all_time() {
        for (said, is) in [(i64::MAX, NOW), (NOW + 1, NOW), (NOW, NOW), (0, 0), (-1, 0), (i64::MIN, 0)] {
            assert_eq!(instance_through(|one| one.since = said).since, is, "{said}");
            let ended = through(|report| report.ended = Some(vec![EndedInstance { at: said, ..ended() }])).ended;
            assert_eq!(ended.unwrap()[0].at, is, "{said}");
            let mut report = monitor();
            report.unfit[0].since = said;
            assert_eq!(Bounded::of(report, NOW).unwrap().unfit[0].since, is, "{said}");
        }
    }

    #[test]
    fn texts_are_cut_and_stay_texts() {
        let long = "ä".repeat(5000);
        let chars = |text: &str| text.chars().count();
        let report = through(|report| {
            report.cluster.clone_from(&long);
            report.agent_version.clone_from(&long);
            report.run_id.clone_from(&long);
            report.seen.holder.clone_from(&long);
            report.seen.proof.clone_from(&long);
            report.docker_error = Some(long.clone());
            report.faults = vec![NodeFault { kind: NodeFaultKind::Disk, detail: long.clone() }];
            report.ended = Some(vec![EndedInstance { ticket: long.clone(), ..ended() }]);
        });
        for word in [&report.cluster, &report.agent_version, &report.run_id, &report.seen.holder] {
            assert_eq!(chars(word), WORD);
        }
        assert_eq!((chars(&report.seen.proof), chars(&report.docker_error.unwrap())), (TICKET, SENTENCE));
        assert_eq!((chars(&report.faults[0].detail), chars(&report.ended.unwrap()[0].ticket)), (SENTENCE, TICKET));
        let one = instance_through(|one| {
            one.reason.clone_from(&long);
            one.last_failure.clone_from(&long);
            one.ticket.clone_from(&long);
            one.output = vec![long.clone(); 100];
        });
        assert_eq!((chars(&one.reason), chars(&one.last_failure), chars(&one.ticket)), (SENTENCE, SENTENCE, TICKET));
        assert_eq!((one.output.len(), chars(&one.output[0])), (OUTPUT_LINES, OUTPUT_LINE_CHARS));
        let counters = vec![ReleaseCounters {
            app: long.clone(),
            release: 1,
            answers: [u64::MAX; 5],
            failed: u64::MAX,
            micros: u64::MAX,
        }];
        let of_router = RouterReport { router: long.clone(), version: long.clone(), counters, ..router() };
        let of_router = Bounded::of(of_router, NOW).unwrap();
        assert_eq!((chars(&of_router.router), chars(&of_router.version)), (WORD, WORD));
        assert_eq!(chars(&of_router.counters[0].app), WORD);
        let mut of_monitor = HmReport { monitor: long.clone(), targets: long.clone(), ..monitor() };
        of_monitor.unfit[0].detail.clone_from(&long);
        let of_monitor = Bounded::of(of_monitor, NOW).unwrap();
        assert_eq!((chars(&of_monitor.monitor), chars(&of_monitor.targets)), (WORD, WORD));
        assert_eq!(chars(&of_monitor.unfit[0].detail), SENTENCE);
    }

    #[test]
    fn counters_of_routers_are_numbers_for_every_program() {
        let counters = vec![ReleaseCounters {
            app: "web".into(),
            release: 1,
            answers: [u64::MAX; 5],
            failed: u64::MAX,
            micros: u64::MAX,
        }];
        let in_flight = [(InstanceId::from_bits(1), u64::MAX)].into();
        let seen = Bounded::of(RouterReport { counters, in_flight, ..router() }, NOW).unwrap();
        assert_eq!((seen.counters[0].answers, seen.counters[0].failed), ([COUNT; 5], COUNT));
        assert_eq!(seen.in_flight[&InstanceId::from_bits(1)], COUNT);
    }

    #[test]
    fn what_decides_nothing_by_its_length_is_cut() {
        let fault = NodeFault { kind: NodeFaultKind::Disk, detail: "full".into() };
        assert_eq!(through(|report| report.faults = vec![fault; 1000]).faults.len(), FAULTS);
        let many = Some(vec![ended(); 10_000]);
        assert_eq!(through(|report| report.ended = many).ended.map(|all| all.len()), Some(ENDED_INSTANCES));
    }

    #[test]
    fn a_list_that_is_too_long_is_refused_with_its_document() {
        let held = HeldPort { instance: InstanceId::from_bits(2), port: 20_001 };
        let said = excess(Report { instances: vec![instance(); OF_A_NODE + 1], ..report() });
        assert_eq!(said, "the instances of a report are 65537: at most 65536");
        excess(Report { removed: vec![InstanceId::from_bits(2); OF_A_NODE + 1], ..report() });
        excess(Report { held_ports: vec![held; OF_A_NODE + 1], ..report() });
        assert!(report().bound(NOW).is_ok());
        let of_instances = |count: usize| (0..count as u64).map(|bits| (InstanceId::from_bits(bits), 1)).collect();
        excess(RouterReport { in_flight: of_instances(OF_A_CLUSTER + 1), ..router() });
        excess(RouterReport { counters: vec![router().counters.remove(0); OF_A_CLUSTER + 1], ..router() });
        excess(RouterReport { status_url: format!("http://{}", "a".repeat(URL)), ..router() });
        excess(HmReport { unfit: vec![monitor().unfit.remove(0); OF_A_CLUSTER + 1], ..monitor() });
    }
}
