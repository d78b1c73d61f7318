//! Counts over all workers.

use crate::proxy::{Queues, Shortage};
use crate::table::News;
use dinp_common::listen::Untold;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// What the apps' releases have answered.
    pub(crate) news: News,
    /// Requests that wait for room.
    pub(crate) queues: Arc<Queues>,
    pub(crate) shortage: Arc<Shortage>,
    open: AtomicU64,
    accepted: AtomicU64,
    shed: AtomicU64,
    unlogged: AtomicU64,
    turned_away: Mutex<BTreeMap<&'static str, u64>>,
    untold: Mutex<Untold>,
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

    /// Clients' connections that are open.
    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Counts a connection that was closed to make room for another.
    pub(crate) fn shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts lines of the access log that are lost.
    pub(crate) fn unlogged(&self, lines: u64) {
        self.unlogged.fetch_add(lines, Ordering::Relaxed);
    }

    /// Counts a connection for which there was no room under that limit, and tells of it now and then.
    pub(crate) fn turned_away(&self, peer: IpAddr, limit: &'static str) {
        count(&self.turned_away, limit);
        let due = self.untold.lock().unwrap_or_else(PoisonError::into_inner).note(Instant::now());
        if let Some(refused) = due {
            tracing::warn!(%peer, limit, refused, "connections are refused, the last one of {peer}: no idle one was found that could make room");
        }
    }

    /// Counts an answer of the router's own.
    pub(crate) fn refused(&self, code: &'static str) {
        count(&self.refused, code);
    }

    /// Hands the counts over to the metrics.
    pub(crate) fn publish(&self) {
        metrics::gauge!("dinp_router_connections").set(self.open() as f64);
        metrics::gauge!("dinp_router_queued_requests").set(self.queues.waiting() as f64);
        metrics::counter!("dinp_router_connections_total").absolute(self.accepted.load(Ordering::Relaxed));
        metrics::counter!("dinp_router_connections_shed_total").absolute(self.shed.load(Ordering::Relaxed));
        metrics::counter!("dinp_router_access_log_lost_lines_total").absolute(self.unlogged.load(Ordering::Relaxed));
        for (limit, count) in &*self.turned_away.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics::counter!("dinp_connections_refused_total", "limit" => *limit).absolute(*count);
        }
        for (code, count) in &*self.refused.lock().unwrap_or_else(PoisonError::into_inner) {
            metrics::counter!("dinp_router_own_answers_total", "error" => *code).absolute(*count);
        }
    }
}

fn count(counts: &Mutex<BTreeMap<&'static str, u64>>, what: &'static str) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
}
