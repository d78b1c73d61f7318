//! Instances that do not do well, and what DINP may do about it on its own.
//!
//! The health monitor alone, or the agent alone, takes an instance out of the table (never so many that more than
//! half of an app would be missing). Both together condemn it: a replacement comes first, then it is stopped. The same
//! happens once to an instance that crashes again and again, and to those of a node without a usable Docker Engine.
//! How many are condemned at a time is limited per app and per cluster.

use super::fleet::{Condition, Doom, Instance, Node};
use super::{Desired, DesiredApp, Reign, Tick};
use dinp_common::api::agent::InstanceState;
use dinp_common::api::hm::HmReport;
use dinp_common::model::{InstanceId, NodeName};
use std::collections::{BTreeMap, BTreeSet};

/// What one health monitor says.
#[derive(Debug)]
struct Monitor {
    heard: Tick,
    unfit: BTreeSet<InstanceId>,
}

/// What the health monitors say.
#[derive(Debug, Default)]
pub(super) struct Monitors(BTreeMap<String, Monitor>);

impl Monitors {
    fn heard(&mut self, name: String, unfit: BTreeSet<InstanceId>, now: Tick) {
        self.0.insert(name, Monitor { heard: now, unfit });
    }

    fn forget_silent(&mut self, verdict_ms: u64, now: Tick) {
        self.0.retain(|_, monitor| now.saturating_sub(monitor.heard) < verdict_ms);
    }

    /// Whether most of those that are heard find it unfit.
    fn find_unfit(&self, id: &InstanceId, verdict_ms: u64, now: Tick) -> bool {
        let heard = self.0.values().filter(|monitor| now.saturating_sub(monitor.heard) < verdict_ms);
        let (all, against) =
            heard.fold((0, 0), |(all, against), monitor| (all + 1, against + usize::from(monitor.unfit.contains(id))));
        against * 2 > all
    }
}

impl Reign {
    /// Takes in what a health monitor finds unfit.
    pub fn hm_report(&mut self, report: &HmReport, now: Tick) {
        let unfit = report.unfit.iter().map(|unfit| unfit.instance.clone()).collect();
        self.monitors.heard(report.monitor.clone(), unfit, now);
    }

    /// Whether most of the monitors that are heard find it unfit.
    fn is_unfit_to_monitors(&self, id: &InstanceId, now: Tick) -> bool {
        self.monitors.find_unfit(id, self.settings.verdict_ms, now)
    }

    /// Whether anybody finds it unfit.
    pub(super) fn is_doubted(&self, instance: &Instance, now: Tick) -> bool {
        instance.state() == InstanceState::Unfit || self.is_unfit_to_monitors(&instance.id, now)
    }

    /// Condemns what is to be replaced, within the budget, and takes back what has recovered.
    pub(super) fn update_dooms(&mut self, desired: &Desired, now: Tick) {
        self.monitors.forget_silent(self.settings.verdict_ms, now);
        let apps = || desired.apps.values().filter(|app| !app.deleted && app.started);
        // First, because it frees budget for what is condemned in the same decision.
        for app in apps() {
            self.pardon_recovered(app, now);
        }
        for app in apps() {
            self.condemn_failing(app, now);
        }
    }

    fn pardon_recovered(&mut self, app: &DesiredApp, now: Tick) {
        let is_over = |one: &&Instance| match (&one.doom, self.find_doom(one, now)) {
            (None, _) | (Some(_), Some(_)) => false,
            (Some(Doom::Crashing), None) => one.restarts.is_empty(),
            (Some(_), None) => true,
        };
        let alive = self.fleet.of_app(&app.name).filter(|one| !one.is_ending());
        let recovered: Vec<InstanceId> = alive.filter(is_over).map(|one| one.id.clone()).collect();
        for id in recovered {
            self.judge(&id, None);
        }
    }

    fn condemn_failing(&mut self, app: &DesiredApp, now: Tick) {
        let condemned = self.fleet.of_app(&app.name).filter(|one| one.doom.is_some()).count();
        let share = (self.count(app) as usize * self.settings.kill_percent as usize / 100).max(1);
        let alive = self.fleet.of_app(&app.name).filter(|one| !one.is_ending() && one.doom.is_none());
        let failing = alive.filter_map(|one| Some((one.id.clone(), self.find_doom(one, now)?)));
        let failing: Vec<(InstanceId, Doom)> = failing.take(share.saturating_sub(condemned)).collect();
        for (id, doom) in failing {
            let may_destroy = self.permission.may_destroy();
            if may_destroy && self.budget.spend(&app.name, self.settings.kills_per_minute, now) {
                self.judge(&id, Some(doom));
            }
        }
    }

    fn judge(&mut self, id: &InstanceId, doom: Option<Doom>) {
        let Some(instance) = self.fleet.get_mut(id) else { return };
        instance.doom.clone_from(&doom);
        let (app, node) = (instance.app.clone(), instance.node.clone());
        let (kind, detail) = doom.map_or(("recovered", ""), |doom| ("condemned", doom.reason()));
        self.event(Some(&app), Some(id), Some(&node), kind, detail.to_owned());
        self.news.change();
    }

    fn find_doom(&self, instance: &Instance, now: Tick) -> Option<Doom> {
        let node = self.fleet.node(&instance.node).filter(|node| node.is_heard())?;
        if node.docker_down_since.is_some_and(|since| now.saturating_sub(since) >= self.settings.docker_down_ms) {
            return Some(Doom::DockerDown);
        }
        let ready_for = instance.ready_since.map_or(0, |since| now.saturating_sub(since));
        let window = self.settings.crash_window_ms;
        let restarts = instance.restarts.iter().filter(|at| now.saturating_sub(**at) < window).count();
        let is_crashing =
            restarts >= self.settings.crash_restarts as usize && ready_for < self.settings.crash_forgive_ms;
        let is_room = |(name, node): (&NodeName, &Node)| *name != instance.node && node.condition == Condition::Ready;
        if is_crashing && !instance.relocated && self.fleet.nodes().any(is_room) {
            return Some(Doom::Crashing);
        }
        if instance.report.as_ref().is_some_and(|report| report.over_disk_mb.is_some()) {
            return Some(Doom::OverDisk);
        }
        let is_unfit = instance.state() == InstanceState::Unfit && self.is_unfit_to_monitors(&instance.id, now);
        is_unfit.then_some(Doom::Unfit)
    }
}
