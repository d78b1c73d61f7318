//! The one place where the table changes.
//!
//! The work of a change grows with what it changes, never with the table.

use super::app::Keyed;
use super::claims::Claims;
use super::owners::Owners;
use super::{Address, App, Endpoint, Host, Instance, ReleaseStats, Update};
use dinp_common::model::{AppName, InstanceId, Version};
use dinp_common::routes::{AppRoutes, Change, Endpoint as Record, EndpointState};
use foldhash::fast::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the counters of a release outlive its last endpoint.
const KEEP_COUNTERS: Duration = Duration::from_secs(900);

/// The whole table, and what the router knows of the instances in it.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    version: Option<Version>,
    /// The version that every worker has confirmed.
    applied: Version,
    apps: HashSet<Keyed<App>, RandomState>,
    claims: Claims,
    owners: Owners,
    /// Instances of the table. By the leader's law each has one app for all its life; should it err, two may name one.
    instances: HashSet<Keyed<Instance>, RandomState>,
    leaving: HashMap<InstanceId, Leaving>,
    /// Counters of releases that no endpoint is of any more.
    retired: HashMap<(AppName, u64), Retired>,
    zones: HashSet<Arc<String>>,
}

#[derive(Debug)]
struct Leaving {
    instance: Arc<Instance>,
    /// The table without it.
    since: Version,
}

#[derive(Debug)]
struct Retired {
    stats: Arc<ReleaseStats>,
    at: Instant,
}

impl Ledger {
    /// Version of the table; none before the first.
    pub(crate) fn version(&self) -> Option<Version> {
        self.version
    }

    /// The version that is in force in every worker.
    pub(crate) fn applied(&self) -> Version {
        self.applied
    }

    /// Notes that every worker has a version.
    pub(crate) fn confirm(&mut self, version: Version) {
        self.applied = self.applied.max(version);
    }

    /// Numbers of apps and instances.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.apps.len(), self.instances.len())
    }

    /// All apps, or the one of this name. What is made of them is made when the ledger is no longer locked.
    pub(crate) fn apps(&self, name: Option<&AppName>) -> Vec<Arc<App>> {
        match name {
            Some(name) => self.apps.get(name).into_iter().map(|app| app.0.clone()).collect(),
            None => self.apps.iter().map(|app| app.0.clone()).collect(),
        }
    }

    /// Replaces the table.
    pub(crate) fn replace(&mut self, version: Version, apps: Vec<AppRoutes>, now: Instant) -> Update {
        if self.apps.is_empty() {
            self.reserve(&apps);
        }
        let present: HashSet<&AppName, RandomState> = apps.iter().map(|routes| &routes.app).collect();
        let gone = self.apps.iter().filter(|app| !present.contains(&app.0.name));
        let gone = gone.map(|app| Change { app: app.0.name.clone(), routes: None });
        let mut changes: Vec<Change> = gone.collect();
        let is_new = |routes: &AppRoutes| self.apps.get(&routes.app).is_none_or(|have| !have.0.is(routes));
        let changed = apps.into_iter().filter(is_new);
        changes.extend(changed.map(|routes| Change { app: routes.app.clone(), routes: Some(routes) }));
        self.change(version, changes, now)
    }

    /// Makes room for a first table.
    fn reserve(&mut self, apps: &[AppRoutes]) {
        let endpoints = apps.iter().map(|routes| routes.endpoints.len()).sum();
        self.apps.reserve(apps.len());
        self.instances.reserve(endpoints);
        self.owners.reserve(endpoints);
    }

    /// Changes some apps.
    pub(crate) fn change(&mut self, version: Version, changes: Vec<Change>, now: Instant) -> Update {
        self.version = Some(version);
        let mut hosts: HashSet<Host, RandomState> = HashSet::default();
        let mut left: Vec<InstanceId> = Vec::new();
        let mut dispossessed: Vec<InstanceId> = Vec::new();
        self.owners.begin();
        for Change { app: name, routes } in changes {
            let old = self.apps.take(&name).map(|Keyed(old)| old);
            let new = routes.map(|routes| Arc::new(self.build(routes, old.as_deref(), now)));
            dispossessed.extend(self.owners.change(old.as_deref(), new.as_deref()));
            if let Some(old) = &old {
                for host in &old.hosts {
                    self.claims.remove(host, &name);
                }
                hosts.extend(old.hosts.iter().cloned());
                self.retire_counters(old, new.as_deref(), now);
                for endpoint in &old.endpoints {
                    left.extend(self.unname(&endpoint.instance.id, version));
                }
            }
            if let Some(new) = new {
                for host in &new.hosts {
                    self.claims.add(host, &new);
                }
                hosts.extend(new.hosts.iter().cloned());
                self.apps.insert(Keyed(new));
            }
        }
        self.retired.retain(|_, retired| now.saturating_duration_since(retired.at) < KEEP_COUNTERS);
        // Another app of the same change may have named one anew.
        left.retain(|id| self.leaving.contains_key(id));
        for instance in &dispossessed {
            tracing::debug!(%instance, "a newer instance has its address");
        }
        left.append(&mut dispossessed);
        let hosts = hosts.into_iter().map(|host| {
            let app = self.claims.winner(&host).cloned();
            (host, app)
        });
        Update { version, hosts: hosts.collect(), gone: left }
    }

    /// Requests in flight to instances that every worker's table is without.
    pub(crate) fn in_flight(&mut self) -> BTreeMap<InstanceId, u64> {
        let applied = self.applied;
        self.leaving.retain(|_, leaving| leaving.since > applied || leaving.instance.in_flight() > 0);
        let counted = self.leaving.iter().map(|(id, leaving)| (id.clone(), u64::from(leaving.instance.in_flight())));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// The counters of all releases.
    pub(crate) fn stats(&self) -> Vec<Arc<ReleaseStats>> {
        let present = self.apps.iter().flat_map(|app| app.0.stats());
        present.chain(self.retired.values().map(|retired| &retired.stats)).cloned().collect()
    }

    fn build(&mut self, routes: AppRoutes, old: Option<&App>, now: Instant) -> App {
        let AppRoutes { app: name, state, domains, options, endpoints: records } = routes;
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(records.len());
        let before: HashSet<&InstanceId, RandomState> = old.into_iter().flat_map(App::instances).collect();
        for Record { instance, release, addr, zone, weight, state } in records {
            let known = endpoints.iter().chain(old.into_iter().flat_map(|old| &old.endpoints));
            let stats = known.map(|one| &one.stats).find(|stats| stats.release == release).cloned();
            let instance = self.name(instance);
            // Where all are new, or the only one is, there is nobody to spare it.
            if !before.is_empty() && !before.contains(&instance.id) {
                instance.starts_slowly(now);
            }
            let endpoint = Endpoint {
                instance,
                address: Address::new(&addr),
                zone: self.zone(zone),
                weight,
                suspect: state == EndpointState::Suspect,
                stats: stats.unwrap_or_else(|| self.stats_of(&name, release)),
            };
            endpoints.push(endpoint);
        }
        let mut hosts: Vec<Host> = Vec::with_capacity(domains.len());
        for domain in domains {
            let key = domain.trim_end_matches('.').to_ascii_lowercase();
            if !hosts.iter().any(|host| **host == *key) {
                hosts.push(self.claims.host(&key));
            }
        }
        App { name, state, hosts: hosts.into(), options, endpoints: endpoints.into(), turns: AtomicU32::new(0) }
    }

    /// The instance of this id, which one more endpoint names from now on.
    fn name(&mut self, id: InstanceId) -> Arc<Instance> {
        let known = self.instances.get(&id).map(|Keyed(instance)| instance.clone());
        let instance = known.unwrap_or_else(|| {
            let back = self.leaving.remove(&id).map(|leaving| leaving.instance);
            let instance = back.unwrap_or_else(|| Instance::new(id));
            self.instances.insert(Keyed(instance.clone()));
            instance
        });
        instance.named();
        instance
    }

    /// One endpoint names the instance no more; where none does, it leaves with this version.
    fn unname(&mut self, id: &InstanceId, version: Version) -> Option<InstanceId> {
        if !self.instances.get(id)?.0.unnamed() {
            return None;
        }
        let Keyed(instance) = self.instances.take(id)?;
        self.leaving.insert(id.clone(), Leaving { instance, since: version });
        Some(id.clone())
    }

    fn stats_of(&mut self, app: &AppName, release: u64) -> Arc<ReleaseStats> {
        let retired = self.retired.remove(&(app.clone(), release)).map(|retired| retired.stats);
        retired.unwrap_or_else(|| ReleaseStats::new(app.clone(), release))
    }

    fn retire_counters(&mut self, old: &App, new: Option<&App>, now: Instant) {
        let is_present = |release| new.is_some_and(|new| new.stats().any(|stats| stats.release == release));
        for stats in old.stats().filter(|stats| !is_present(stats.release)) {
            self.retired.insert((old.name.clone(), stats.release), Retired { stats: stats.clone(), at: now });
        }
    }

    /// The text of a zone, once for all endpoints in it.
    fn zone(&mut self, name: String) -> Arc<String> {
        if let Some(zone) = self.zones.get(&name) {
            return zone.clone();
        }
        let zone = Arc::new(name);
        self.zones.insert(zone.clone());
        zone
    }
}

/// The ledger, shared by the tasks of the main runtime; workers never touch it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    /// Locks it; never across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Hosts, InFlight};
    use dinp_common::routes::{Endpoint as Record, RouteOptions, RouteState, Table};

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

    fn end(app: &str) -> Change {
        Change { app: app.parse().unwrap(), routes: None }
    }

    /// A ledger, and the map that a worker makes of its updates.
    #[derive(Default)]
    struct Both {
        ledger: Ledger,
        hosts: Hosts,
        seq: u64,
    }

    impl Both {
        fn change(&mut self, changes: Vec<Change>, now: Instant) -> Vec<InstanceId> {
            self.seq += 1;
            let update = self.ledger.change(Version::new(1, self.seq), changes, now);
            self.apply(update)
        }

        fn replace(&mut self, table: &Table) -> Vec<InstanceId> {
            self.seq += 1;
            let update =
                self.ledger.replace(Version::new(1, self.seq), table.values().cloned().collect(), Instant::now());
            self.apply(update)
        }

        fn apply(&mut self, update: Update) -> Vec<InstanceId> {
            let slices = update.slices();
            slices.iter().for_each(|slice| slice.apply(&mut self.hosts));
            slices.into_iter().flat_map(|slice| slice.gone).collect()
        }

        fn app(&self, host: &str) -> &str {
            self.hosts[host].name.as_str()
        }

        fn instance(&self, host: &str, index: usize) -> Arc<Instance> {
            self.hosts[host].endpoints[index].instance.clone()
        }

        fn table(&self) -> Table {
            self.ledger.apps(None).iter().map(|app| (app.name.clone(), app.record())).collect()
        }
    }

    #[test]
    fn an_address_is_its_newest_owner_s() {
        let at = |app: &str, instance: u64, port: u16| {
            let mut routes = routes(app, &[&format!("{app}.x")], &[instance]);
            routes.endpoints[0].addr = format!("127.0.0.1:{port}");
            set(routes)
        };
        let now = Instant::now();
        let mut both = Both::default();
        both.change(vec![at("a", 1, 80)], now);
        let gone = both.change(vec![at("b", 2, 80)], now);
        assert_eq!(gone, [InstanceId::from_bits(1)], "its connections are closed");
        let (older, newer) = (both.instance("a.x", 0), both.instance("b.x", 0));
        assert!(older.is_dispossessed() && !newer.is_dispossessed());
        both.change(vec![end("b")], now);
        assert!(older.is_dispossessed(), "that b is gone gives a nothing back");
        both.change(vec![at("a", 1, 81)], now);
        assert!(!older.is_dispossessed(), "it is somewhere else");
        both.change(vec![at("c", 3, 82), at("d", 4, 82)], now);
        assert!(!both.instance("c.x", 0).is_dispossessed() && !both.instance("d.x", 0).is_dispossessed());
        both.change(vec![at("a", 5, 81)], now);
        assert!(!both.instance("a.x", 0).is_dispossessed(), "a port that is used again");
    }

    #[test]
    fn hosts_follow_the_apps() {
        let mut both = Both::default();
        let now = Instant::now();
        both.change(vec![set(routes("a", &["a.x", "Shop.x"], &[1]))], now);
        assert_eq!(both.app("shop.x"), "a");
        // The domain moves in one step.
        both.change(vec![set(routes("a", &["a.x"], &[1])), set(routes("b", &["b.x", "shop.x"], &[2]))], now);
        assert_eq!(both.app("shop.x"), "b");
        both.change(vec![end("b")], now);
        assert_eq!(both.hosts.keys().map(|host| &**host).collect::<Vec<_>>(), ["a.x"]);
    }

    #[test]
    fn a_host_that_several_apps_claim_goes_to_the_next_when_one_leaves() {
        let mut both = Both::default();
        let now = Instant::now();
        let all = ["b", "a", "c"].map(|app| set(routes(app, &["x.y", "x.y"], &[])));
        both.change(all.into(), now);
        for app in ["a", "b", "c"] {
            assert_eq!(both.app("x.y"), app);
            // What is changed keeps its place.
            both.change(vec![set(routes(app, &["x.y"], &[1]))], now);
            assert_eq!(both.app("x.y"), app);
            assert_eq!(both.hosts["x.y"].endpoints.len(), 1);
            both.change(vec![end(app)], now);
        }
        assert!(both.hosts.is_empty());
    }

    #[test]
    fn an_instance_keeps_its_state_and_is_counted_after_it_left() {
        let mut both = Both::default();
        let now = Instant::now();
        both.change(vec![set(routes("a", &["a.x"], &[1, 2]))], now);
        let first = both.instance("a.x", 0);
        let request = InFlight::new(&first);
        assert_eq!(both.change(vec![set(routes("a", &["a.x"], &[2]))], now), [InstanceId::from_bits(1)]);
        both.ledger.confirm(Version::new(1, 2));
        assert_eq!(both.ledger.in_flight(), BTreeMap::from([(InstanceId::from_bits(1), 1)]));
        // It comes back while a request is still in flight.
        both.change(vec![set(routes("a", &["a.x"], &[1, 2]))], now);
        assert!(Arc::ptr_eq(&both.instance("a.x", 0), &first));
        assert!(both.ledger.in_flight().is_empty());
        both.change(vec![set(routes("a", &["a.x"], &[2]))], now);
        drop(request);
        // Not forgotten before every worker has the table without it: a worker may still choose it.
        assert!(both.ledger.in_flight().is_empty());
        assert_eq!(both.ledger.leaving.len(), 1);
        both.ledger.confirm(Version::new(1, 4));
        both.ledger.in_flight();
        assert!(both.ledger.leaving.is_empty());
    }

    #[test]
    fn an_instance_that_two_apps_name_is_gone_when_neither_does() {
        let mut both = Both::default();
        let now = Instant::now();
        both.change(vec![set(routes("a", &["a.x"], &[1])), set(routes("b", &["b.x"], &[1]))], now);
        let first = both.instance("a.x", 0);
        assert!(both.change(vec![end("a")], now).is_empty());
        // In one change it moves on.
        assert!(both.change(vec![end("b"), set(routes("c", &["c.x"], &[1]))], now).is_empty());
        assert!(Arc::ptr_eq(&both.instance("c.x", 0), &first));
        assert_eq!(both.change(vec![end("c")], now), [InstanceId::from_bits(1)]);
    }

    #[test]
    fn counters_outlive_their_release_for_a_while() {
        let mut both = Both::default();
        let start = Instant::now();
        both.change(vec![set(routes("a", &["a.x"], &[1, 2]))], start);
        let news = crate::table::News::default();
        news.answered(&both.hosts["a.x"].endpoints[0].stats, http::StatusCode::NOT_FOUND, Duration::ZERO);
        let counted = |both: &Both| both.ledger.stats().iter().filter_map(|one| one.read()).collect::<Vec<_>>();
        both.change(vec![set(routes("a", &["a.x"], &[]))], start + Duration::from_secs(60));
        assert_eq!(counted(&both).iter().map(|one| one.answers).collect::<Vec<_>>(), [[0, 0, 0, 1, 0]]);
        both.change(vec![set(routes("a", &["a.x"], &[3]))], start + Duration::from_secs(120));
        both.change(vec![], start + KEEP_COUNTERS * 2);
        assert_eq!(counted(&both).len(), 1, "the same release goes on counting");
        both.change(vec![end("a")], start + KEEP_COUNTERS * 2);
        both.change(vec![], start + KEEP_COUNTERS * 4);
        assert!(counted(&both).is_empty());
    }

    #[test]
    fn a_whole_table_is_what_was_published_however_it_came_about() {
        let tables = [
            vec![routes("a", &["a.x", "shop.x"], &[1, 2]), routes("b", &["b.x"], &[3])],
            vec![routes("b", &["b.x", "shop.x"], &[3, 4]), routes("c", &["c.x"], &[])],
            (0..1_200_u64).map(|n| routes(&format!("a{n}"), &[&format!("a{n}.x")], &[n])).collect(),
            vec![],
        ];
        let mut both = Both::default();
        for apps in tables.iter().chain(tables.iter().rev()) {
            let table: Table = apps.iter().map(|routes| (routes.app.clone(), routes.clone())).collect();
            both.replace(&table);
            assert_eq!(both.table(), table);
            let hosts: BTreeMap<_, _> = both.hosts.iter().map(|(host, app)| (&**host, app.name.as_str())).collect();
            let wanted = apps.iter().flat_map(|one| one.domains.iter().map(|host| (host.as_str(), one.app.as_str())));
            assert_eq!(hosts, wanted.collect());
            let before = both.hosts.clone();
            assert!(both.replace(&table).is_empty());
            assert!(both.hosts.iter().all(|(host, app)| Arc::ptr_eq(app, &before[host])), "what is alike stays");
        }
        both.replace(&Table::new());
        assert!(both.hosts.is_empty() && both.ledger.instances.is_empty());
    }
}
