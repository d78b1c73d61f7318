//! The modelled cluster around a core: agents, routers, Redis, the database, and a network that may fail.

use super::agent::{Agent, SentOrders};
use super::mail::{Message, Network};
use super::router::Router;
use crate::config::ServerConfig;
use crate::core::{self, Actions, Desired, DesiredNode, Event, NodeOrders, Reign, Settings, StopOrder, Tick};
use crate::tickets::Keys;
use dinp_common::api::ProvedRevision;
use dinp_common::api::agent::Registered;
use dinp_common::api::people::DeploymentState;
use dinp_common::credentials::Secret;
use dinp_common::model::{AppName, InstanceId, NodeName, Version};
use dinp_common::routes::Table;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const CLUSTER: &str = "sim";
/// Granularity of time.
pub const STEP_MS: u64 = 50;

/// Time between two looks at the database.
const LOOK_MS: u64 = 200;

/// Time between two looks at Redis.
const MEND_MS: u64 = 10_000;
/// Time after which a publication without an answer has failed.
const PUBLISH_MS: u64 = 2_000;

/// Seeded random numbers (splitmix64).
#[derive(Debug, Clone)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// A leader: a reign, and what the tasks around it know.
pub struct Leader {
    pub reign: Reign,
    pub epoch: u64,
    pub holder: String,
    seq: u64,
    /// A table on its way to Redis.
    publishing: Option<(Tick, Table)>,
    pub orders: BTreeMap<NodeName, NodeOrders>,
    desired_at: Tick,
    adopt_at: Option<Tick>,
    routers_at: Option<Tick>,
}

pub struct World {
    pub now: Tick,
    pub dice: Dice,
    pub network: Network,
    pub agents: BTreeMap<NodeName, Agent>,
    pub routers: BTreeMap<String, Router>,
    pub redis: Option<(Version, Table)>,
    /// The highest revision that stands beside the table.
    redis_revision: ProvedRevision,
    pub redis_down: bool,
    pub database: Desired,
    pub known_routers: BTreeSet<String>,
    pub broken: BTreeSet<u64>,
    pub flaky: BTreeSet<u64>,
    pub leader: Leader,
    keys: Arc<Keys>,
    pub request_ms: u64,
    /// Instances whose stop was ordered since the last look.
    pub ordered_to_stop: Vec<InstanceId>,
    pub deployment_log: Vec<(u64, DeploymentState, String)>,
    /// The events so far.
    pub told: Vec<Event>,
    /// Orders, tables, updates and events put out so far.
    pub put_out: usize,
    pub last_put_out: Tick,
    pub(super) mail: Vec<(Tick, u64, Message)>,
    pub(super) mailed: u64,
    pub trace: Vec<String>,
    /// When the core wants to decide at the latest.
    wake: Tick,
    /// Whether something has come in since it decided.
    pub news: bool,
    pub holdover: bool,
    /// Until when Redis does not answer, whether it takes what is published or not.
    pub redis_hangs_until: Tick,
    /// When Redis last did not answer: what arrives of it then may be older than what was seen before.
    pub redis_troubled_at: Tick,
    /// Whether a trace is kept: for the one history that failed.
    pub traced: bool,
}

pub fn app(name: &str) -> AppName {
    name.parse().unwrap()
}

pub fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// The servers' keys, to begin with.
fn keys() -> Arc<Keys> {
    let text = Secret::new("k1:0000000000000000000000000000000000000000000000000000000000000001");
    Arc::new(Keys::parse(&text).unwrap())
}

fn lead(settings: Settings, keys: Arc<Keys>, seed: u64, epoch: u64, now: Tick) -> Leader {
    let holder = format!("server-{epoch}");
    let own = core::Leader { cluster: CLUSTER.to_owned(), epoch, holder: holder.clone(), since: now };
    Leader {
        reign: Reign::begin(settings, keys, own, seed),
        epoch,
        holder,
        seq: 0,
        publishing: None,
        orders: BTreeMap::new(),
        desired_at: now,
        adopt_at: Some(now),
        routers_at: Some(now),
    }
}

impl World {
    /// A cluster of nodes (name, memory) and routers on an ideal network.
    pub fn new(seed: u64, nodes: &[(&str, u32)], routers: usize) -> Self {
        let config = ServerConfig::default();
        let settings = Settings { host_reserve_memory_mb: 0, ..Settings::of(&config, "apps.localhost") };
        let mut database = Desired { revision: 1, ..Desired::default() };
        let mut agents = BTreeMap::new();
        for (index, (name, memory_mb)) in nodes.iter().enumerate() {
            let address = format!("10.0.0.{}", index + 1);
            let wanted = DesiredNode {
                name: node(name),
                address,
                zone: String::new(),
                cordoned: false,
                registered: Registered::default(),
            };
            database.nodes.insert(node(name), wanted);
            agents.insert(node(name), Agent::new(name, *memory_mb));
        }
        let routers = (1..=routers).map(|n| (format!("router{n}"), Router::new(&format!("router{n}"), 0))).collect();
        let leader = lead(settings, keys(), seed, 1, 0);
        Self {
            now: 0,
            dice: Dice(seed),
            network: Network::default(),
            agents,
            routers,
            redis: None,
            redis_revision: ProvedRevision::default(),
            redis_down: false,
            database,
            known_routers: BTreeSet::new(),
            broken: BTreeSet::new(),
            flaky: BTreeSet::new(),
            leader,
            keys: keys(),
            request_ms: 0,
            ordered_to_stop: Vec::new(),
            deployment_log: Vec::new(),
            told: Vec::new(),
            put_out: 0,
            last_put_out: 0,
            mail: Vec::new(),
            mailed: 0,
            trace: Vec::new(),
            wake: 0,
            news: true,
            holdover: false,
            redis_hangs_until: 0,
            redis_troubled_at: 0,
            traced: std::env::var_os("DINP_SIM_TRACE").is_some(),
        }
    }

    pub fn reign(&mut self) -> &mut Reign {
        &mut self.leader.reign
    }

    /// The servers lose their keys: what runs carries tickets of another one.
    pub fn change_keys(&mut self) {
        let text = Secret::new("k2:0000000000000000000000000000000000000000000000000000000000000002");
        self.keys = Arc::new(Keys::parse(&text).unwrap());
    }

    /// Another server leads from now on; it reads Redis and the database after these delays.
    pub fn change_leader(&mut self, adopt_after: u64, desired_after: u64) {
        let settings = self.leader.reign.settings().clone();
        let seed = self.dice.next();
        let epoch = self.leader.epoch + 1;
        self.note(|| format!("leader of epoch {epoch}"));
        self.leader = lead(settings, self.keys.clone(), seed, epoch, self.now);
        self.leader.desired_at = self.now + desired_after;
        self.leader.routers_at = Some(self.now + desired_after);
        self.news = true;
        self.leader.adopt_at = Some(self.now + adopt_after);
    }

    /// A backup of the database was restored: the leader's epoch is one that agents have seen before.
    pub fn step_back_to(&mut self, epoch: u64) {
        self.leader.epoch = epoch - 1;
        self.change_leader(0, 0);
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if self.traced {
            self.trace.push(format!("{:>8} {}", self.now, text()));
        }
    }

    /// Desired state changed: the leader reads it.
    pub fn commit(&mut self) {
        self.database.revision += 1;
        self.show();
    }

    /// The database is what it was once.
    pub fn restore(&mut self, dump: Desired) {
        let lost = std::mem::replace(&mut self.database, dump).revision;
        self.note(|| format!("the database is as it was before revision {lost}"));
        self.show();
    }

    /// A person wants desired state carried out though it is older than what runs. False where nothing was held.
    pub fn resume(&mut self) -> bool {
        let Some(highest) = self.leader.reign.resume() else { return false };
        self.note(|| format!("resume past revision {highest}"));
        self.database.revision = self.database.revision.max(highest);
        self.commit();
        true
    }

    fn show(&mut self) {
        self.news = true;
        if self.leader.desired_at <= self.now {
            let (desired, now) = (self.database.clone(), self.now);
            self.leader.reign.desired(desired, now);
        }
    }

    pub fn run(&mut self, millis: u64) {
        let end = self.now + millis;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until it holds; panics when it does not within that time.
    #[track_caller]
    pub fn until(&mut self, millis: u64, what: &str, mut holds: impl FnMut(&World) -> bool) {
        let end = self.now + millis;
        while !holds(self) {
            assert!(self.now < end, "not within {millis} ms: {what}\n{}", self.picture());
            self.step();
        }
    }

    pub fn step(&mut self) {
        self.now += STEP_MS;
        let now = self.now;
        if self.redis_down || now < self.redis_hangs_until {
            self.redis_troubled_at = now;
        }
        for agent in self.agents.values_mut() {
            agent.step(now);
        }
        self.deliver();
        self.send_reports();
        self.route();
        self.lead_step();
    }

    fn lead_step(&mut self) {
        let now = self.now;
        self.leader.reign.holdover(self.holdover);
        if self.leader.adopt_at.is_some_and(|at| at <= now) && !self.redis_down {
            self.leader.adopt_at = None;
            let table = self.redis.as_ref().map(|(_, table)| table.clone()).unwrap_or_default();
            self.news = true;
            self.leader.reign.adopt_routes(table, &self.redis_revision);
        }
        if self.leader.routers_at.take_if(|at| *at <= now).is_some() {
            let known = self.known_routers.iter().map(|name| (name.clone(), format!("http://{name}:1982"))).collect();
            self.news = true;
            self.leader.reign.routers_known(known, now);
        }
        if self.leader.desired_at <= now && self.leader.reign.current_desired().is_none() {
            self.news = true;
            self.leader.reign.desired(self.database.clone(), now);
        }
        let shown = self.leader.reign.current_desired().map(|desired| desired.revision);
        if now.is_multiple_of(LOOK_MS) && self.leader.desired_at <= now && shown == Some(self.database.revision) {
            self.leader.reign.desired_stands(now);
        }
        if now.is_multiple_of(MEND_MS)
            && self.redis.as_ref().is_some_and(|(version, _)| version.epoch == self.leader.epoch)
        {
            self.redis_revision = self.leader.reign.highest_revision().clone();
        }
        self.publish();
        // Decide when something has come in or time is up, as the shell does.
        if !self.news && now < self.wake && !now.is_multiple_of(500) {
            return;
        }
        self.news = false;
        let actions = self.leader.reign.decide(now);
        if self.dice.percent(20) {
            let more = self.leader.reign.decide(now);
            assert!(
                more.is_empty(),
                "deciding twice did something twice: {more:?}\nfirst {actions:?}\n{}",
                self.picture()
            );
        }
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Actions) {
        let now = self.now;
        if !actions.is_empty() {
            self.put_out += 1;
            self.last_put_out = now;
        }
        self.wake = actions.next_wake;
        let has_orders = !actions.orders.is_empty();
        for (name, orders) in actions.orders {
            self.note(|| format!("orders {name} {orders:?}"));
            let before = self.leader.orders.get(&name).map_or(&[][..], |orders| &orders.stop);
            let is_new = |stop: &&StopOrder| !before.iter().any(|other| other.instance == stop.instance);
            self.ordered_to_stop.extend(orders.stop.iter().filter(is_new).map(|stop| stop.instance.clone()));
            self.leader.orders.insert(name, orders);
        }
        if let Some(table) = actions.routes {
            let delay = self.delay();
            let hangs = now < self.redis_hangs_until;
            self.leader.publishing = Some((now + if hangs { PUBLISH_MS } else { delay }, table));
        }
        for update in actions.deployments {
            self.note(|| format!("deployment {update:?}"));
            self.write(&update);
        }
        for event in actions.events {
            self.note(|| format!("event {event:?}"));
            self.told.push(event);
        }
        // Long polls: each agent that has an older version is given the orders, until it has them.
        if has_orders || now.is_multiple_of(500) {
            for (name, orders) in self.leader.orders.clone() {
                let has = self.agents.get(&name).map(|agent| (agent.seen.epoch, agent.seen.generation));
                if has != Some((self.leader.epoch, orders.generation)) {
                    let (epoch, holder) = (self.leader.epoch, self.leader.holder.clone());
                    let proof = self.keys.proof(CLUSTER, epoch, &holder);
                    let highest_revision = self.leader.reign.highest_revision().clone();
                    let sent = SentOrders { epoch, proof, holder, highest_revision, orders };
                    self.mail(Message::Orders(name, Box::new(sent)));
                }
            }
        }
    }

    fn write(&mut self, update: &crate::core::DeploymentUpdate) {
        self.deployment_log.push((update.id, update.state, update.reason.clone()));
        let Some(app) = self.database.apps.get_mut(&update.app) else { return };
        app.older_deployments.retain(|id| *id != update.id || !update.state.is_final());
        if let Some(release) = update.release_in_force {
            app.release = Some(release);
        }
        if let Some(deployment) = app.deployment.as_mut().filter(|one| one.id == update.id) {
            deployment.state = update.state;
            deployment.previous = update.previous.or(deployment.previous);
            if update.state.is_final() {
                app.deployment = None;
            }
        }
        self.commit();
    }

    fn publish(&mut self) {
        let now = self.now;
        let Some((_, table)) = self.leader.publishing.take_if(|(due, _)| *due <= now) else { return };
        self.news = true;
        self.leader.seq += 1;
        let version = Version::new(self.leader.epoch, self.leader.seq);
        let hangs = now < self.redis_hangs_until;
        if (self.redis_down && self.dice.percent(80)) || (hangs && self.dice.percent(50)) {
            self.leader.reign.routes_failed(now);
            return;
        }
        self.note(|| format!("published {version}: {:?}", shorten(&table)));
        self.redis = Some((version, table));
        self.redis_revision = self.leader.reign.highest_revision().clone();
        match self.redis_down || hangs {
            true => self.leader.reign.routes_failed(now),
            false => self.leader.reign.routes_published(version, now),
        }
    }

    fn route(&mut self) {
        let now = self.now;
        let (longest, dice) = (self.request_ms, &mut self.dice);
        for router in self.routers.values_mut() {
            if let Some(head) = self.redis.as_ref().filter(|_| !self.redis_down) {
                router.follow(head, now, || dice.below(longest + 1));
            }
        }
        let mut said = Vec::new();
        for router in self.routers.values_mut() {
            said.extend(router.report(now).filter(|_| router.cut_off_since.is_none()));
        }
        for (name, _) in self.leader.reign.routers_to_read(now) {
            let reachable = self.routers.get(&name).filter(|router| router.up && router.cut_off_since.is_none());
            if let Some(status) = reachable.map(Router::status) {
                self.leader.reign.router_report(&status, now);
            }
        }
        for report in said {
            self.mail(Message::Router(Box::new(report)));
        }
    }

    fn send_reports(&mut self) {
        let now = self.now;
        let mut reports = Vec::new();
        for (name, agent) in &mut self.agents {
            if let Some(report) = agent.report(CLUSTER, now).filter(|_| !agent.cut_off) {
                reports.push(Message::Report(name.clone(), Box::new(report)));
            }
        }
        for message in reports {
            self.mail(message);
        }
    }
}

pub fn shorten(table: &Table) -> Vec<String> {
    let one = |routes: &dinp_common::routes::AppRoutes| {
        let ids: Vec<String> = routes
            .endpoints
            .iter()
            .map(|one| {
                format!(
                    "{}{}",
                    one.instance.short(),
                    if one.state == dinp_common::routes::EndpointState::Suspect { "?" } else { "" }
                )
            })
            .collect();
        format!("{} {ids:?}", routes.app)
    };
    table.values().map(one).collect()
}
