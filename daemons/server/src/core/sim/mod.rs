//! A seeded simulation: many short histories of a modelled cluster, each with faults of its own, in which the
//! promises of the design hold at every moment, and everything comes to rest once the faults are over.
//!
//! `DINP_SIM_HISTORIES` sets how many are run, `DINP_SIM_SEED` the first seed; without a number as many are run as fit
//! into a few seconds, at most a few thousand. A failure prints its seed; with
//! `DINP_SIM_HISTORIES=1 DINP_SIM_SEED=<seed> DINP_SIM_TRACE=1` it is run again with a trace of all that was put out.

pub mod agent;
pub mod checks;
pub mod history;
pub mod mail;
pub mod people;
pub mod router;
pub mod truth;
pub mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Histories, and the time for them, where no number is given.
const HISTORIES: u64 = 3_000;
const TIME: Duration = Duration::from_secs(12);
/// Failures after which no further history is begun.
const FAILURES: usize = 3;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn every_history_keeps_the_promises_and_comes_to_rest() {
    let first = number("DINP_SIM_SEED").unwrap_or(1);
    let asked = number("DINP_SIM_HISTORIES");
    let end = first.saturating_add(asked.unwrap_or(HISTORIES));
    let begin = Instant::now();
    let is_late = || asked.is_none() && begin.elapsed() > TIME;
    let (next, played) = (AtomicU64::new(first), AtomicU64::new(0));
    let failures = Mutex::new(Vec::new());
    let play = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end || is_late() || failures.lock().unwrap().len() >= FAILURES {
                return;
            }
            let outcome = std::panic::catch_unwind(|| history::play(seed)).unwrap_or_else(|_| Err("panic".to_owned()));
            played.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = outcome {
                failures.lock().unwrap().push((seed, error));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(play);
        }
    });
    println!("{} histories in {:.1} s", played.into_inner(), begin.elapsed().as_secs_f64());
    let failures = failures.into_inner().unwrap();
    for (seed, error) in &failures {
        eprintln!("DINP_SIM_SEED={seed} DINP_SIM_HISTORIES=1: {error}");
    }
    let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failures.is_empty(), "histories failed: seeds {seeds:?}");
}
