//! Whose an address is: an instance's, until another one is seen there.
//!
//! The port ledger of an agent gives no port to another app while a router may still know it. Should that fail, or a node
//! come back from an old disk, an address that a newer instance has is no longer the older one's, whatever the table says:
//! a request must never reach another app.

use super::{Address, App, Endpoint, Instance};
use dinp_common::model::InstanceId;
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::Arc;

/// The addresses of all endpoints, each by its hash: two that share one would have to be drawn among 2^64.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: HashMap<u64, Arc<Instance>, RandomState>,
    /// Counts the changes of the table.
    change: u32,
}

impl Owners {
    /// Makes room for so many.
    pub(super) fn reserve(&mut self, endpoints: usize) {
        self.owners.reserve(endpoints);
    }

    /// A change of the table begins. Of two that come with the same one neither is newer.
    pub(super) fn begin(&mut self) {
        self.change = self.change.wrapping_add(1);
    }

    /// An app has other endpoints now. Gives the instances that have lost their addresses to them.
    pub(super) fn change(&mut self, old: Option<&App>, new: Option<&App>) -> Vec<InstanceId> {
        let (old, new) = (endpoints(old), endpoints(new));
        let had: HashSet<_, RandomState> = old.iter().map(place).collect();
        let has: HashSet<_, RandomState> = new.iter().map(place).collect();
        for endpoint in old.iter().filter(|endpoint| !has.contains(&place(endpoint))) {
            self.leave(endpoint);
        }
        new.iter().filter(|endpoint| !had.contains(&place(endpoint))).filter_map(|one| self.come(one)).collect()
    }

    fn leave(&mut self, endpoint: &Endpoint) {
        let key = self.key(&endpoint.address);
        if self.owners.get(&key).is_some_and(|owner| owner.id == endpoint.instance.id) {
            self.owners.remove(&key);
        }
    }

    fn come(&mut self, endpoint: &Endpoint) -> Option<InstanceId> {
        endpoint.instance.comes(self.change);
        let before = self.owners.insert(self.key(&endpoint.address), endpoint.instance.clone())?;
        let is_older = before.id != endpoint.instance.id && before.came() != self.change;
        is_older.then(|| {
            before.dispossess();
            before.id.clone()
        })
    }

    fn key(&self, address: &Address) -> u64 {
        self.owners.hasher().hash_one(address)
    }
}

fn endpoints(app: Option<&App>) -> &[Endpoint] {
    app.map_or(&[], |app| &app.endpoints)
}

fn place(endpoint: &Endpoint) -> (&InstanceId, &Address) {
    (&endpoint.instance.id, &endpoint.address)
}
