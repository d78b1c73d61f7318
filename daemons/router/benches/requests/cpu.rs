//! CPU time of one request, case by case.

use crate::cases::{Case, USUAL};
use crate::ground::Ground;
use crate::load::{drive, drive_with, usual};
use crate::proxies::{PROXIES, Proxy, Setup};
use crate::report::Figures;
use crate::routes::{LARGE, SMALL, host};
use std::sync::Arc;

/// Hosts of the large table that are asked in turn.
const ASKED: u32 = 1_000;

/// The proxies beside each other.
pub(crate) async fn of_cases(ground: &Ground) -> Figures {
    let proxies = ground.start_all().await;
    let mut figures = Figures::new("us of CPU per request", &PROXIES);
    for &case in &ground.cases {
        for round in 0..=ground.rounds {
            for proxy in &proxies {
                let micros = of_request(proxy, case, usual(case)).await;
                // The first makes connections and warms caches.
                if round > 0 {
                    figures.add(case.name, proxy.name, micros);
                }
            }
        }
    }
    figures
}

/// The router with its access log, and without; the same of the other proxies that have one.
pub(crate) async fn of_log(ground: &Ground) -> Figures {
    let columns = ["access log", "none"];
    let mut figures = Figures::new("us of CPU per request with an access log in a file", &columns);
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
                    figures.add(&format!("{}, {}, log", proxy.name, USUAL.name), column, micros);
                }
            }
        }
    }
    for (logged, silent) in &pairs {
        assert!(logged.has_logged() && !silent.has_logged(), "{} does not log as it was told", logged.name);
    }
    figures
}

/// The router with one host, and with a hundred thousand.
pub(crate) async fn of_hosts(ground: &Ground) -> Figures {
    let columns = ["100,000 hosts", "1 host"];
    let mut figures = Figures::new("us of CPU per request by the size of the table, 3 endpoints per host", &columns);
    let mut proxies = Vec::new();
    for seed in [LARGE, SMALL] {
        seed.publish(&ground.redis, ground.port).await;
        let setup = Setup { seed, ..Setup::plain("dinp") };
        proxies.push((Proxy::start(ground, setup).await.expect("the router is this program"), seed));
    }
    for asked in [1, ASKED] {
        let row = format!("{}, {asked} of the hosts asked", USUAL.name);
        for round in 0..=ground.rounds {
            for (column, (proxy, seed)) in columns.into_iter().zip(&proxies) {
                let requests: Arc<[_]> =
                    (0..asked.min(seed.hosts)).map(|number| USUAL.request(&host(number))).collect();
                let micros = of_request(proxy, USUAL, requests).await;
                if round > 0 {
                    figures.add(&row, column, micros);
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
