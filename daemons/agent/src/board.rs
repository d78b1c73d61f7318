//! What this node has to report: written by the instances' tasks, read by the report loop and by the status page.

use dinp_common::api::agent::{EndedInstance, InstanceReport, Limit, LimitReached, Seen};
use dinp_common::model::InstanceId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// See the module.
#[derive(Debug, Default)]
pub struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    instances: BTreeMap<InstanceId, InstanceReport>,
    changed: BTreeSet<InstanceId>,
    removed: BTreeSet<InstanceId>,
    /// Whether the engine's containers have been read: before that nothing is known.
    complete: bool,
    docker_error: Option<String>,
    seen: Seen,
    from_disk: bool,
    ended: Vec<EndedInstance>,
    ended_changed: bool,
    /// MiB that instances have written, of those that are over their limit.
    over_disk: BTreeMap<InstanceId, u32>,
}

/// What a report says of instances.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Whether it names all instances.
    pub full: bool,
    /// Those that changed, or all.
    pub instances: Vec<InstanceReport>,
    /// Those that are gone.
    pub removed: Vec<InstanceId>,
    /// Why the engine cannot be used.
    pub docker_error: Option<String>,
    /// The highest leadership seen.
    pub seen: Seen,
    /// Instances that are gone and whose output is kept; none where nothing has changed.
    pub ended: Option<Vec<EndedInstance>>,
}

impl Board {
    /// Waits until something has changed since this was called last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Something that every report tells has changed.
    pub fn touch(&self) {
        self.changed.notify_one();
    }

    /// An instance is like this now. The limits that it has reached are known here.
    pub fn put(&self, mut report: InstanceReport) {
        let mut inner = self.inner();
        report.over_disk_mb = inner.over_disk.get(&report.instance).copied();
        report.limits = inner.instances.get(&report.instance).map(|known| known.limits.clone()).unwrap_or_default();
        if inner.instances.get(&report.instance) == Some(&report) {
            return;
        }
        inner.removed.remove(&report.instance);
        inner.changed.insert(report.instance.clone());
        inner.instances.insert(report.instance.clone(), report);
        drop(inner);
        self.touch();
    }

    /// An instance has run into a limit, and runs on.
    pub fn reached(&self, instance: &InstanceId, limit: Limit, detail: String) {
        let mut inner = self.inner();
        let Some(report) = inner.instances.get_mut(instance) else { return };
        let times = report.limits.get(&limit).map_or(0, |before| before.times).saturating_add(1);
        report.limits.insert(limit, LimitReached { times, detail });
        inner.changed.insert(instance.clone());
        drop(inner);
        self.touch();
    }

    /// An instance is gone, or was never here.
    pub fn gone(&self, instance: &InstanceId) {
        let mut inner = self.inner();
        inner.instances.remove(instance);
        inner.changed.remove(instance);
        inner.removed.insert(instance.clone());
        drop(inner);
        self.touch();
    }

    /// These instances, and no others, have written more than their limit: so many MiB.
    pub fn set_over_disk(&self, over_disk: BTreeMap<InstanceId, u32>) {
        let mut inner = self.inner();
        if inner.over_disk == over_disk {
            return;
        }
        let Inner { instances, changed, .. } = &mut *inner;
        for (instance, report) in instances {
            let written = over_disk.get(instance).copied();
            if report.over_disk_mb != written {
                report.over_disk_mb = written;
                changed.insert(instance.clone());
            }
        }
        inner.over_disk = over_disk;
        drop(inner);
        self.touch();
    }

    /// All containers of the engine have been read once.
    pub fn set_complete(&self) {
        self.inner().complete = true;
        self.touch();
    }

    /// Whether they have.
    pub fn is_complete(&self) -> bool {
        self.inner().complete
    }

    /// Whether the engine can be used; true if that changed.
    pub fn set_docker_error(&self, error: Option<String>) -> bool {
        let mut inner = self.inner();
        if inner.docker_error == error {
            return false;
        }
        let flipped = inner.docker_error.is_some() != error.is_some();
        inner.docker_error = error;
        drop(inner);
        self.touch();
        flipped
    }

    /// Orders are in force: whose, and whether they come from the disk.
    pub fn set_seen(&self, seen: Seen, from_disk: bool) {
        let mut inner = self.inner();
        inner.seen = seen;
        inner.from_disk = from_disk;
        drop(inner);
        self.touch();
    }

    /// All that is kept of instances that are gone.
    pub fn set_ended(&self, ended: Vec<EndedInstance>) {
        let mut inner = self.inner();
        inner.ended = ended;
        inner.ended_changed = true;
        drop(inner);
        self.touch();
    }

    /// Takes what is to be reported. Before the engine has been read a report names nothing, for what it
    /// did not name would count as gone.
    pub fn take(&self, full: bool) -> Batch {
        let mut inner = self.inner();
        let full = full && inner.complete;
        let changed = std::mem::take(&mut inner.changed);
        let removed = std::mem::take(&mut inner.removed).into_iter().collect();
        let instances = match full {
            true => inner.instances.values().cloned().collect(),
            false => changed.iter().filter_map(|instance| inner.instances.get(instance).cloned()).collect(),
        };
        let ended = std::mem::take(&mut inner.ended_changed) || full;
        Batch {
            full,
            instances,
            removed,
            docker_error: inner.docker_error.clone(),
            seen: inner.seen.clone(),
            ended: ended.then(|| inner.ended.clone()),
        }
    }

    /// A look at everything, which takes nothing; and whether the orders come from the disk.
    pub fn look(&self) -> (Batch, bool) {
        let inner = self.inner();
        let batch = Batch {
            full: inner.complete,
            instances: inner.instances.values().cloned().collect(),
            removed: inner.removed.iter().cloned().collect(),
            docker_error: inner.docker_error.clone(),
            seen: inner.seen.clone(),
            ended: Some(inner.ended.clone()),
        };
        (batch, inner.from_disk)
    }

    /// One instance.
    pub fn get(&self, instance: &InstanceId) -> Option<InstanceReport> {
        self.inner().instances.get(instance).cloned()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::api::agent::InstanceState;
    use dinp_common::testing::proved_report;

    fn report(bits: u64, state: InstanceState) -> InstanceReport {
        InstanceReport {
            state,
            port: None,
            proved: false,
            ..proved_report(InstanceId::from_bits(bits), "web".parse().unwrap(), 1)
        }
    }

    fn names(batch: &Batch) -> (Vec<&str>, Vec<&str>) {
        let instances = batch.instances.iter().map(|report| report.instance.as_str()).collect();
        (instances, batch.removed.iter().map(InstanceId::as_str).collect())
    }

    const A: &str = "000000000000000a";
    const B: &str = "000000000000000b";

    #[test]
    fn deltas_name_what_changed_and_full_ones_all() {
        let board = Board::default();
        board.set_complete();
        board.put(report(0xa, InstanceState::Ready));
        board.put(report(0xb, InstanceState::Ready));
        assert_eq!(names(&board.take(false)), (vec![A, B], vec![]));
        board.put(report(0xa, InstanceState::Ready));
        assert_eq!(names(&board.take(false)), (vec![], vec![]), "nothing has changed");
        board.put(report(0xb, InstanceState::Unfit));
        assert_eq!(names(&board.take(false)), (vec![B], vec![]));
        board.gone(&InstanceId::from_bits(0xa));
        assert_eq!(names(&board.take(false)), (vec![], vec![A]));
        assert_eq!(names(&board.take(true)), (vec![B], vec![]));
    }

    #[test]
    fn who_is_over_its_limit_is_told_until_it_is_not() {
        let board = Board::default();
        board.set_complete();
        board.put(report(0xa, InstanceState::Ready));
        board.put(report(0xb, InstanceState::Ready));
        board.take(false);
        board.set_over_disk(BTreeMap::from([(InstanceId::from_bits(0xb), 5000)]));
        assert_eq!(names(&board.take(false)), (vec![B], vec![]));
        board.put(report(0xb, InstanceState::Unfit));
        assert_eq!(board.take(false).instances[0].over_disk_mb, Some(5000), "whatever else changes");
        board.set_over_disk(BTreeMap::new());
        assert_eq!(board.take(false).instances[0].over_disk_mb, None);
    }

    #[test]
    fn a_limit_that_was_reached_is_told_with_all_that_follows_until_the_instance_is_gone() {
        let board = Board::default();
        board.set_complete();
        let instance = InstanceId::from_bits(0xa);
        board.reached(&instance, Limit::Processes, "nobody is here".into());
        board.put(report(0xa, InstanceState::Ready));
        assert!(board.take(false).instances[0].limits.is_empty());
        board.reached(&instance, Limit::Processes, "first".into());
        board.reached(&instance, Limit::Processes, "second".into());
        let told = BTreeMap::from([(Limit::Processes, LimitReached { times: 2, detail: "second".into() })]);
        assert_eq!(board.take(false).instances[0].limits, told);
        board.put(report(0xa, InstanceState::Unfit));
        assert_eq!(board.take(false).instances[0].limits, told);
        board.gone(&instance);
        board.put(report(0xa, InstanceState::Ready));
        assert!(board.take(false).instances[0].limits.is_empty());
    }

    #[test]
    fn what_is_kept_of_ended_instances_is_told_when_it_changes_and_in_full_reports() {
        let board = Board::default();
        board.set_complete();
        assert_eq!(board.take(false).ended, None);
        let ended = EndedInstance {
            instance: InstanceId::from_bits(0xa),
            app: "web".parse().unwrap(),
            release: 1,
            at: 7,
            exit_code: None,
            ticket: "k1.abc".into(),
        };
        board.set_ended(vec![ended.clone()]);
        assert_eq!(board.take(false).ended, Some(vec![ended.clone()]));
        assert_eq!(board.take(false).ended, None);
        assert_eq!(board.take(true).ended, Some(vec![ended]));
    }

    #[test]
    fn before_the_engine_was_read_no_report_is_full() {
        let board = Board::default();
        assert!(!board.take(true).full);
        board.set_complete();
        assert!(board.take(true).full);
    }

    #[tokio::test]
    async fn a_change_before_the_wait_is_not_lost() {
        let board = Board::default();
        board.gone(&InstanceId::from_bits(1));
        tokio::time::timeout(std::time::Duration::from_secs(5), board.changed()).await.unwrap();
    }
}
