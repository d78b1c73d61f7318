//! Counts over all workers that belong to no app.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: Mutex<BTreeMap<&'static str, u64>>,
}

/// One open connection of a client.
pub(crate) struct Open(Arc<Totals>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Totals {
    /// Counts a client's connection for as long as it is open.
    pub(crate) fn connection(self: &Arc<Self>) -> Open {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Counts an answer of the router's own.
    pub(crate) fn refused(&self, code: &'static str) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// Hands the counts over to the metrics.
    pub(crate) fn publish(&self) {
        metrics::gauge!("dinp_router_connections").set(self.open.load(Ordering::Relaxed) as f64);
        metrics::counter!("dinp_router_connections_total").absolute(self.accepted.load(Ordering::Relaxed));
        for (code, count) in &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics::counter!("dinp_router_own_answers_total", "error" => *code).absolute(*count);
        }
    }
}
