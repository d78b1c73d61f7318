//! One app's instances against what is wanted of it: what to place, what to withdraw, what to take back.
//!
//! Instances of the release that is the goal count towards the number wanted. All others, and those that are
//! condemned, are *leftovers*: as many of them are kept as serving instances of the goal are missing, the best first.
//! So a rolling deployment, its way back, and the replacement of what does not do well are one and the same rule:
//! nothing goes before what replaces it serves.

use super::fleet::{Condition, Instance};
use super::{Desired, DesiredApp, Reign, Tick};
use dinp_common::api::agent::InstanceState;
use dinp_common::model::{AppName, InstanceId, NodeName, ReleaseSpec};
use std::collections::BTreeMap;

/// How an app stands, for its deployment to go by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Instances of the goal that serve.
    pub serving: usize,
    /// Those of them that have proved themselves.
    pub proved: usize,
    /// Instances of the goal that are to run.
    pub present: usize,
    /// Leftovers whose stop was not ordered yet.
    pub leftovers: usize,
    /// Why something cannot be placed.
    pub refused: Option<String>,
}

/// One instance as the plan looks at it.
#[derive(Debug, Clone)]
struct Seen {
    id: InstanceId,
    node: NodeName,
    is_goal: bool,
    is_withdrawn: bool,
    is_ready: bool,
    is_down: bool,
    is_doubted: bool,
    serves: bool,
    /// Has ended by itself or failed to start.
    has_failed: bool,
    /// In the table that was published last.
    is_routed: bool,
    is_in_force: bool,
    is_proved: bool,
    /// Out of every router's table, and kept until the verdict.
    is_parked: bool,
    known_since: Tick,
}

impl Reign {
    /// Instances wanted of an app.
    pub(super) fn count(&self, app: &DesiredApp) -> u32 {
        if app.deleted || !app.started { 0 } else { app.instances }
    }

    /// Plans one app. May place, withdraw and take back.
    pub(super) fn plan(&mut self, desired: &Desired, app: &DesiredApp, now: Tick) -> Standing {
        let count = self.count(app) as usize;
        if count == 0 {
            return self.plan_none(app);
        }
        let goal = self.goal(app);
        if goal.is_none() && self.rollouts.of(&app.name).is_none() {
            // No release in force is no order to stop what runs.
            return Standing::default();
        }
        let mut seen = self.look(app, goal, now);
        let serving = seen.iter().filter(|one| one.is_goal && one.serves).count();
        let wanted = if goal.is_some() { count } else { 0 };
        // Over another release only what has proved itself takes anybody's place.
        let is_new = goal != self.in_force(app);
        let sure = seen.iter().filter(|one| one.is_goal && one.serves && (one.is_proved || !is_new)).count();
        let missing = wanted.saturating_sub(sure);
        self.take_back(&mut seen, wanted, missing);
        let refused = self.place_missing(desired, app, goal, wanted, &seen, now);
        if self.permission.may_destroy() && self.table.is_known() {
            self.withdraw_surplus(&seen, wanted, serving);
            self.withdraw_leftovers(app, &seen, missing, refused.is_some());
        }
        let after = self.look(app, goal, now);
        Standing {
            serving,
            proved: seen.iter().filter(|one| one.is_goal && one.serves && one.is_proved).count(),
            present: after.iter().filter(|one| one.is_goal && !one.is_withdrawn).count(),
            leftovers: after.iter().filter(|one| !one.is_goal && !one.is_parked).count(),
            refused,
        }
    }

    /// Nothing is wanted of the app: a person stopped it, deleted it, or scaled it to nothing.
    fn plan_none(&mut self, app: &DesiredApp) -> Standing {
        let reason = match (app.deleted, app.started) {
            (true, _) => "the app was deleted",
            (false, false) => "the app was stopped",
            (false, true) => "the app was scaled to 0",
        };
        let all: Vec<InstanceId> =
            self.fleet.of_app(&app.name).filter(|one| !one.is_ending()).map(|one| one.id.clone()).collect();
        if self.permission.may_destroy() {
            for id in &all {
                self.withdraw(id, reason);
            }
        }
        Standing { leftovers: all.len(), ..Standing::default() }
    }

    /// Instances that count: not ending, and not on a lost node. Where a deployment goes back to nothing, only those count
    /// that it, or one whose place it took, has brought: no release in force is no order to stop what else runs.
    fn look(&self, app: &DesiredApp, goal: Option<u64>, now: Tick) -> Vec<Seen> {
        let back_to_nothing = self.rollouts.of(&app.name).filter(|_| goal.is_none());
        let counts = |one: &&Instance| {
            !one.is_ending()
                && self.fleet.condition(&one.node) != Condition::Lost
                && back_to_nothing.is_none_or(|rollout| rollout.has_brought(one.release))
        };
        let see = |one: &Instance| Seen {
            id: one.id.clone(),
            node: one.node.clone(),
            is_goal: Some(one.release) == goal && one.doom.is_none(),
            is_withdrawn: one.is_withdrawn(),
            is_ready: matches!(one.state(), InstanceState::Ready),
            is_down: one.state() == InstanceState::BackOff,
            is_doubted: self.is_doubted(one, now),
            serves: self.serves(one, now),
            has_failed: one.failures() > 0,
            is_routed: self.table.holds(&one.id),
            is_in_force: Some(one.release) == self.in_force(app),
            is_proved: one.is_proved(),
            is_parked: one.is_out() && self.is_parked(one),
            known_since: one.known_since,
        };
        self.fleet.of_app(&app.name).filter(counts).map(see).collect()
    }

    /// Wants again what was withdrawn and is missed now.
    fn take_back(&mut self, seen: &mut [Seen], wanted: usize, missing: usize) {
        for (is_goal, needed) in [(true, wanted), (false, missing)] {
            // What is down stands in for nobody.
            let present = |one: &&Seen| one.is_goal == is_goal && !one.is_withdrawn && (is_goal || !one.is_down);
            let present = seen.iter().filter(present).count();
            let candidates = seen.iter_mut().filter(|one| one.is_goal == is_goal && one.is_withdrawn && one.is_ready);
            for one in candidates.take(needed.saturating_sub(present)) {
                one.is_withdrawn = false;
                self.fleet.want_again(&one.id);
                self.news.change();
            }
        }
    }

    fn place_missing(
        &mut self,
        desired: &Desired,
        app: &DesiredApp,
        goal: Option<u64>,
        wanted: usize,
        seen: &[Seen],
        now: Tick,
    ) -> Option<String> {
        let present = seen.iter().filter(|one| one.is_goal && !one.is_withdrawn).count();
        // What is down does not hold up what is to take its place.
        let others = seen.iter().filter(|one| (!one.is_goal && !one.is_down) || one.is_withdrawn);
        let others = others.filter(|one| !one.is_parked).count();
        let release = match self.permission.only_replaces() {
            true => self.in_force(app).or(goal)?,
            false => goal?,
        };
        let needed = match self.permission.only_replaces() {
            true => wanted.saturating_sub(seen.iter().filter(|one| !one.is_withdrawn).count()),
            false => {
                let surge = (self.settings.surge as usize).max(wanted.div_ceil(4)).max(1);
                wanted.saturating_sub(present).min((wanted + surge).saturating_sub(present + others))
            }
        };
        if needed == 0 || !self.permission.may_place() {
            return None;
        }
        let Some(spec) = app.releases.get(&release) else {
            return Some(format!("release {release} is not known"));
        };
        for placed in 0..needed {
            if let Err(refusal) = self.place(desired, &app.name, spec, now) {
                if refusal.is_for_room() && self.give_way(&app.name, spec) {
                    return Some(format!("an old instance gives way, for {refusal}"));
                }
                let memory = spec.resources.memory_mb;
                let open = needed - placed;
                return Some(format!("{open} instances of {memory} MiB cannot be placed: {refusal}"));
            }
        }
        None
    }

    /// What is kept until a verdict gives way to what cannot be placed otherwise: one at a time, of the same app first,
    /// where its going makes room enough. False if none does.
    fn give_way(&mut self, app: &AppName, spec: &ReleaseSpec) -> bool {
        if self.fleet.instances().any(|one| one.gives_way) {
            return true;
        }
        let makes_room = |one: &&Instance| {
            self.fleet.node(&one.node).is_some_and(|node| {
                let (has, booked) = (self.bookable(&one.node, node), self.fleet.booked(&one.node));
                let memory_mb = booked.memory_mb.saturating_sub(one.booked.memory_mb);
                let cpu_millis = booked.cpu_millis.saturating_sub(one.booked.cpu_millis);
                memory_mb.saturating_add(spec.resources.memory_mb) <= has.memory_mb
                    && cpu_millis.saturating_add(spec.resources.cpu_millis) <= has.cpu_millis
            })
        };
        let parked = self.fleet.instances().filter(|one| one.is_out() && self.is_parked(one)).filter(makes_room);
        let chosen = parked.min_by_key(|one| (one.app != *app, one.id.clone())).map(|one| one.id.clone());
        let Some(instance) = chosen.and_then(|id| self.fleet.get_mut(&id)) else { return false };
        instance.gives_way = true;
        let (of, id, node) = (instance.app.clone(), instance.id.clone(), instance.node.clone());
        self.event(Some(&of), Some(&id), Some(&node), "gives_way", format!("to an instance of {app}"));
        self.news.change();
        true
    }

    /// More instances of the goal than wanted: those go first that are not ready, then those on the nodes that have
    /// most of them. One that serves goes only while enough others serve.
    fn withdraw_surplus(&mut self, seen: &[Seen], wanted: usize, serving: usize) {
        let mut present: Vec<&Seen> = seen.iter().filter(|one| one.is_goal && !one.is_withdrawn).collect();
        let mut per_node: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for one in &present {
            *per_node.entry(&one.node).or_default() += 1;
        }
        let mut serving = serving;
        while present.len() > wanted {
            let crowd = |one: &Seen| per_node.get(&one.node).copied().unwrap_or(0);
            let worst = present
                .iter()
                .enumerate()
                .max_by_key(|(_, one)| (!one.is_ready, !one.serves, crowd(one), one.known_since, one.id.clone()));
            let Some((index, _)) = worst else { return };
            let one = present.swap_remove(index);
            let would_serve = serving - usize::from(one.serves);
            // What is about to serve, or silent for a moment, is worth waiting for.
            let may_serve = |other: &&Seen| other.is_ready && !other.serves && !other.is_doubted;
            if one.is_ready && would_serve < wanted && (one.serves || present.iter().any(may_serve)) {
                return;
            }
            serving = would_serve;
            if let Some(count) = per_node.get_mut(&one.node) {
                *count -= 1;
            }
            self.withdraw(&one.id, "more instances run than are wanted");
        }
    }

    /// Leftovers beyond those that stand in for missing ones of the goal, the worst first.
    fn withdraw_leftovers(&mut self, app: &DesiredApp, seen: &[Seen], missing: usize, no_room: bool) {
        let mut leftovers: Vec<&Seen> = seen.iter().filter(|one| !one.is_goal && !one.is_withdrawn).collect();
        let mut per_node: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for one in seen.iter().filter(|one| !one.is_withdrawn) {
            *per_node.entry(&one.node).or_default() += 1;
        }
        leftovers.sort_by_key(|one| {
            let does_well = (one.serves, one.is_ready, !one.is_down, !one.has_failed);
            let is_trusted = (one.is_routed, one.is_in_force);
            (does_well, is_trusted, std::cmp::Reverse(per_node[&one.node]), one.id.clone())
        });
        let surplus = leftovers.len().saturating_sub(missing);
        // In a cluster without room, what is down makes room for the deployment that a person asked for.
        let in_the_way = no_room && surplus == 0 && self.rollouts.of(&app.name).is_some();
        let gives_way = in_the_way && leftovers.first().is_some_and(|one| one.is_down);
        for one in leftovers.iter().take(surplus.max(usize::from(gives_way))) {
            let doom = self.fleet.get(&one.id).and_then(|instance| instance.doom.clone());
            let reason = doom.map_or("another release took its place", |doom| doom.reason());
            self.withdraw(&one.id, reason);
        }
    }

    /// Begins the way out of an instance; it stays on the way if it is on it.
    pub(super) fn withdraw(&mut self, id: &InstanceId, reason: &str) {
        if self.fleet.withdraw(id, reason) {
            self.news.change();
        }
    }

    /// Says once that something cannot be placed.
    pub(super) fn tell_refusal(&mut self, app: &AppName, refused: Option<String>) {
        match refused {
            Some(text) if self.refusals.get(app) != Some(&text) => {
                self.event(Some(app), None, None, "placement_refused", text.clone());
                self.refusals.insert(app.clone(), text);
            }
            Some(_) => {}
            None => {
                self.refusals.remove(app);
            }
        }
    }
}
