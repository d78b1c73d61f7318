//! Latencies at a constant rate that does not wait for answers.
//!
//! Each is counted from the moment at which the request was due, not from that at which a busy connection got round to
//! sending it: a stall is felt by all requests that were due meanwhile.

use crate::cases::{CROWD, Case};
use crate::ground::Ground;
use crate::load::{Client, drive, usual};
use crate::proxies::PROXIES;
use crate::report::{Figures, Metric, median, quantile};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::JoinSet;

/// How long each proxy is asked in each round.
const TIME: Duration = Duration::from_secs(4);

const PEAK: Metric = Metric { name: "peak", unit: "thousand requests per second", targets: &[] };

const SHARES: [(Metric, f64); 3] = [
    (Metric { name: "p50", unit: "us", targets: &[] }, 0.5),
    (Metric { name: "p99", unit: "us", targets: &[("haproxy", 1.1), ("nginx", 1.1)] }, 0.99),
    (Metric { name: "p99.9", unit: "us", targets: &[] }, 0.999),
];

pub(crate) async fn measure(ground: &Ground) -> Vec<Figures> {
    let proxies = ground.start_all().await;
    let mut peaks = Figures::new("each request as soon as the last is answered", &PROXIES);
    for round in 0..=ground.rounds {
        for proxy in &proxies {
            let begun = Instant::now();
            drive(&proxy.address, CROWD).await.unwrap_or_else(|| panic!("{} failed", proxy.name));
            if round > 0 {
                peaks.add(CROWD.name, PEAK, proxy.name, CROWD.asked() as f64 / begun.elapsed().as_secs_f64() / 1e3);
            }
        }
    }
    let of_slowest = peaks.of(PEAK).flat_map(|values| values.values()).map(|values| median(values));
    let rate = of_slowest.fold(f64::INFINITY, f64::min) * 1e3 / 2.0;

    let mut figures = Figures::new("from the moment that a request is due to its answer", &PROXIES);
    for round in 0..=ground.rounds {
        for proxy in &proxies {
            let latencies = paced(&proxy.address, CROWD, rate).await;
            let latencies = latencies.unwrap_or_else(|| panic!("{} failed at a constant rate", proxy.name));
            for (metric, share) in SHARES.into_iter().filter(|_| round > 0) {
                figures.add(CROWD.name, metric, proxy.name, quantile(&latencies, share));
            }
        }
    }
    figures.note(format!("At {rate:.0} requests per second, half of what the slowest does at its peak."));
    vec![peaks, figures]
}

/// Microseconds that each request took from the moment at which it was due.
async fn paced(address: &str, case: Case, rate: f64) -> Option<Vec<f64>> {
    let (mut connections, mut inboxes) = (JoinSet::new(), Vec::new());
    for _ in 0..case.connections {
        let mut client = Client::connect(address, case, usual(case), 0).await?;
        // What is due while an answer is under way waits here, and its time runs.
        let (due, mut inbox) = unbounded_channel::<Instant>();
        inboxes.push(due);
        connections.spawn(async move {
            let mut latencies = Vec::new();
            while let Some(due) = inbox.recv().await {
                client.ask().await?;
                latencies.push(due.elapsed().as_secs_f64() * 1e6);
            }
            Some(latencies)
        });
    }
    let requests = (rate * TIME.as_secs_f64()) as usize;
    let begun = Instant::now();
    for number in 0..requests {
        let due = begun + Duration::from_secs_f64(number as f64 / rate);
        // A timer is too coarse: this core has nothing else to do than to look at the clock and the sockets.
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        inboxes[number % case.connections].send(due).ok()?;
    }
    drop(inboxes);
    let mut all = Vec::with_capacity(requests);
    while let Some(latencies) = connections.join_next().await {
        all.extend(latencies.ok().flatten()?);
    }
    Some(all)
}
