//! The route table as workers use it.
//!
//! The [`Ledger`] is the one place where the table is changed: it turns changes of apps into changes of hosts,
//! keeps one [`Instance`] per instance id however often the table changes, and remembers the instances that have
//! left until nothing is in flight to them. Workers get an [`Update`] and put it into their own map.

mod disk;
mod instance;
mod ledger;

pub use disk::{Saved, load, save};
pub use instance::{InFlight, Instance, ReleaseStats};
pub use ledger::Shared;

use dinp_common::model::{InstanceId, Version};
use dinp_common::routes::AppRoutes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

/// An app as workers see it.
#[derive(Debug)]
pub struct App {
    /// The record that it was made from.
    pub routes: AppRoutes,
    /// Where to send.
    pub endpoints: Vec<Endpoint>,
}

/// One instance as a target of requests.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its state, the same over all tables.
    pub instance: Arc<Instance>,
    /// Its address.
    pub address: Address,
    /// Its share; 0 for nothing new.
    pub weight: u32,
    /// Whether to try it last.
    pub suspect: bool,
    /// Counters of its release.
    pub stats: Arc<ReleaseStats>,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A host name and port, to be resolved at each connection.
    Name(Arc<str>),
}

impl Address {
    fn new(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.into()), Self::Ip)
    }
}

/// Host name -> app.
pub type Hosts = HashMap<Box<str>, Arc<App>>;

/// What changes in a worker's map.
#[derive(Debug)]
pub struct Update {
    /// The version that the table has then.
    pub version: Version,
    /// Hosts that change; none for one that is gone.
    pub hosts: Vec<(Box<str>, Option<Arc<App>>)>,
    /// Instances that are in the table no more.
    pub gone: Vec<InstanceId>,
}

impl Update {
    /// Puts it into force.
    pub fn apply(&self, hosts: &mut Hosts) {
        for (host, app) in &self.hosts {
            match app {
                Some(app) => hosts.insert(host.clone(), app.clone()),
                None => hosts.remove(host),
            };
        }
    }
}
