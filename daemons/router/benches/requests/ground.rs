//! What all sections stand on: the instance, the tables in Redis, and what was wanted.

use crate::cases::{CASES, Case};
use crate::instance;
use crate::proxies::{PROXIES, Proxy, Setup};
use crate::routes::PLAIN;
use dinp_common::testing::{Redis, TestDir};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that a process has for other things than connections.
const SPARE: usize = 200;

pub(crate) struct Ground {
    pub(crate) redis: Redis,
    pub(crate) dir: TestDir,
    /// Of the instance.
    pub(crate) port: u16,
    pub(crate) app: String,
    pub(crate) rounds: usize,
    pub(crate) cases: Vec<Case>,
    pub(crate) peers: Vec<&'static str>,
    /// Connections that a proxy can carry here, each with a second one to the instance.
    pub(crate) connections: usize,
}

impl Ground {
    pub(crate) async fn prepare(rounds: usize, case: Option<&str>, peer: Option<&str>) -> Self {
        let port = instance::answer_all().await;
        let redis = Redis::start().await;
        PLAIN.publish(&redis, port).await;
        let is_wanted = |name: &str| name == PROXIES[0] || peer.is_none_or(|wanted| wanted == name);
        Self {
            redis,
            dir: TestDir::new("bench-requests"),
            port,
            app: format!("127.0.0.1:{port}"),
            rounds,
            cases: CASES.into_iter().filter(|one| case.is_none_or(|words| one.name.contains(words))).collect(),
            peers: PROXIES.into_iter().filter(|name| is_wanted(name)).collect(),
            connections: (all_descriptors() - SPARE) / 2,
        }
    }

    /// All proxies that are wanted and installed, side by side.
    pub(crate) async fn start_all(&self) -> Vec<Proxy> {
        let mut started = Vec::new();
        for peer in &self.peers {
            started.extend(Proxy::start(self, Setup::plain(peer)).await);
        }
        started
    }

    /// As many of these connections as can be here.
    pub(crate) fn at_most(&self, connections: usize) -> usize {
        connections.min(self.connections - SPARE)
    }
}

/// Raises the limit of this process, and of what it starts, as far as it may be raised.
fn all_descriptors() -> usize {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    // More connections than these no section makes.
    usize::try_from(most).unwrap().min(60_000)
}
