//! The one place where the table changes.

use super::{Address, App, Endpoint, Instance, ReleaseStats, Update};
use dinp_common::api::router::ReleaseCounters;
use dinp_common::model::{AppName, InstanceId, Version};
use dinp_common::routes::{AppRoutes, Change, EndpointState, Table, difference};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the counters of a release outlive its last endpoint.
const KEEP_COUNTERS: Duration = Duration::from_secs(900);
/// How often it is looked for counters to forget.
const FORGET: Duration = Duration::from_secs(60);

/// The whole table, and what the router knows of the instances in it.
#[derive(Debug, Default)]
pub struct Ledger {
    version: Option<Version>,
    /// The version that every worker has confirmed.
    applied: Version,
    apps: BTreeMap<AppName, Arc<App>>,
    /// Which apps name a host. The first of them gets it.
    claims: HashMap<Box<str>, BTreeSet<AppName>>,
    instances: HashMap<InstanceId, Arc<Instance>>,
    leaving: HashMap<InstanceId, Leaving>,
    stats: BTreeMap<(AppName, u64), Counted>,
    forgot: Option<Instant>,
}

#[derive(Debug)]
struct Leaving {
    instance: Arc<Instance>,
    /// The table without it.
    since: Version,
}

#[derive(Debug)]
struct Counted {
    stats: Arc<ReleaseStats>,
    last_used: Instant,
}

impl Ledger {
    /// Version of the table; none before the first.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version that is in force in every worker.
    pub fn applied(&self) -> Version {
        self.applied
    }

    /// Notes that every worker has a version.
    pub fn confirm(&mut self, version: Version) {
        self.applied = self.applied.max(version);
    }

    /// Numbers of apps and endpoints.
    pub fn size(&self) -> (usize, usize) {
        (self.apps.len(), self.instances.len())
    }

    /// The table as it came.
    pub fn table(&self) -> Table {
        self.apps.iter().map(|(name, app)| (name.clone(), app.routes.clone())).collect()
    }

    /// Replaces the table.
    pub fn replace(&mut self, version: Version, table: &Table, now: Instant) -> Update {
        let changes = difference(&self.table(), table);
        self.change(version, changes, now)
    }

    /// Changes some apps.
    pub fn change(&mut self, version: Version, changes: Vec<Change>, now: Instant) -> Update {
        self.version = Some(version);
        let mut hosts: BTreeSet<Box<str>> = BTreeSet::new();
        let mut before: HashSet<InstanceId> = HashSet::new();
        for Change { app: name, routes } in changes {
            if let Some(old) = self.apps.remove(&name) {
                before.extend(old.endpoints.iter().map(|endpoint| endpoint.instance.id.clone()));
                for host in host_keys(&old.routes) {
                    if let Some(claims) = self.claims.get_mut(&host) {
                        claims.remove(&name);
                        if claims.is_empty() {
                            self.claims.remove(&host);
                        }
                    }
                    hosts.insert(host);
                }
            }
            let Some(routes) = routes else { continue };
            for host in host_keys(&routes) {
                let claims = self.claims.entry(host.clone()).or_default();
                claims.insert(name.clone());
                if claims.len() > 1 {
                    tracing::warn!(host = &*host, apps = ?claims, "host {host} is claimed by several apps, the first gets it");
                }
                hosts.insert(host);
            }
            let app = self.build(routes, now);
            self.apps.insert(name, Arc::new(app));
        }
        let gone = self.retire(before, version);
        self.forget_counters(now);
        let hosts = hosts.into_iter().map(|host| {
            let app = self.claims.get(&host).and_then(|claims| self.apps.get(claims.first()?)).cloned();
            (host, app)
        });
        Update { version, hosts: hosts.collect(), gone }
    }

    /// Requests in flight to instances that every worker's table is without.
    pub fn in_flight(&mut self) -> BTreeMap<InstanceId, u64> {
        let applied = self.applied;
        self.leaving.retain(|_, leaving| leaving.since > applied || leaving.instance.in_flight() > 0);
        let counted = self.leaving.iter().map(|(id, leaving)| (id.clone(), u64::from(leaving.instance.in_flight())));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Answers per app and release.
    pub fn counters(&self) -> Vec<ReleaseCounters> {
        let counters = self.stats.iter().map(|((app, release), counted)| {
            let (answers, failed) = counted.stats.read();
            ReleaseCounters { app: app.to_string(), release: *release, answers, failed }
        });
        counters.collect()
    }

    fn build(&mut self, routes: AppRoutes, now: Instant) -> App {
        let mut endpoints = Vec::with_capacity(routes.endpoints.len());
        for record in &routes.endpoints {
            let id = &record.instance;
            let back = self.leaving.remove(id).map(|leaving| leaving.instance);
            let instance =
                self.instances.entry(id.clone()).or_insert_with(|| back.unwrap_or_else(|| Instance::new(id.clone())));
            let key = (routes.app.clone(), record.release);
            let counted = self.stats.entry(key).or_insert_with_key(|(app, release)| Counted {
                stats: ReleaseStats::new(app.clone(), *release),
                last_used: now,
            });
            endpoints.push(Endpoint {
                instance: instance.clone(),
                address: Address::new(&record.addr),
                weight: record.weight,
                suspect: record.state == EndpointState::Suspect,
                stats: counted.stats.clone(),
            });
        }
        App { routes, endpoints }
    }

    /// Moves those of `before` that no changed app names any more to the leaving ones.
    fn retire(&mut self, before: HashSet<InstanceId>, version: Version) -> Vec<InstanceId> {
        if before.is_empty() {
            return Vec::new();
        }
        // An instance has one app for all its life, so only the apps that changed could name it still; looking at
        // all apps keeps this right even if a leader should ever err.
        let present: HashSet<&InstanceId> =
            self.apps.values().flat_map(|app| &app.endpoints).map(|endpoint| &endpoint.instance.id).collect();
        let gone: Vec<InstanceId> = before.into_iter().filter(|id| !present.contains(id)).collect();
        for id in &gone {
            if let Some(instance) = self.instances.remove(id) {
                self.leaving.insert(id.clone(), Leaving { instance, since: version });
            }
        }
        gone
    }

    fn forget_counters(&mut self, now: Instant) {
        if self.forgot.is_some_and(|last| now.saturating_duration_since(last) < FORGET) {
            return;
        }
        self.forgot = Some(now);
        for app in self.apps.values() {
            for endpoint in &app.endpoints {
                let key = (endpoint.stats.app.clone(), endpoint.stats.release);
                if let Some(counted) = self.stats.get_mut(&key) {
                    counted.last_used = now;
                }
            }
        }
        self.stats.retain(|_, counted| now.saturating_duration_since(counted.last_used) < KEEP_COUNTERS);
    }
}

/// The hosts of an app in the form in which they are looked up.
fn host_keys(routes: &AppRoutes) -> impl Iterator<Item = Box<str>> {
    routes.domains.iter().map(|domain| domain.trim_end_matches('.').to_ascii_lowercase().into_boxed_str())
}

/// The ledger, shared by the tasks of the main runtime; workers never touch it.
#[derive(Debug, Clone, Default)]
pub struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    /// Locks it; never across an await.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Hosts, InFlight};
    use dinp_common::routes::{Endpoint as Record, RouteOptions, RouteState};

    fn routes(app: &str, domains: &[&str], instances: &[u64]) -> AppRoutes {
        let endpoint = |bits: &u64| Record {
            instance: InstanceId::from_bits(*bits),
            release: 1,
            addr: format!("127.0.0.1:{bits}"),
            zone: String::new(),
            weight: 1,
            state: EndpointState::Ready,
        };
        AppRoutes {
            app: app.parse().unwrap(),
            state: RouteState::Started,
            domains: domains.iter().map(|domain| (*domain).to_owned()).collect(),
            options: RouteOptions::default(),
            endpoints: instances.iter().map(endpoint).collect(),
        }
    }

    fn set(routes: AppRoutes) -> Change {
        Change { app: routes.app.clone(), routes: Some(routes) }
    }

    #[test]
    fn hosts_follow_the_apps() {
        let mut ledger = Ledger::default();
        let mut hosts = Hosts::new();
        let now = Instant::now();
        ledger.change(Version::new(1, 1), vec![set(routes("a", &["a.x", "Shop.x"], &[1]))], now).apply(&mut hosts);
        assert_eq!(hosts["shop.x"].routes.app.as_str(), "a");
        // The domain moves in one step.
        let moved = vec![set(routes("a", &["a.x"], &[1])), set(routes("b", &["b.x", "shop.x"], &[2]))];
        ledger.change(Version::new(1, 2), moved, now).apply(&mut hosts);
        assert_eq!(hosts["shop.x"].routes.app.as_str(), "b");
        let gone = Change { app: "b".parse().unwrap(), routes: None };
        ledger.change(Version::new(1, 3), vec![gone], now).apply(&mut hosts);
        assert_eq!(hosts.keys().map(|host| &**host).collect::<Vec<_>>(), ["a.x"]);
    }

    #[test]
    fn a_host_that_two_apps_claim_goes_to_the_other_when_one_leaves() {
        let mut ledger = Ledger::default();
        let mut hosts = Hosts::new();
        let now = Instant::now();
        let both = vec![set(routes("b", &["x.y"], &[2])), set(routes("a", &["x.y"], &[1]))];
        ledger.change(Version::new(1, 1), both, now).apply(&mut hosts);
        assert_eq!(hosts["x.y"].routes.app.as_str(), "a");
        ledger
            .change(Version::new(1, 2), vec![Change { app: "a".parse().unwrap(), routes: None }], now)
            .apply(&mut hosts);
        assert_eq!(hosts["x.y"].routes.app.as_str(), "b");
    }

    #[test]
    fn an_instance_keeps_its_state_and_is_counted_after_it_left() {
        let mut ledger = Ledger::default();
        let now = Instant::now();
        ledger.change(Version::new(1, 1), vec![set(routes("a", &["a.x"], &[1, 2]))], now);
        let first = ledger.apps["a"].endpoints[0].instance.clone();
        let request = InFlight::new(&first);
        let update = ledger.change(Version::new(1, 2), vec![set(routes("a", &["a.x"], &[2]))], now);
        assert_eq!(update.gone, [InstanceId::from_bits(1)]);
        ledger.confirm(Version::new(1, 2));
        assert_eq!(ledger.in_flight(), BTreeMap::from([(InstanceId::from_bits(1), 1)]));
        // It comes back while a request is still in flight.
        ledger.change(Version::new(1, 3), vec![set(routes("a", &["a.x"], &[1, 2]))], now);
        assert!(Arc::ptr_eq(&ledger.apps["a"].endpoints[0].instance, &first));
        assert!(ledger.in_flight().is_empty());
        ledger.change(Version::new(1, 4), vec![set(routes("a", &["a.x"], &[2]))], now);
        drop(request);
        // Not forgotten before every worker has the table without it: a worker may still choose it.
        assert!(ledger.in_flight().is_empty());
        assert_eq!(ledger.leaving.len(), 1);
        ledger.confirm(Version::new(1, 4));
        ledger.in_flight();
        assert!(ledger.leaving.is_empty());
    }

    #[test]
    fn counters_outlive_their_release_for_a_while() {
        let mut ledger = Ledger::default();
        let start = Instant::now();
        ledger.change(Version::new(1, 1), vec![set(routes("a", &["a.x"], &[1]))], start);
        ledger.apps["a"].endpoints[0].stats.answered(http::StatusCode::NOT_FOUND);
        ledger.change(Version::new(1, 2), vec![set(routes("a", &["a.x"], &[]))], start + Duration::from_secs(60));
        assert_eq!(ledger.counters()[0].answers, [0, 0, 0, 1, 0]);
        ledger.change(Version::new(1, 3), vec![], start + KEEP_COUNTERS * 2);
        assert!(ledger.counters().is_empty());
    }
}
