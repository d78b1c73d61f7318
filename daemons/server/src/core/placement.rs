//! Choosing nodes. What is chosen is booked at once, so that the next choice of the same round sees it.

use super::fleet::{Condition, Instance, Node};
use super::{Desired, Reign, Tick};
use dinp_common::api::agent::Capacity;
use dinp_common::model::{AppName, InstanceId, NodeName, ReleaseSpec, Resources};
use std::cmp::Reverse;
use std::fmt;

/// Why no node takes an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    no_memory: usize,
    no_cpu: usize,
    cordoned: usize,
    missing: usize,
    docker_down: usize,
    faulty: usize,
    deaf: usize,
}

impl Refusal {
    /// Whether some node would do if there were less on it.
    pub(super) fn is_for_room(&self) -> bool {
        self.no_memory + self.no_cpu > 0
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.no_memory, "short of memory"),
            (self.no_cpu, "short of CPU"),
            (self.cordoned, "cordoned"),
            (self.missing, "not heard"),
            (self.docker_down, "without a usable Docker Engine"),
            (self.faulty, "with a fault of their own"),
            (self.deaf, "not accepting orders"),
        ];
        let words: Vec<String> =
            parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        match words.is_empty() {
            true => f.write_str("there is no node"),
            false => write!(f, "no node has room: {}", words.join(", ")),
        }
    }
}

/// The order in which nodes are taken: no instance that is to be left behind there, fewest of the release, fewest of
/// the app, most free memory, name.
type Score<'a> = (bool, usize, usize, Reverse<u32>, &'a NodeName);

impl Reign {
    /// What may be booked on a node: of what it reports, no more than it was registered with, less what its host needs.
    pub(super) fn bookable(&self, name: &NodeName, node: &Node) -> Capacity {
        let wanted = self.desired.as_deref().and_then(|desired| desired.nodes.get(name));
        let capacity = wanted.map_or(node.capacity, |wanted| wanted.registered.bound(node.capacity));
        let reserve = self.settings.host_reserve_memory_mb.min(capacity.memory_mb / 10);
        Capacity { memory_mb: capacity.memory_mb - reserve, cpu_millis: capacity.cpu_millis }
    }

    fn choose<'a>(
        &self,
        desired: &'a Desired,
        app: &AppName,
        spec: &ReleaseSpec,
        now: Tick,
    ) -> Result<&'a NodeName, Refusal> {
        let mut refusal = Refusal::default();
        let mut best: Option<Score<'a>> = None;
        for (name, wanted) in &desired.nodes {
            let Some(node) = self.fleet.node(name).filter(|node| node.condition == Condition::Ready) else {
                refusal.missing += 1;
                continue;
            };
            if !self.has_acknowledged(node) || self.is_deaf(node, now) {
                refusal.deaf += 1;
                continue;
            }
            if wanted.cordoned {
                refusal.cordoned += 1;
                continue;
            }
            if node.docker_error.is_some() {
                refusal.docker_down += 1;
                continue;
            }
            if !node.faults.is_empty() {
                refusal.faulty += 1;
                continue;
            }
            let (has, booked) = (self.bookable(name, node), self.fleet.booked(name));
            let Resources { memory_mb, cpu_millis, .. } = spec.resources;
            if booked.memory_mb.saturating_add(memory_mb) > has.memory_mb {
                refusal.no_memory += 1;
                continue;
            }
            if booked.cpu_millis.saturating_add(cpu_millis) > has.cpu_millis {
                refusal.no_cpu += 1;
                continue;
            }
            let here = || self.fleet.of_node(name).filter(|instance| instance.app == *app);
            let of_release = here().filter(|instance| instance.is_wanted() && instance.release == spec.id).count();
            let of_app = here().filter(|instance| instance.is_wanted()).count();
            let is_left = here().any(|instance| instance.doom.is_some());
            let free = has.memory_mb - booked.memory_mb;
            let score: Score<'a> = (is_left, of_release, of_app, Reverse(free), name);
            if best.as_ref().is_none_or(|best| score < *best) {
                best = Some(score);
            }
        }
        best.map(|(.., name)| name).ok_or(refusal)
    }

    /// Places one more instance of a release, or says why not.
    pub(super) fn place(
        &mut self,
        desired: &Desired,
        app: &AppName,
        spec: &ReleaseSpec,
        now: Tick,
    ) -> Result<InstanceId, Refusal> {
        let node = self.choose(desired, app, spec, now)?.clone();
        let fleet = &self.fleet;
        let id = self.ids.draw(|id| fleet.knows(id));
        let is_crashing =
            |other: &Instance| other.doom == Some(super::fleet::Doom::Crashing) && other.release == spec.id;
        let mut instance = Instance::new(id.clone(), app.clone(), spec.id, node.clone(), now);
        instance.relocated = self.fleet.of_app(app).any(is_crashing);
        instance.ordered_in = Some(self.orders.get(&node).map_or(0, |orders| orders.generation) + 1);
        instance.left = self.table.version_without(&id);
        instance.ticket = self.ticket_for(&instance);
        instance.book(spec.resources);
        self.fleet.insert(instance);
        self.news.change();
        self.event(Some(app), Some(&id), Some(&node), "start", format!("release {}", spec.number));
        Ok(id)
    }
}

/// Where the ids of instances come from: random numbers (splitmix64) from a seed.
#[derive(Debug)]
pub(super) struct InstanceIds(u64);

impl InstanceIds {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws an id that is not taken.
    fn draw(&mut self, is_taken: impl Fn(&InstanceId) -> bool) -> InstanceId {
        loop {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut bits = self.0;
            bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let id = InstanceId::from_bits(bits ^ (bits >> 31));
            if !is_taken(&id) {
                return id;
            }
        }
    }
}
