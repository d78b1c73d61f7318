//! Orphans: instances whose app has no row at all. They are kept, shown and told of, and stopped only because a person
//! said so.

use super::{Desired, OrphanError, Reign};
use dinp_common::model::InstanceId;
use std::collections::BTreeSet;

/// Those that people were told of.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    known: BTreeSet<InstanceId>,
}

impl Orphans {
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &InstanceId> {
        self.known.iter()
    }

    /// From now on it is these; returns those that are new.
    fn replace(&mut self, orphans: BTreeSet<InstanceId>) -> Vec<InstanceId> {
        let fresh = orphans.difference(&self.known).cloned().collect();
        self.known = orphans;
        fresh
    }
}

impl Reign {
    /// Has an orphan stopped, because a person said so: an instance whose app has no row at all.
    pub fn remove_orphan(&mut self, id: &InstanceId) -> Result<(), OrphanError> {
        let Some(instance) = self.fleet.get(id) else { return Err(OrphanError::Unknown(id.clone())) };
        let desired = self.desired.as_ref().ok_or_else(|| OrphanError::Unknown(id.clone()))?;
        if desired.apps.contains_key(&instance.app) {
            return Err(OrphanError::Claimed(id.clone(), instance.app.clone()));
        }
        self.withdraw(id, "a person had the orphan removed");
        Ok(())
    }

    /// An orphan whose app has a row again is judged by the app's plan; until then a withdrawn one goes its way.
    pub(super) fn tell_orphans(&mut self, desired: &Desired) {
        let of_nobody = self.fleet.instances().filter(|one| !desired.apps.contains_key(&one.app));
        let orphans = of_nobody.map(|one| one.id.clone()).collect();
        for id in self.orphans.replace(orphans) {
            let Some(one) = self.fleet.get(&id) else { continue };
            let (app, node) = (one.app.clone(), one.node.clone());
            self.event(Some(&app), Some(&id), Some(&node), "orphan", "its app has no row".to_owned());
        }
    }
}
