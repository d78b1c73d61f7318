//! The route table as workers use it.
//!
//! The [`Ledger`](ledger::Ledger) is the one place where the table is changed: it turns changes of apps into changes of
//! hosts, keeps one [`Instance`] per instance id however often the table changes, and remembers the instances that have
//! left until nothing is in flight to them. Workers get an [`Update`] and put it into their own map, slice by slice.

mod app;
mod claims;
mod counts;
mod disk;
mod instance;
mod ledger;
mod owners;

pub(crate) use app::{Address, App, Endpoint};
pub(crate) use counts::{BOUNDS, News, ReleaseStats};
pub(crate) use disk::{Saved, Saving, load, save};
pub(crate) use instance::{InFlight, Instance};
pub(crate) use ledger::Shared;

use dinp_common::model::{InstanceId, Version};
use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::sync::Arc;

/// A host name as it is looked up: lower case, without the dot of the root. One text for all maps that name it.
pub(crate) type Host = Arc<str>;

/// Host name -> app. Names come from the leader alone, so that nobody can choose them to collide.
pub(crate) type Hosts = HashMap<Host, Arc<App>, RandomState>;

/// Hosts that a worker changes before it looks after its connections again.
const SLICE: usize = 500;

/// What changes in a worker's map.
#[derive(Debug)]
pub(crate) struct Update {
    /// The version that the table has then.
    pub(crate) version: Version,
    /// Hosts that change; none for one that is gone.
    pub(crate) hosts: Vec<(Host, Option<Arc<App>>)>,
    /// Instances that are in the table no more.
    pub(crate) gone: Vec<InstanceId>,
}

/// A part of an [`Update`] that a worker puts into force in one go.
#[derive(Debug)]
pub(crate) struct Slice {
    hosts: Vec<(Host, Option<Arc<App>>)>,
    /// Instances whose connections are of no use when this is in force.
    pub(crate) gone: Vec<InstanceId>,
}

impl Update {
    /// Its parts, in their order; one at the least.
    pub(crate) fn slices(self) -> Vec<Slice> {
        let Self { hosts, gone, .. } = self;
        let mut hosts = hosts.into_iter();
        let mut slices = Vec::with_capacity(hosts.len() / SLICE + 1);
        loop {
            let part: Vec<_> = hosts.by_ref().take(SLICE).collect();
            if part.len() < SLICE {
                slices.push(Slice { hosts: part, gone });
                return slices;
            }
            slices.push(Slice { hosts: part, gone: Vec::new() });
        }
    }
}

impl Slice {
    /// Puts it into force.
    pub(crate) fn apply(&self, hosts: &mut Hosts) {
        for (host, app) in &self.hosts {
            match app {
                Some(app) => hosts.insert(host.clone(), app.clone()),
                None => hosts.remove(host),
            };
        }
    }
}
