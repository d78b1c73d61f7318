//! A seeded simulation: many short histories of a modelled cluster, each with faults of its own, in which the
//! promises of the design hold at every moment, and everything comes to rest once the faults are over.
//!
//! `DINP_SIM_HISTORIES` sets how many are run, `DINP_SIM_SEED` the first seed. A failure prints its seed; with
//! `DINP_SIM_HISTORIES=1 DINP_SIM_SEED=<seed> DINP_SIM_TRACE=1` it is run again with a trace of all that was put out.

pub mod agent;
pub mod checks;
pub mod history;
pub mod router;
pub mod world;

use std::sync::atomic::{AtomicU64, Ordering};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn every_history_keeps_the_promises_and_comes_to_rest() {
    let first = number("DINP_SIM_SEED", 1);
    let count = number("DINP_SIM_HISTORIES", 300);
    let next = AtomicU64::new(first);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(count) || failures.lock().unwrap().len() > 2 {
                        return;
                    }
                    if let Err(error) = std::panic::catch_unwind(|| history::play(seed)).unwrap_or_else(|_| Err("panic".to_owned())) {
                        failures.lock().unwrap().push((seed, error));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    for (seed, error) in &failures {
        eprintln!("DINP_SIM_SEED={seed} DINP_SIM_HISTORIES=1: {error}");
    }
    let seeds: Vec<u64> = failures.iter().map(|(seed, _)| *seed).collect();
    assert!(failures.is_empty(), "histories failed: seeds {seeds:?}");
}
