//! One app of the table, in the form in which it takes little room for each of its endpoints.

use super::{Host, Instance, ReleaseStats};
use dinp_common::model::{AppName, InstanceId};
use dinp_common::routes::{AppRoutes, Endpoint as Record, EndpointState, RouteOptions, RouteState};
use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// An app as workers see it.
#[derive(Debug)]
pub(crate) struct App {
    /// Its name.
    pub(crate) name: AppName,
    /// Whether it is meant to run.
    pub(crate) state: RouteState,
    /// Its hosts, in the order of the record.
    pub(super) hosts: Box<[Host]>,
    pub(super) options: RouteOptions,
    /// Where to send.
    pub(crate) endpoints: Box<[Endpoint]>,
    pub(super) turns: AtomicU32,
}

/// One instance as a target of requests.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    /// The instance, the same over all tables.
    pub(crate) instance: Arc<Instance>,
    /// Its address.
    pub(crate) address: Address,
    /// Zone of its node, or empty: one text for all.
    pub(crate) zone: Arc<String>,
    /// Its share; 0 for nothing new.
    pub(crate) weight: u32,
    /// Whether to try it last.
    pub(crate) suspect: bool,
    /// Counters of its release.
    pub(crate) stats: Arc<ReleaseStats>,
}

/// Where an instance listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Address {
    /// Most are such; the others must not make them larger.
    V4(SocketAddrV4),
    V6(Arc<SocketAddrV6>),
    /// A host name and port, to be resolved at each connection.
    Name(Arc<String>),
}

impl Address {
    pub(super) fn new(text: &str) -> Self {
        match text.parse() {
            Ok(SocketAddr::V4(address)) => Self::V4(address),
            Ok(SocketAddr::V6(address)) => Self::V6(address.into()),
            Err(_) => Self::Name(Arc::new(text.to_owned())),
        }
    }

    fn is(&self, text: &str) -> bool {
        match self {
            Self::V4(address) => text.parse() == Ok(*address),
            Self::V6(address) => text.parse() == Ok(**address),
            Self::Name(name) => **name == text,
        }
    }
}

impl App {
    /// The number of its next request, of those that go by turns.
    pub(crate) fn turn(&self) -> u32 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// The record that it was made from.
    pub(crate) fn record(&self) -> AppRoutes {
        AppRoutes {
            app: self.name.clone(),
            state: self.state,
            domains: self.hosts.iter().map(|host| host.to_string()).collect(),
            options: self.options.clone(),
            endpoints: self.endpoints.iter().map(Endpoint::record).collect(),
        }
    }

    /// Whether it says the same as a record.
    pub(super) fn is(&self, routes: &AppRoutes) -> bool {
        let AppRoutes { app, state, domains, options, endpoints } = routes;
        self.name == *app
            && self.state == *state
            && self.options == *options
            && self.hosts.iter().map(|host| &**host).eq(domains.iter().map(String::as_str))
            && self.endpoints.len() == endpoints.len()
            && self.endpoints.iter().zip(endpoints).all(|(endpoint, record)| endpoint.is(record))
    }

    /// Its instances.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &InstanceId> {
        self.endpoints.iter().map(|endpoint| &endpoint.instance.id)
    }

    /// The counters of its releases.
    pub(super) fn stats(&self) -> impl Iterator<Item = &Arc<ReleaseStats>> {
        let mut seen = Vec::new();
        let is_first = move |stats: &&Arc<ReleaseStats>| {
            let is_first = !seen.contains(&stats.release);
            if is_first {
                seen.push(stats.release);
            }
            is_first
        };
        self.endpoints.iter().map(|endpoint| &endpoint.stats).filter(is_first)
    }
}

impl Endpoint {
    fn record(&self) -> Record {
        Record {
            instance: self.instance.id.clone(),
            release: self.stats.release,
            addr: match &self.address {
                Address::V4(address) => address.to_string(),
                Address::V6(address) => address.to_string(),
                Address::Name(name) => name.to_string(),
            },
            zone: self.zone.to_string(),
            weight: self.weight,
            state: if self.suspect { EndpointState::Suspect } else { EndpointState::Ready },
        }
    }

    fn is(&self, record: &Record) -> bool {
        let Record { instance, release, addr, zone, weight, state } = record;
        self.instance.id == *instance
            && self.stats.release == *release
            && self.address.is(addr)
            && *self.zone == *zone
            && self.weight == *weight
            && self.suspect == (*state == EndpointState::Suspect)
    }
}

/// What is found by its own name or id in a set, which then need not be kept beside it.
#[derive(Debug, Clone)]
pub(super) struct Keyed<T>(pub(super) Arc<T>);

/// What a set finds a thing by.
pub(super) trait Key {
    type Key: Hash + Eq;
    fn key(&self) -> &Self::Key;
}

impl Key for App {
    type Key = AppName;
    fn key(&self) -> &AppName {
        &self.name
    }
}

impl Key for Instance {
    type Key = InstanceId;
    fn key(&self) -> &InstanceId {
        &self.id
    }
}

impl<T: Key> Hash for Keyed<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key().hash(state);
    }
}

impl<T: Key> PartialEq for Keyed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: Key> Eq for Keyed<T> {}

impl Borrow<AppName> for Keyed<App> {
    fn borrow(&self) -> &AppName {
        self.0.key()
    }
}

impl Borrow<InstanceId> for Keyed<Instance> {
    fn borrow(&self) -> &InstanceId {
        self.0.key()
    }
}
