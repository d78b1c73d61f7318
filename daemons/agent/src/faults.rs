//! What is wrong with this node itself, besides its engine. Told in every report, and in the journal when it changes.

use dinp_common::api::agent::{NodeFault, NodeFaultKind};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub struct Faults {
    known: Mutex<Known>,
    changed: Notify,
}

/// By kind and by what has the fault: two files that cannot be written are two faults.
type Known = BTreeMap<(NodeFaultKind, String), String>;

impl Faults {
    /// `source` has this fault now, or none.
    pub fn set(&self, kind: NodeFaultKind, source: &str, detail: Option<String>) {
        let key = (kind, source.to_owned());
        let mut known = self.known();
        let before = match detail.clone() {
            Some(detail) => known.insert(key, detail),
            None => known.remove(&key),
        };
        drop(known);
        if before == detail {
            return;
        }
        match (before, detail) {
            (None, Some(detail)) => tracing::error!(kind = kind.as_str(), detail, "this node has a fault: {detail}"),
            (Some(was), None) => tracing::info!(kind = kind.as_str(), was, "a fault of this node is gone: {was}"),
            _ => {}
        }
        self.changed.notify_one();
    }

    /// All of them.
    pub fn list(&self) -> Vec<NodeFault> {
        self.known().iter().map(|((kind, _), detail)| NodeFault { kind: *kind, detail: detail.clone() }).collect()
    }

    /// Waits until something has changed since this was called last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn each_source_has_its_own_fault_and_every_change_is_told() {
        let faults = Faults::default();
        faults.set(NodeFaultKind::Disk, "a", Some("no space".into()));
        faults.set(NodeFaultKind::Disk, "b", Some("read-only".into()));
        faults.changed().await;
        let details = || faults.list().into_iter().map(|fault| fault.detail).collect::<Vec<_>>();
        assert_eq!(details(), ["no space", "read-only"]);
        faults.set(NodeFaultKind::Disk, "a", None);
        faults.changed().await;
        assert_eq!(details(), ["read-only"]);
        // A full disk was 85 lines a minute.
        faults.set(NodeFaultKind::Disk, "b", Some("read-only".into()));
        assert!(faults.changed().now_or_never().is_none(), "what goes on is no news");
    }
}
