//! The numbers that decisions go by, in the unit that the core counts in.

use crate::config::ServerConfig;
use dinp_common::model::{ReleaseSpec, Timing};

/// The numbers that decisions go by. Those that operators set have their defaults in [`ServerConfig`], the others here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Silence after which a node gets no new work.
    pub suspect_ms: u64,
    /// Silence after which a node's instances are replaced.
    pub lost_ms: u64,
    /// Time after which a node that this leader has never heard is lost.
    pub unheard_ms: u64,
    /// Silence that is granted to an agent that said it restarts.
    pub restart_patience_ms: u64,
    /// Longest wait for requests in flight to an instance that is to stop.
    pub drain_timeout_ms: u64,
    /// Seconds from SIGTERM to SIGKILL.
    pub stop_grace_secs: u32,
    /// Silence, to reports and reads both, after which a router is left out of confirmations.
    pub router_timeout_ms: u64,
    /// Age of a router's report after which the leader reads its status itself.
    pub router_read_ms: u64,
    /// Seconds from an instance's start to ready, after which the start has failed; goes to the agent.
    pub start_timeout_secs: u32,
    /// Failed starts of one instance that fail its deployment.
    pub start_failures: u32,
    /// Time without any progress that fails a deployment.
    pub progress_deadline_ms: u64,
    /// Time for which all new instances must serve before a deployment has succeeded.
    pub verify_ms: u64,
    /// New instances ahead of removals; at least a quarter of the count.
    pub surge: u32,
    /// Share of an app's instances that DINP may replace by its own decision at a time; at least one.
    pub kill_percent: u32,
    /// Instances of the whole cluster that DINP may condemn by its own decision within a minute.
    pub kills_per_minute: u32,
    /// Silence of a health monitor after which its verdicts are void.
    pub verdict_ms: u64,
    /// Restarts within `crash_window_ms` that make an instance be placed elsewhere.
    pub crash_restarts: u32,
    /// See `crash_restarts`.
    pub crash_window_ms: u64,
    /// Time of being ready without a break that makes restarts forgotten.
    pub crash_forgive_ms: u64,
    /// Time after which instances of a node whose Docker Engine cannot be used are replaced.
    pub docker_down_ms: u64,
    /// Memory of each node that is never booked, in MiB; at most a tenth of the node.
    pub host_reserve_memory_mb: u32,
    /// Time until a table that could not be published is tried again.
    pub publish_retry_ms: u64,
    /// Domain that apps are subdomains of.
    pub domain: String,
}

/// The times of one release: what people set for it, else the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// From start to ready, in seconds.
    pub start_timeout_secs: u32,
    /// Of being ready until it is proved, in seconds.
    pub min_healthy_secs: u32,
    /// For which all instances must be proved, in milliseconds.
    pub verify_ms: u64,
    /// Longest drain, in milliseconds.
    pub drain_timeout_ms: u64,
    /// From SIGTERM to SIGKILL, in seconds.
    pub stop_grace_secs: u32,
}

impl Settings {
    /// The times of a release.
    pub fn times_of(&self, release: &ReleaseSpec) -> Times {
        let (timing, own) = (release.timing, self.times());
        let ms = |secs: Option<u32>| secs.map(|secs| u64::from(secs) * 1000);
        let min_healthy_secs = match release.health {
            Some(_) => Timing::MIN_HEALTHY_CHECKED_SECS,
            None => Timing::MIN_HEALTHY_SECS,
        };
        Times {
            start_timeout_secs: timing.start_timeout_secs.unwrap_or(own.start_timeout_secs),
            min_healthy_secs: timing.min_healthy_secs.unwrap_or(min_healthy_secs),
            verify_ms: ms(timing.verify_secs).unwrap_or(own.verify_ms),
            drain_timeout_ms: ms(timing.drain_timeout_secs).unwrap_or(own.drain_timeout_ms),
            stop_grace_secs: timing.stop_grace_secs.unwrap_or(own.stop_grace_secs),
        }
    }

    /// The cluster's times, for what has no release that is known.
    pub fn times(&self) -> Times {
        Times {
            start_timeout_secs: self.start_timeout_secs,
            min_healthy_secs: Timing::MIN_HEALTHY_SECS,
            verify_ms: self.verify_ms,
            drain_timeout_ms: self.drain_timeout_ms,
            stop_grace_secs: self.stop_grace_secs,
        }
    }

    /// What the configuration says, for a cluster whose apps are subdomains of `domain`.
    pub fn of(config: &ServerConfig, domain: &str) -> Self {
        let ms = |secs: u32| u64::from(secs) * 1000;
        Self {
            suspect_ms: ms(config.suspect_secs),
            lost_ms: ms(config.lost_secs),
            unheard_ms: ms(config.unheard_secs),
            restart_patience_ms: 60_000,
            drain_timeout_ms: ms(config.drain_timeout_secs),
            stop_grace_secs: config.stop_grace_secs,
            router_timeout_ms: 15_000,
            router_read_ms: 3_000,
            start_timeout_secs: config.start_timeout_secs,
            start_failures: 3,
            progress_deadline_ms: ms(config.progress_deadline_secs),
            verify_ms: ms(config.verify_secs),
            surge: 1,
            kill_percent: 10,
            kills_per_minute: 10,
            verdict_ms: 10_000,
            crash_restarts: 5,
            crash_window_ms: 600_000,
            crash_forgive_ms: 60_000,
            docker_down_ms: 300_000,
            host_reserve_memory_mb: 256,
            publish_retry_ms: 500,
            domain: domain.to_owned(),
        }
    }
}
