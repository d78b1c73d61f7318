//! A modelled router: follows Redis with some lag, and has requests in flight to what left its table.

use super::super::Tick;
use dinp_common::api::router::RouterReport;
use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::Table;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub struct Router {
    pub name: String,
    pub up: bool,
    /// Neither its reports nor reads of its status get through.
    pub cut_off_since: Option<Tick>,
    /// It does not take new tables over until then.
    pub stalled_until: Tick,
    pub up_since: Tick,
    pub applied: Version,
    pub table: Table,
    /// Requests to instances that left the table: since when they are out, and until when they run.
    pub in_flight: BTreeMap<InstanceId, (Tick, Tick)>,
    pub last_sent: Tick,
    /// Whether it has been up to date since it came up.
    pub was_current: bool,
    dirty: bool,
}

impl Router {
    pub fn new(name: &str, now: Tick) -> Self {
        Self {
            name: name.to_owned(),
            up: true,
            cut_off_since: None,
            stalled_until: 0,
            up_since: now,
            applied: Version::ZERO,
            table: Table::new(),
            in_flight: BTreeMap::new(),
            last_sent: 0,
            was_current: false,
            dirty: true,
        }
    }

    /// Takes over what Redis holds; `request_ms` is how long a request to each instance that leaves goes on.
    pub fn follow(&mut self, head: &(Version, Table), now: Tick, mut request_ms: impl FnMut() -> u64) {
        self.was_current |= self.up && head.0 == self.applied;
        if !self.up || now < self.stalled_until || head.0 <= self.applied {
            return;
        }
        let before = self.endpoints();
        self.applied = head.0;
        self.table.clone_from(&head.1);
        let after = self.endpoints();
        for id in before.difference(&after) {
            self.in_flight.insert(id.clone(), (now, now + request_ms()));
        }
        for id in &after {
            self.in_flight.remove(id);
        }
        self.dirty = true;
    }

    pub fn endpoints(&self) -> BTreeSet<InstanceId> {
        self.table.values().flat_map(|routes| &routes.endpoints).map(|one| one.instance.clone()).collect()
    }

    pub fn report(&mut self, now: Tick) -> Option<RouterReport> {
        let ended = self.in_flight.len();
        self.in_flight.retain(|_, (_, until)| *until > now);
        self.dirty |= ended != self.in_flight.len();
        if !self.up || (!self.dirty && now < self.last_sent + 1_000) {
            return None;
        }
        self.dirty = false;
        self.last_sent = now;
        Some(self.status())
    }

    pub fn status(&self) -> RouterReport {
        RouterReport {
            router: self.name.clone(),
            version: "1".to_owned(),
            status_url: format!("http://{}:1982", self.name),
            applied: self.applied,
            in_flight: self.in_flight.keys().map(|id| (id.clone(), 1)).collect(),
            counters: Vec::new(),
        }
    }

    /// Its process is gone, and what was in flight; the table stays on disk.
    pub fn kill(&mut self) {
        self.up = false;
        self.in_flight.clear();
    }

    pub fn start(&mut self, now: Tick) {
        self.up = true;
        self.up_since = now;
        self.was_current = false;
        self.dirty = true;
    }
}
