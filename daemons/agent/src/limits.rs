//! Limits that an instance runs into without an end: of processes, and of connections.
//!
//! What it wants beyond them is refused by the kernel, and its neighbours notice nothing. Its owner is told: once, and again
//! only after a while. Of output that is left out, [`crate::forward`] tells.

use crate::cgroup;
use crate::shared::Shared;
use dinp_common::api::agent::{InstanceReport, Limit};
use dinp_common::model::InstanceId;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time from one look to the next.
const LOOK: Duration = Duration::from_secs(2);

/// Time from one word on a limit to the next.
const QUIET: Duration = Duration::from_secs(60);

/// Where the kernel tells of an instance.
#[derive(Debug)]
struct Place {
    /// Times that it had been started again: the next start has other processes.
    restarts: u32,
    /// Its control group of processes.
    processes: PathBuf,
    /// Its sockets.
    sockets: PathBuf,
}

/// What an instance has been told of.
#[derive(Debug, Default)]
struct Watched {
    place: Option<Place>,
    forks: Told,
    connections: Told,
}

/// A counter of what was refused, up to where and when it has been told.
#[derive(Debug, Default)]
struct Told {
    count: u64,
    at: Option<Instant>,
}

impl Told {
    /// Whether there is something to tell: more than was told, and not too soon after that.
    fn is_news(&mut self, count: u64, now: Instant) -> bool {
        // What was started again is counted from 0.
        self.count = self.count.min(count);
        let is_due = self.at.is_none_or(|at| now.saturating_duration_since(at) >= QUIET);
        let is_news = count > self.count && is_due;
        if is_news {
            (self.count, self.at) = (count, Some(now));
        }
        is_news
    }
}

/// Watches for ever.
pub async fn watch(shared: Arc<Shared>) {
    let mut watched: HashMap<InstanceId, Watched> = HashMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (batch, _) = shared.board.look();
        let running: Vec<InstanceReport> = batch.instances.into_iter().filter(|report| report.state.runs()).collect();
        watched.retain(|instance, _| running.iter().any(|report| report.instance == *instance));
        for report in running {
            watched.entry(report.instance.clone()).or_default().look(&shared, &report).await;
        }
    }
}

impl Watched {
    async fn look(&mut self, shared: &Shared, report: &InstanceReport) {
        if self.place.as_ref().is_none_or(|place| place.restarts != report.restarts) {
            self.place = place(shared, report).await;
        }
        let Some(place) = &self.place else { return };
        let (Ok(refused), Ok(sockets)) =
            (std::fs::read_to_string(place.processes.join("pids.events")), std::fs::read_to_string(&place.sockets))
        else {
            // It has ended, or is another one by now.
            self.place = None;
            return;
        };
        let now = Instant::now();
        if self.forks.is_news(refused_forks(&refused), now) {
            let limit = std::fs::read_to_string(place.processes.join("pids.max")).unwrap_or_default();
            let detail = format!("reached its limit of {} processes and threads: more are refused", limit.trim());
            shared.board.reached(&report.instance, Limit::Processes, detail);
        }
        let limit = shared.config.container.connections_limit;
        let open = open_sockets(&sockets);
        // The kernel does not count for each instance what it refuses.
        if open < limit.into() {
            self.connections.count = 0;
        } else if self.connections.is_news(self.connections.count + 1, now) {
            let detail = format!("has {open} connections open, and may have {limit} that it has opened itself");
            shared.board.reached(&report.instance, Limit::Connections, detail);
        }
    }
}

/// By the first process of the instance's container.
async fn place(shared: &Shared, report: &InstanceReport) -> Option<Place> {
    let (pid, group) = cgroup::of_instance(shared, &report.instance, "pids").await?;
    let sockets = format!("/proc/{pid}/net/sockstat").into();
    Some(Place { restarts: report.restarts, processes: group.dir, sockets })
}

/// `max 12` of `pids.events`.
fn refused_forks(events: &str) -> u64 {
    events.lines().find_map(|line| line.strip_prefix("max ")?.trim().parse().ok()).unwrap_or(0)
}

/// `TCP: inuse 7 orphan 0 ...` and `UDP: inuse 2 ...` of `sockstat`.
fn open_sockets(text: &str) -> u64 {
    let in_use = |line: &str| {
        let rest = ["TCP: inuse ", "UDP: inuse "].iter().find_map(|protocol| line.strip_prefix(protocol))?;
        rest.split_whitespace().next()?.parse::<u64>().ok()
    };
    text.lines().filter_map(in_use).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_at_once_and_then_only_after_a_while_and_if_it_is_reached_again() {
        let begin = Instant::now();
        let mut told = Told::default();
        assert!(!told.is_news(0, begin));
        assert!(told.is_news(3, begin));
        assert!(!told.is_news(90, begin + QUIET / 2), "not each time");
        assert!(told.is_news(90, begin + QUIET));
        assert!(!told.is_news(90, begin + QUIET * 3), "nothing has happened since");
        assert!(!told.is_news(0, begin + QUIET * 4), "it was started again");
        assert!(told.is_news(1, begin + QUIET * 5));
    }

    #[test]
    fn the_kernel_s_words_are_understood() {
        assert_eq!((refused_forks("max 12\n"), refused_forks("")), (12, 0));
        let sockets =
            "sockets: used 12\nTCP: inuse 7 orphan 0 tw 3 alloc 9 mem 1\nUDP: inuse 2 mem 0\nUDPLITE: inuse 5\n";
        assert_eq!(open_sockets(sockets), 9);
        assert!(open_sockets(&std::fs::read_to_string("/proc/self/net/sockstat").unwrap()) < 1 << 20);
    }
}
