//! Who is killed for memory.
//!
//! Engines tell of it by an event and by a flag, but not on every machine, and the flag stays when it was but one process
//! of many. The kernel counts it: for the whole machine, and for each container.

use crate::cgroup::{self, Group};
use crate::instance::News;
use crate::node::Message;
use crate::shared::Shared;
use dinp_common::api::agent::InstanceReport;
use dinp_common::model::InstanceId;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Time from one look at the machine's counter to the next.
const LOOK: Duration = Duration::from_secs(1);

/// An end and a kill that are not further apart belong together.
const NEAR: Duration = Duration::from_secs(2);

/// The machine's counter, and when it was last seen to rise.
#[derive(Debug, Default)]
pub struct Kills(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    count: Option<u64>,
    risen: Option<Instant>,
}

impl Kills {
    /// Whether a process of this machine has been killed for memory just now.
    pub fn are_recent(&self) -> bool {
        self.look(counted("/proc/vmstat"));
        self.is_near()
    }

    fn is_near(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.risen.is_some_and(|risen| risen.elapsed() < NEAR)
    }

    /// Takes in what the counter says.
    fn look(&self, count: Option<u64>) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.count.is_some() && count > seen.count {
            seen.risen = Some(Instant::now());
        }
        seen.count = count.or(seen.count);
    }
}

/// The counter `oom_kill` of one of the kernel's files.
fn counted(path: impl AsRef<Path>) -> Option<u64> {
    parse(&std::fs::read_to_string(path).ok()?)
}

fn parse(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The file that counts for a control group.
fn counter_file(group: &Group) -> PathBuf {
    group.dir.join(if group.is_unified { "memory.events" } else { "memory.oom_control" })
}

/// Watches for ever. Containers are looked at only when the machine's counter has risen.
pub async fn watch(shared: Arc<Shared>, node: mpsc::Sender<Message>) {
    let (mut known, mut last) = (HashMap::new(), None);
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let count = counted("/proc/vmstat");
        shared.kills.look(count);
        if last.is_some() && count > last {
            look_at_containers(&shared, &node, &mut known).await;
        }
        last = count.or(last);
    }
}

async fn look_at_containers(
    shared: &Shared,
    node: &mpsc::Sender<Message>,
    known: &mut HashMap<InstanceId, (i64, u64)>,
) {
    let (batch, _) = shared.board.look();
    let running: Vec<InstanceReport> = batch.instances.into_iter().filter(|report| report.state.runs()).collect();
    known.retain(|instance, _| running.iter().any(|report| report.instance == *instance));
    for report in running {
        let Some((pid, count)) = kills_in(shared, &report.instance).await else { continue };
        let before = known.insert(report.instance.clone(), (pid, count));
        // What was started again is counted from 0.
        let before = before.filter(|(before, _)| *before == pid).map_or(0, |(_, count)| count);
        if count > before {
            // The node's task ends only with the agent.
            node.send(Message::Touched(report.instance, Some(News::OutOfMemory))).await.ok();
        }
    }
}

/// The first process of an instance's container, and the container's counter.
async fn kills_in(shared: &Shared, instance: &InstanceId) -> Option<(i64, u64)> {
    let (pid, group) = cgroup::of_instance(shared, instance, "memory").await?;
    counted(counter_file(&group)).map(|count| (pid, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_control_groups_have_a_counter() {
        let file = |cgroups| counter_file(&Group::of(cgroups, "memory").unwrap()).display().to_string();
        assert_eq!(file("0::/dinp.slice/a.scope\n"), "/sys/fs/cgroup/dinp.slice/a.scope/memory.events");
        assert_eq!(file("5:pids:/x\n4:memory:/docker/a\n0::/y\n"), "/sys/fs/cgroup/memory/docker/a/memory.oom_control");
        assert_eq!(parse("low 0\noom 3\noom_kill 2\noom_group_kill 1\n"), Some(2));
        assert_eq!(parse("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
    }

    #[test]
    fn a_kill_is_recent_only_if_the_counter_has_risen() {
        let kills = Kills::default();
        for count in [Some(7), None, Some(7)] {
            kills.look(count);
            assert!(!kills.is_near(), "what was before the agent is no news");
        }
        kills.look(Some(8));
        assert!(kills.is_near());
    }

    #[test]
    fn the_kernel_counts() {
        assert!(counted("/proc/vmstat").is_some());
    }
}
