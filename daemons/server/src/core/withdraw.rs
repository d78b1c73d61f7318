//! The last steps of an instance: out of the table, confirmed, drained, stopped. Nothing else orders a stop.

use super::fleet::Phase;
use super::{Desired, OrphanError, Reign, Tick};
use dinp_common::model::InstanceId;

impl Reign {
    /// Takes every withdrawn instance as far as routers allow.
    pub(super) fn proceed_withdrawals(&mut self, now: Tick) {
        let withdrawn = self.fleet.instances.values().filter(|one| matches!(one.phase, Phase::Withdrawn { .. }));
        let ids: Vec<InstanceId> = withdrawn.map(|one| one.id.clone()).collect();
        for id in ids {
            self.proceed_withdrawal(&id, now);
        }
    }

    fn proceed_withdrawal(&mut self, id: &InstanceId, now: Tick) {
        let Some(instance) = self.fleet.instances.get(id) else { return };
        let Phase::Withdrawn { reason, confirmed_at } = &instance.phase else { return };
        let (reason, was_confirmed) = (reason.clone(), *confirmed_at);
        let is_out = match instance.left {
            // It was never handed out: nobody can know it.
            _ if !instance.maybe_routed => true,
            Some(version) => !self.table.may_hold(id) && self.is_confirmed(version, now),
            None => false,
        };
        let confirmed = is_out.then(|| was_confirmed.unwrap_or(now));
        let may_stop = self.may_destroy() && confirmed.is_some_and(|at| self.is_drained(id, at, now));
        let Some(instance) = self.fleet.instances.get_mut(id) else { return };
        let (app, node) = (instance.app.clone(), instance.node.clone());
        match confirmed {
            Some(_) if may_stop => {
                instance.phase = Phase::Stopping { reason: reason.clone() };
                self.changes += 1;
                self.event(Some(&app), Some(id), Some(&node), "stop", reason);
            }
            confirmed_at => instance.phase = Phase::Withdrawn { reason, confirmed_at },
        }
    }

    /// Has an orphan stopped, because a person said so: an instance whose app has no row at all.
    pub fn remove_orphan(&mut self, id: &InstanceId) -> Result<(), OrphanError> {
        let Some(instance) = self.fleet.instances.get(id) else { return Err(OrphanError::Unknown(id.clone())) };
        let desired = self.desired.as_ref().ok_or_else(|| OrphanError::Unknown(id.clone()))?;
        if desired.apps.contains_key(&instance.app) {
            return Err(OrphanError::Claimed(id.clone(), instance.app.clone()));
        }
        self.withdraw(id, "a person had the orphan removed");
        Ok(())
    }

    /// An orphan whose app has a row again is judged by the app's plan; until then a withdrawn one goes its way.
    pub(super) fn tell_orphans(&mut self, desired: &Desired) {
        let orphans: std::collections::BTreeSet<InstanceId> = self
            .fleet
            .instances
            .values()
            .filter(|one| !desired.apps.contains_key(&one.app))
            .map(|one| one.id.clone())
            .collect();
        for id in orphans.difference(&self.known_orphans.clone()) {
            let Some(one) = self.fleet.instances.get(id) else { continue };
            let (app, node) = (one.app.clone(), one.node.clone());
            self.event(Some(&app), Some(id), Some(&node), "orphan", "its app has no row".to_owned());
        }
        self.known_orphans = orphans;
    }
}
