//! The last steps of an instance: out of the table, confirmed, drained, stopped. Nothing else orders a stop.

use super::fleet::Phase;
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
        let may_stop = self.permission.may_destroy() && confirmed.is_some_and(|at| self.is_drained(id, at, now));
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
