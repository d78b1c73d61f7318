//! Connections that wait for their next request: what one costs in memory, and what stays when all have gone.

use crate::cases::ONE;
use crate::cpu::warm;
use crate::ground::Ground;
use crate::load::{Client, usual};
use crate::proxies::{PROXIES, Proxy, Setup};
use crate::report::{Figures, Metric};
use std::time::Duration;
use tokio::task::JoinSet;

const CONNECTIONS: usize = 10_000;
/// Clients that connect at the same time.
const AT_ONCE: usize = 32;
/// Time for a proxy to give memory back.
const SETTLED: Duration = Duration::from_secs(2);

const CASE: &str = "idle connections";
const HELD: Metric = Metric { name: "memory of each", unit: "KiB", targets: &[] };
const LEFT: Metric = Metric { name: "left of each when closed", unit: "KiB", targets: &[] };
const BEFORE: Metric = Metric { name: "memory before any", unit: "MiB", targets: &[] };

pub(crate) async fn measure(ground: &Ground) -> Figures {
    let connections = ground.at_most(CONNECTIONS);
    let mut figures = Figures::new(format!("{connections} idle connections"), &PROXIES);
    if connections < CONNECTIONS {
        figures
            .note(format!("{CONNECTIONS} were wanted; the descriptors of a process here suffice for {connections}."));
    }
    for _ in 0..ground.rounds {
        for &peer in &ground.peers {
            let Some(proxy) = Proxy::start(ground, Setup::plain(peer)).await else { continue };
            warm(&proxy).await;
            let (before, descriptors) = (proxy.resident(), proxy.descriptors());
            let open = open_all(&proxy, connections).await;
            let open = open.unwrap_or_else(|| panic!("{} does not keep connections", proxy.name));
            tokio::time::sleep(SETTLED).await;
            let per_connection = |resident: f64| (resident - before) / connections as f64;
            figures.add(CASE, HELD, peer, per_connection(proxy.resident()));
            drop(open);
            proxy.has_closed_all_but(descriptors + 2 * AT_ONCE).await;
            tokio::time::sleep(SETTLED).await;
            figures.add(CASE, LEFT, peer, per_connection(proxy.resident()));
            figures.add(CASE, BEFORE, peer, before / 1_024.0);
        }
    }
    figures
}

/// Connections that have each asked once.
async fn open_all(proxy: &Proxy, connections: usize) -> Option<Vec<Client>> {
    let mut groups = JoinSet::new();
    for group in 0..AT_ONCE {
        let address = proxy.address.clone();
        groups.spawn(async move {
            let mut open = Vec::new();
            for _ in (group..connections).step_by(AT_ONCE) {
                let mut client = Client::connect(&address, ONE, usual(ONE), 0).await?;
                client.ask().await?;
                open.push(client);
            }
            Some(open)
        });
    }
    let groups: Option<Vec<Vec<Client>>> = groups.join_all().await.into_iter().collect();
    Some(groups?.into_iter().flatten().collect())
}
