//! Every target has a task of its own: none waits for another.

use crate::probe::probe;
use crate::verdict::Verdict;
use dinp_common::api::hm::{HmReport, Target, Targets, Unfit};
use dinp_common::api::unix_millis;
use dinp_common::lifecycle::contained;
use dinp_common::model::InstanceId;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long a verdict is remembered for a target that has left the list: a leader that is new may not know it yet.
const MEMORY: Duration = Duration::from_secs(300);

/// All targets and what is thought of them; clones are the same monitor.
#[derive(Clone)]
pub struct Monitor {
    state: Arc<Mutex<State>>,
    probes: Arc<Semaphore>,
    /// Counts the changes of verdicts.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Version of the list; none before the first.
    version: Option<String>,
    slots: HashMap<InstanceId, Slot>,
}

struct Slot {
    target: Target,
    verdict: Arc<Mutex<Verdict>>,
    /// The task that probes it, and none when it has left the list.
    task: Option<AbortOnDropHandle<()>>,
    left: Option<Instant>,
}

/// One target, for people.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetView {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// What is wrong with it, if the verdict is "unfit".
    pub unfit: Option<Unfit>,
}

impl Monitor {
    /// A monitor without targets.
    pub fn new(max_probes: usize) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        Self { state, probes: Arc::new(Semaphore::new(max_probes)), changes: watch::channel(0).0 }
    }

    /// Counts up with each change of a verdict.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Version of the list.
    pub fn version(&self) -> Option<String> {
        self.lock().version.clone()
    }

    /// Takes a new list.
    pub fn set(&self, list: Targets) {
        let mut state = self.lock();
        let now = Instant::now();
        let mut wanted: HashMap<InstanceId, Target> =
            list.targets.into_iter().map(|target| (target.instance.clone(), target)).collect();
        state.slots.retain(|id, slot| match wanted.remove(id) {
            Some(target) => {
                self.keep(slot, target);
                true
            }
            None => {
                slot.task = None;
                let left = *slot.left.get_or_insert(now);
                now.saturating_duration_since(left) < MEMORY
            }
        });
        for (id, target) in wanted {
            let verdict = Arc::default();
            let task = Some(self.start(&target, &verdict));
            state.slots.insert(id, Slot { target, verdict, task, left: None });
        }
        state.version = Some(list.version);
        metrics::gauge!("dinp_hm_targets").set(state.slots.values().filter(|slot| slot.task.is_some()).count() as f64);
        drop(state);
        self.changed();
    }

    /// All that is unfit; none before the first list.
    pub fn report(&self, monitor: &str) -> Option<HmReport> {
        let state = self.lock();
        let targets = state.version.clone()?;
        let mut unfit: Vec<Unfit> =
            state.slots.values().filter(|slot| slot.task.is_some()).filter_map(Slot::unfit).collect();
        unfit.sort_by(|a, b| a.instance.cmp(&b.instance));
        metrics::gauge!("dinp_hm_unfit").set(unfit.len() as f64);
        Some(HmReport { monitor: monitor.to_owned(), targets, unfit })
    }

    /// All targets, for people.
    pub fn view(&self) -> Vec<TargetView> {
        let state = self.lock();
        let present = state.slots.values().filter(|slot| slot.task.is_some());
        let mut all: Vec<_> =
            present.map(|slot| TargetView { target: slot.target.clone(), unfit: slot.unfit() }).collect();
        all.sort_by(|a, b| a.target.instance.cmp(&b.target.instance));
        all
    }

    /// Goes on with a target that is known; from the start where something else is asked than before.
    fn keep(&self, slot: &mut Slot, target: Target) {
        if slot.task.is_some() && slot.target == target {
            return;
        }
        let asked = |target: &Target| {
            let check = &target.check;
            (
                target.address.clone(),
                target.port,
                target.host.clone(),
                (check.kind, check.path.clone(), check.host.clone()),
            )
        };
        if asked(&slot.target) != asked(&target) {
            slot.verdict = Arc::default();
        }
        slot.task = Some(self.start(&target, &slot.verdict));
        slot.target = target;
        slot.left = None;
    }

    fn start(&self, target: &Target, verdict: &Arc<Mutex<Verdict>>) -> AbortOnDropHandle<()> {
        let (monitor, target, verdict) = (self.clone(), target.clone(), verdict.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let watch = || monitor.clone().watch(target.clone(), verdict.clone());
            // A probe that panics is begun again after an interval, and takes no other along.
            while !contained(&format!("the probing of {}", target.instance), watch()).await {}
        }))
    }

    /// Probes one target for ever: at the check's interval, and at rest as seldom as the server says.
    async fn watch(self, target: Target, verdict: Arc<Mutex<Verdict>>) {
        let interval = Duration::from_secs(u64::from(target.check.interval_secs.max(1)));
        let rest = Duration::from_secs(target.rest_secs.unwrap_or_default().into()).max(interval);
        // Spread over the interval, so that a new list does not make all probe at once.
        let mut due = tokio::time::Instant::now() + interval.mul_f64(rand::random_range(0.0..1.0));
        loop {
            tokio::time::sleep_until(due).await;
            let Ok(permit) = self.probes.acquire().await else { return };
            metrics::histogram!("dinp_hm_lateness_seconds").record(due.elapsed().as_secs_f64());
            let begin = Instant::now();
            let outcome = probe(&target).await;
            drop(permit);
            metrics::histogram!("dinp_hm_probe_seconds").record(begin.elapsed().as_secs_f64());
            let label = if outcome.is_ok() { "well" } else { "failed" };
            metrics::counter!("dinp_hm_probes_total", "outcome" => label).increment(1);
            let is_at_rest = self.take(&target, &verdict, outcome.map_err(|error| error.to_string()));
            // The next one counts from when this one was due; what was missed is not made up for.
            let pause = if is_at_rest { rest } else { interval };
            due = (due + pause.mul_f64(rand::random_range(0.95..1.05))).max(tokio::time::Instant::now());
        }
    }

    /// Takes in what a probe has shown; true if all is well.
    fn take(&self, target: &Target, verdict: &Mutex<Verdict>, outcome: Result<(), String>) -> bool {
        let (app, instance) = (&target.app, &target.instance);
        let mut verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(detail) = &outcome {
            tracing::debug!(%app, %instance, detail, "a probe failed");
        }
        let has_changed = verdict.observe(&outcome, target.check.threshold, unix_millis());
        let is_at_rest = verdict.is_at_rest();
        if !has_changed {
            return is_at_rest;
        }
        match verdict.unfit() {
            Some((_, detail)) => tracing::warn!(%app, %instance, detail, "an instance of {app} is unfit: {detail}"),
            None => tracing::info!(%app, %instance, "an instance of {app} is fit again"),
        }
        drop(verdict);
        self.changed();
        is_at_rest
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn unfit(&self) -> Option<Unfit> {
        let verdict = self.verdict.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, detail) = verdict.unfit()?;
        Some(Unfit { instance: self.target.instance.clone(), since, detail: detail.to_owned() })
    }
}
