//! The route table: what it says now, what was handed out, what is published, and what each version means for the
//! instances that came into it or left it.
//!
//! One table at a time is on its way to Redis. As long as it is not known to be there, neither what it added nor what
//! it took away counts; after a failure nobody knows, and a table is handed out again, changed or not.

use super::fleet::{Condition, Gone, Instance};
use super::{Desired, DesiredApp, Reign, Tick};
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::InstanceState;
use dinp_common::model::{AppName, InstanceId, NodeName, Version};
use dinp_common::routes::{AppRoutes, Endpoint, EndpointState, RouteOptions, RouteState, Table};
use std::collections::{BTreeMap, BTreeSet};

/// Share of each endpoint: all alike, with room below for less.
const WEIGHT: u32 = 100;

/// What was handed out and what is published.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    /// Table of the leader before, as read from Redis, until it was taken in.
    adopted: Option<Table>,
    /// Whether Redis has been read.
    was_adopted: bool,
    /// The same, for as long as this leader may not take anything out of it.
    floor: Option<Table>,
    /// The same: where an app without a row has its domains from, until a table was handed out.
    previous: Option<Table>,
    /// Instances in it.
    was_routed: BTreeSet<InstanceId>,
    /// Endpoints of the table before whose node is not known.
    strays: BTreeMap<InstanceId, (AppName, Endpoint)>,
    /// Last table that was handed out.
    handed: Option<Table>,
    /// It is on its way.
    outstanding: bool,
    /// Nobody knows whether it arrived.
    unsure: bool,
    /// No table is handed out before.
    retry_at: Option<Tick>,
    /// Last table that is known to be in Redis.
    published: Option<(Version, Table)>,
    published_at: Tick,
    /// Instances in it.
    routed: BTreeSet<InstanceId>,
    /// Instances in tables that were handed out since.
    handed_out: BTreeSet<InstanceId>,
}

impl RouteTable {
    /// The version that is published last, and when it was.
    pub(super) fn published(&self) -> Option<(Version, Tick)> {
        self.published.as_ref().map(|(version, _)| (*version, self.published_at))
    }

    /// Whether the table that is published last holds the instance: until this leader has published one, that of the
    /// leader before.
    pub(super) fn holds(&self, id: &InstanceId) -> bool {
        if self.published.is_some() { &self.routed } else { &self.was_routed }.contains(id)
    }

    /// Whether the table of the leader before was read: until then nobody knows which instances are in use.
    pub(super) fn is_known(&self) -> bool {
        self.was_adopted
    }

    /// The endpoint of an instance in the last table that was handed out, or that the leader before has left.
    fn endpoint_before(&self, instance: &Instance) -> Option<&Endpoint> {
        let table = self.handed.as_ref().or(self.previous.as_ref())?;
        table.get(&instance.app)?.endpoints.iter().find(|endpoint| endpoint.instance == instance.id)
    }

    /// When time alone allows another table.
    pub(super) fn wake(&self) -> Option<Tick> {
        self.retry_at
    }

    /// Whether some table that routers may have after the published one holds the instance.
    pub(super) fn may_hold(&self, id: &InstanceId) -> bool {
        self.routed.contains(id) || self.handed_out.contains(id)
    }

    /// The version that is known to be without the instance now.
    pub(super) fn version_without(&self, id: &InstanceId) -> Option<Version> {
        let (version, _) = self.published.as_ref()?;
        (!self.may_hold(id)).then_some(*version)
    }
}

fn instances_of(table: &Table) -> BTreeSet<InstanceId> {
    table.values().flat_map(|routes| &routes.endpoints).map(|endpoint| endpoint.instance.clone()).collect()
}

/// `host:port`, with brackets around an IPv6 address.
fn join(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn host_of(addr: &str) -> &str {
    let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

impl Reign {
    /// Takes in the table of the leader before and the highest revision that it names, read from Redis (an empty one if
    /// there is none). To be called once
    /// as soon as Redis can be read: it keeps the endpoints of nodes that are not heard, and no table is
    /// handed out before. An empty one makes the first table wait until every known node was heard or is lost.
    pub fn adopt_routes(&mut self, table: Table, highest: &ProvedRevision) {
        self.heed_revision(highest);
        self.table.was_adopted = true;
        if self.table.published.is_none() && !table.is_empty() {
            self.table.adopted = Some(table);
        }
    }

    /// The shell has written the table of the last decision under this version.
    pub fn routes_published(&mut self, version: Version, now: Tick) {
        let Some(table) = self.table.handed.clone().filter(|_| self.table.outstanding) else { return };
        self.table.published_at = now;
        self.table.outstanding = false;
        self.table.unsure = false;
        self.table.retry_at = None;
        let next = instances_of(&table);
        // A table that was handed out and failed may have arrived all the same: what it held leaves only now.
        let mut before = std::mem::take(&mut self.table.handed_out);
        before.append(&mut self.table.routed);
        self.table.routed = next;
        self.table.published = Some((version, table));
        let left = |id: &InstanceId, left: Option<Version>| left.filter(|_| !before.contains(id)).or(Some(version));
        for instance in self.fleet.instances_mut() {
            if self.table.routed.contains(&instance.id) {
                instance.entered = instance.entered.or(Some(version));
                instance.left = None;
            } else {
                instance.left = left(&instance.id, instance.left);
                instance.entered = None;
            }
        }
        for (id, gone) in self.fleet.gone_mut() {
            gone.left = match self.table.routed.contains(id) {
                true => None,
                false => left(id, gone.left),
            };
        }
    }

    /// The shell could not write the table, or does not know whether it did: the next decision hands one out again.
    pub fn routes_failed(&mut self, now: Tick) {
        self.table.unsure |= self.table.outstanding;
        self.table.outstanding = false;
        self.table.retry_at = Some(now + self.settings.publish_retry_ms);
    }

    /// The table that was published last: for the comparison with what Redis holds.
    pub fn published(&self) -> Option<(Version, &Table)> {
        self.table.published.as_ref().map(|(version, table)| (*version, table))
    }

    /// Takes in the table of the leader before, whose endpoints stay until their nodes are heard.
    pub(super) fn take_adopted(&mut self, desired: &Desired, now: Tick) {
        if let Some(table) = self.table.adopted.take() {
            for (app, routes) in &table {
                let endpoints = routes.endpoints.iter();
                self.table.strays.extend(endpoints.map(|one| (one.instance.clone(), (app.clone(), one.clone()))));
            }
            self.table.was_routed = instances_of(&table);
            self.table.floor = (!self.permission.is_settled()).then(|| table.clone());
            self.table.previous = Some(table);
        }
        self.place_strays(desired, now);
    }

    /// Makes instances of the endpoints whose node is known by now; one that was heard has named all that it has.
    fn place_strays(&mut self, desired: &Desired, now: Tick) {
        for (id, (app, endpoint)) in std::mem::take(&mut self.table.strays) {
            let host = host_of(&endpoint.addr);
            let at = |address: &str| address.trim_start_matches('[').trim_end_matches(']') == host;
            let node = desired.nodes.values().find(|node| at(&node.address)).map(|node| node.name.clone());
            let heard = |node: &NodeName| self.fleet.node(node).is_some_and(|node| node.synced);
            match node {
                _ if self.fleet.get(&id).is_some() => {}
                Some(node) if heard(&node) => {}
                Some(node) => {
                    let left = self.table.version_without(&id);
                    let mut instance = Instance::new(id, app, endpoint.release, node, now);
                    instance.maybe_routed = true;
                    instance.left = left;
                    instance.was_ready = true;
                    instance.inherited = Some(endpoint);
                    self.fleet.insert(instance);
                }
                None => {
                    self.table.strays.insert(id, (app, endpoint));
                }
            }
        }
    }

    /// Hands out the table, when it is another one than before.
    pub(super) fn next_table(&mut self, desired: &Desired, now: Tick) -> Option<Table> {
        if self.permission.is_settled() {
            self.table.floor = None;
        }
        let is_early = self.table.retry_at.is_some_and(|at| now < at);
        if is_early
            || self.table.outstanding
            || !self.table.was_adopted
            || (!self.permission.is_settled() && self.table.floor.is_none())
        {
            return None;
        }
        let table = self.build_table(desired, now);
        if self.table.handed.as_ref() == Some(&table) && !self.table.unsure {
            return None;
        }
        let held = instances_of(&table);
        for id in &held {
            if let Some(instance) = self.fleet.get_mut(id) {
                instance.maybe_routed = true;
            }
        }
        self.table.handed_out.extend(held);
        self.table.outstanding = true;
        self.table.handed = Some(table.clone());
        Some(table)
    }

    fn build_table(&self, desired: &Desired, now: Tick) -> Table {
        let mut table = Table::new();
        let before = self.table.handed.as_ref().or(self.table.previous.as_ref());
        for app in desired.apps.values() {
            // Before it is settled, only what was there is there.
            match &self.table.floor {
                Some(floor) => {
                    if let Some(routes) = floor.get(&app.name) {
                        let endpoints = self.endpoints(desired, &app.name, Some(app), now);
                        table.insert(app.name.clone(), AppRoutes { endpoints, ..routes.clone() });
                    }
                }
                None => match before.and_then(|before| before.get(&app.name)) {
                    // Of a desired state that is older than the table nothing goes into it.
                    Some(routes) if self.permission.is_behind() => {
                        let endpoints = self.endpoints(desired, &app.name, Some(app), now);
                        table.insert(app.name.clone(), AppRoutes { endpoints, ..routes.clone() });
                    }
                    _ if app.deleted => {}
                    _ => {
                        table.insert(app.name.clone(), self.routes_of(desired, app, now));
                    }
                },
            }
        }
        // An app whose row is missing keeps what it had for as long as anything of it is there.
        for (name, routes) in before.into_iter().flatten().filter(|(name, _)| !desired.apps.contains_key(*name)) {
            let endpoints = self.endpoints(desired, name, None, now);
            if self.fleet.has_any_of(name) || !endpoints.is_empty() || self.table.floor.is_some() {
                table.insert(name.clone(), AppRoutes { endpoints, ..routes.clone() });
            }
        }
        table
    }

    fn routes_of(&self, desired: &Desired, app: &DesiredApp, now: Tick) -> AppRoutes {
        let own = format!("{}.{}", app.name, self.settings.domain);
        let others = app.domains.iter().map(|domain| domain.as_str().to_owned()).filter(|domain| *domain != own);
        AppRoutes {
            app: app.name.clone(),
            state: if app.started { RouteState::Started } else { RouteState::Stopped },
            domains: std::iter::once(own.clone()).chain(others).collect(),
            options: RouteOptions::default(),
            endpoints: self.endpoints(desired, &app.name, Some(app), now),
        }
    }

    /// Where to send requests of an app: what serves; what a silent node may still serve, until it is replaced; what
    /// is doubted, where too much would be missing without it.
    /// An instance of a release that is not in force yet comes in when it has proved itself; at once where nothing
    /// else serves, and then it stays in.
    fn endpoints(&self, desired: &Desired, name: &AppName, app: Option<&DesiredApp>, now: Tick) -> Vec<Endpoint> {
        let in_force = app.and_then(|app| self.in_force(app));
        let is_new = |one: &Instance| in_force.is_some_and(|release| release != one.release);
        let is_unproved = |one: &Instance| is_new(one) && !one.is_proved();
        let (mut ready, mut doubted, mut silent, mut unproved) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for instance in self.fleet.of_app(name).filter(|instance| instance.is_wanted()) {
            let Some(endpoint) = self.endpoint(desired, instance) else { continue };
            match endpoint.state {
                EndpointState::Ready if is_unproved(instance) => {
                    unproved.push((endpoint, self.table.endpoint_before(instance).is_some()));
                }
                EndpointState::Suspect => silent.push(endpoint),
                EndpointState::Ready if self.is_doubted(instance, now) => doubted.push(endpoint),
                EndpointState::Ready => ready.push(endpoint),
            }
        }
        let strays = self.table.strays.values().filter(|(app, _)| app == name);
        silent.extend(strays.map(|(_, endpoint)| Endpoint { state: EndpointState::Suspect, ..endpoint.clone() }));
        let wanted = app.map_or(usize::MAX, |app| self.count(app) as usize);
        let keeps_all = self.permission.frozen().is_some() || !self.permission.is_settled();
        let half_is_doubted = doubted.len() * 2 > doubted.len() + ready.len();
        if half_is_doubted || keeps_all {
            ready.append(&mut doubted);
        }
        // What has proved nothing takes nobody's place, not even that of what is silent.
        let is_short = ready.len() < wanted;
        let nothing_serves = ready.is_empty();
        let comes_in = unproved.into_iter().filter(|(_, is_in)| *is_in || nothing_serves);
        ready.extend(comes_in.map(|(endpoint, _)| endpoint));
        if is_short || keeps_all {
            ready.append(&mut silent);
        }
        ready.sort_by(|a, b| a.instance.cmp(&b.instance));
        ready
    }

    fn endpoint(&self, desired: &Desired, instance: &Instance) -> Option<Endpoint> {
        if !matches!(instance.state(), InstanceState::Ready | InstanceState::Unfit) {
            return None;
        }
        let condition = self.fleet.condition(&instance.node);
        let state = match condition {
            Condition::Ready | Condition::Restarting => EndpointState::Ready,
            // Not heard yet is no ground for doubt.
            Condition::Unknown => EndpointState::Ready,
            Condition::Suspect | Condition::Lost => EndpointState::Suspect,
        };
        if let Some(inherited) = &instance.inherited {
            return Some(Endpoint { state, ..inherited.clone() });
        }
        if !self.is_ours(instance) {
            return None;
        }
        let Some(node) = desired.nodes.get(&instance.node) else {
            // A missing row takes nothing out of the table; a deleted one does.
            let before = self.table.endpoint_before(instance);
            let before = before.filter(|_| !desired.deleted_nodes.contains(&instance.node))?;
            return Some(Endpoint { state, ..before.clone() });
        };
        Some(Endpoint {
            instance: instance.id.clone(),
            release: instance.release,
            addr: join(&node.address, instance.port()?),
            zone: node.zone.clone(),
            weight: WEIGHT,
            state,
        })
    }

    /// Whether no order of the leader before can still stop the instance. Until its node has accepted this leader, only
    /// what was routed before is routed: anything else may have been taken out in order to be stopped.
    fn is_ours(&self, instance: &Instance) -> bool {
        let was_routed = self.table.was_routed.contains(&instance.id);
        let accepted = |node| self.has_acknowledged(node);
        let is_own = instance.ordered_in.is_some() || instance.entered.is_some();
        is_own || self.fleet.node(&instance.node).is_some_and(accepted) || was_routed
    }

    /// Whether requests reach the instance for sure: it is ready, and every live router has it in its table.
    pub(super) fn serves(&self, instance: &Instance, now: Tick) -> bool {
        instance.is_wanted()
            && instance.state() == InstanceState::Ready
            && self.fleet.node(&instance.node).is_some_and(|node| node.is_heard())
            && !self.is_doubted(instance, now)
            && instance.entered.is_some_and(|version| self.is_confirmed(version, now))
    }

    /// Keeps track of held ports of instances that this leader has never known.
    pub(super) fn note_held_ports(&mut self, name: &NodeName) {
        let Some(ports) = self.fleet.node(name).map(|node| node.held.clone()) else { return };
        for held in &ports {
            if self.fleet.knows(&held.instance) {
                continue;
            }
            let left = self.table.version_without(&held.instance);
            self.fleet.hold_port(held.instance.clone(), Gone { node: name.clone(), left });
        }
        let held: BTreeSet<&InstanceId> = ports.iter().map(|held| &held.instance).collect();
        let routed = &self.table;
        let is_over = |id: &InstanceId, gone: &Gone| gone.node == *name && !held.contains(id) && !routed.may_hold(id);
        self.fleet.forget_gone(is_over);
    }

    /// Ports of a node that nobody can send to any more.
    pub(super) fn free_ports(&self, name: &NodeName) -> Vec<InstanceId> {
        let Some(node) = self.fleet.node(name) else { return Vec::new() };
        let is_free = |id: &InstanceId| {
            let gone = self.fleet.gone(id);
            let left = gone.filter(|_| !self.table.may_hold(id)).and_then(|gone| gone.left);
            left.is_some_and(|version| self.is_confirmed_by_all(version))
        };
        let mut free: Vec<InstanceId> = node.held.iter().map(|held| held.instance.clone()).filter(is_free).collect();
        free.sort();
        free.dedup();
        free
    }
}
