//! CPU time of one request, case by case.

use crate::cases::{Case, USUAL};
use crate::ground::Ground;
use crate::load::{drive, drive_with, usual};
use crate::proxies::{PROXIES, Proxy, Setup};
use crate::report::{Figures, Metric};
use crate::routes::{LARGE, MIDDLE, SMALL, host};
use std::sync::Arc;

const CPU: Metric = Metric {
    name: "CPU per request",
    unit: "us",
    targets: &[("haproxy", 1.0), ("nginx", 1.0), ("relay", 1.25), ("those that are asked", 1.03)],
};

/// The proxies beside each other.
pub(crate) async fn of_cases(ground: &Ground) -> Figures {
    let proxies = ground.start_all().await;
    let mut figures = Figures::new("what a request costs", &PROXIES);
    for &case in &ground.cases {
        for round in 0..=ground.rounds {
            for proxy in &proxies {
                let micros = of_request(proxy, case, usual(case)).await;
                // The first makes connections and warms caches.
                if round > 0 {
                    figures.add(case.name, CPU, proxy.name, micros);
                }
            }
        }
    }
    figures
}

/// The router with its access log, and without; the same of the other proxies that have one.
pub(crate) async fn of_log(ground: &Ground) -> Figures {
    let columns = ["access log", "none"];
    let mut figures = Figures::new("what an access log in a file costs", &columns);
    let mut pairs = Vec::new();
    for &peer in ground.peers.iter().filter(|peer| **peer != "relay") {
        let logged = Proxy::start(ground, Setup { is_logged: true, ..Setup::plain(peer) }).await;
        pairs.extend(logged.zip(Proxy::start(ground, Setup::plain(peer)).await));
    }
    for round in 0..=ground.rounds {
        for (logged, silent) in &pairs {
            for (column, proxy) in columns.into_iter().zip([logged, silent]) {
                let micros = of_request(proxy, USUAL, usual(USUAL)).await;
                if round > 0 {
                    figures.add(&format!("{}, {}", proxy.name, USUAL.name), CPU, column, micros);
                }
            }
        }
    }
    for (logged, silent) in &pairs {
        assert!(logged.has_logged() && !silent.has_logged(), "{} does not log as it was told", logged.name);
    }
    figures
}

/// The router with a hundred thousand hosts, and with no more than are asked: more of them have more connections to
/// instances, whatever the size of the table.
pub(crate) async fn of_hosts(ground: &Ground) -> Figures {
    let columns = ["100,000 hosts", "those that are asked"];
    let mut figures = Figures::new("what a large table costs, 3 endpoints per host", &columns);
    for seed in [LARGE, SMALL, MIDDLE] {
        seed.publish(&ground.redis, ground.port).await;
    }
    for asked in [SMALL, MIDDLE] {
        let mut proxies = Vec::new();
        for seed in [LARGE, asked] {
            let setup = Setup { seed, ..Setup::plain("dinp") };
            proxies.push(Proxy::start(ground, setup).await.expect("the router is this program"));
        }
        let case = format!("{}, {} hosts asked", USUAL.name, asked.hosts);
        let requests: Arc<[_]> = (0..asked.hosts).map(|number| USUAL.request(&host(number))).collect();
        for round in 0..=ground.rounds {
            for (column, proxy) in columns.into_iter().zip(&proxies) {
                let micros = of_request(proxy, USUAL, requests.clone()).await;
                if round > 0 {
                    figures.add(&case, CPU, column, micros);
                }
            }
        }
    }
    figures
}

/// Microseconds of CPU per request.
async fn of_request(proxy: &Proxy, case: Case, requests: Arc<[Vec<u8>]>) -> f64 {
    let before = proxy.cpu();
    let answered = drive_with(&proxy.address, case, requests).await;
    answered.unwrap_or_else(|| panic!("{} failed at {}", proxy.name, case.name));
    (proxy.cpu() - before).as_secs_f64() * 1e6 / case.asked() as f64
}

/// Requests that make a new process what it is at work, before its memory is looked at.
pub(crate) async fn warm(proxy: &Proxy) {
    let case = Case { requests: 2_000, ..USUAL };
    drive(&proxy.address, case).await.unwrap_or_else(|| panic!("{} failed when warmed", proxy.name));
}
