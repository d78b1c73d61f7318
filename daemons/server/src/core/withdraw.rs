//! The last steps of an instance: out of the table, confirmed, drained, stopped. Nothing else orders a stop.

use super::fleet::{Instance, Phase};
use super::{Reign, Tick};
use dinp_common::model::InstanceId;

impl Reign {
    /// Takes every withdrawn instance as far as routers allow.
    pub(super) fn proceed_withdrawals(&mut self, now: Tick) {
        let withdrawn = self.fleet.instances().filter(|one| matches!(one.phase, Phase::Withdrawn { .. }));
        let ids: Vec<InstanceId> = withdrawn.map(|one| one.id.clone()).collect();
        for id in ids {
            self.proceed_withdrawal(&id, now);
        }
    }

    /// Whether an instance is kept until the verdict on the deployment that takes its place: out of the table, and back in
    /// at once if the new release fails.
    pub(super) fn is_parked(&self, instance: &Instance) -> bool {
        let app = self.desired.as_ref().and_then(|desired| desired.apps.get(&instance.app));
        let is_run = app.is_some_and(|app| self.count(app) > 0);
        let rollout = self.rollouts.of(&instance.app).filter(|rollout| rollout.is_undecided());
        is_run
            && instance.is_withdrawn()
            && instance.doom.is_none()
            && !instance.gives_way
            && rollout.is_some_and(|rollout| rollout.previous == Some(instance.release))
    }

    fn proceed_withdrawal(&mut self, id: &InstanceId, now: Tick) {
        let Some(instance) = self.fleet.get(id) else { return };
        let Phase::Withdrawn { reason, confirmed_at } = &instance.phase else { return };
        let (reason, was_confirmed) = (reason.clone(), *confirmed_at);
        let is_out = match instance.left {
            // It was never handed out: nobody can know it.
            _ if !instance.maybe_routed => true,
            Some(version) => !self.table.may_hold(id) && self.is_confirmed(version, now),
            None => false,
        };
        let confirmed = is_out.then(|| was_confirmed.unwrap_or(now));
        let is_drained = confirmed.is_some_and(|at| self.is_drained(instance, at, now));
        let may_stop = self.permission.may_destroy() && is_drained && !self.is_parked(instance);
        let Some(instance) = self.fleet.get_mut(id) else { return };
        let (app, node) = (instance.app.clone(), instance.node.clone());
        match confirmed {
            Some(_) if may_stop => {
                instance.phase = Phase::Stopping { reason: reason.clone() };
                self.news.change();
                self.event(Some(&app), Some(id), Some(&node), "stop", reason);
            }
            confirmed_at => instance.phase = Phase::Withdrawn { reason, confirmed_at },
        }
    }
}
