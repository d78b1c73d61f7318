//! Deployments: how far each one is, and when it fails.
//!
//! ```text
//!   pending -> rolling -> verifying -> succeeded
//!      |          |           |
//!      |          +-----+-----+   failed starts, no progress, or a person cancels
//!      |                v
//!      |          rolling_back -> rolled_back, or cancelled if a person wanted it
//!      +-> cancelled
//!   any of them -> superseded, when a newer deployment is there
//! ```
//!
//! A deployment only says which release is the goal; `plan` does the rest.

use super::fleet::Instance;
use super::plan::Standing;
use super::{DeploymentUpdate, Desired, DesiredApp, DesiredDeployment, Reign, Tick};
use dinp_common::api::people::DeploymentState;
use dinp_common::model::AppName;
use std::collections::{BTreeMap, BTreeSet};

/// Time after which an update is told again that no desired state has shown.
const REPEAT_MS: u64 = 1_000;

/// One deployment at work.
#[derive(Debug, Clone)]
pub(super) struct Rollout {
    pub id: u64,
    pub release: u64,
    pub previous: Option<u64>,
    /// Releases that it and those whose place it took have brought: where none was in force before, the way back is the
    /// end of them all.
    brought: BTreeSet<u64>,
    pub state: DeploymentState,
    pub reason: String,
    /// The last lines of the instance for which it failed.
    output: Vec<String>,
    pub cancel: bool,
    /// Best standing so far in this state: proved, serving, and leftovers away.
    progress: (usize, usize, usize),
    progress_at: Tick,
    /// Since when the new release stands whole, and for how long it must.
    verify: Option<(Tick, u64)>,
    told: Option<(DeploymentState, String, Tick)>,
}

impl Rollout {
    fn begin(wanted: &DesiredDeployment, in_force: Option<u64>, now: Tick) -> Self {
        Self {
            id: wanted.id,
            release: wanted.release,
            previous: if wanted.state == DeploymentState::Pending { in_force } else { wanted.previous.or(in_force) },
            brought: BTreeSet::from([wanted.release]),
            state: wanted.state,
            reason: String::new(),
            output: Vec::new(),
            cancel: wanted.cancel,
            progress: (0, 0, 0),
            progress_at: now,
            verify: None,
            told: (wanted.state != DeploymentState::Pending).then_some((wanted.state, String::new(), now)),
        }
    }

    fn update(&self, app: &AppName) -> DeploymentUpdate {
        DeploymentUpdate {
            id: self.id,
            app: app.clone(),
            state: self.state,
            reason: self.reason.clone(),
            output: self.output.clone(),
            previous: self.previous,
            release_in_force: (self.state == DeploymentState::Succeeded).then_some(self.release),
        }
    }

    /// When time alone takes it further.
    pub(super) fn wake(&self) -> Option<Tick> {
        self.verify.map(|(since, millis)| since + millis)
    }

    /// Whether it, or one whose place it took, has brought this release.
    pub(super) fn has_brought(&self, release: u64) -> bool {
        self.brought.contains(&release)
    }

    /// Whether it has begun, and there is no verdict yet.
    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.state, DeploymentState::Rolling | DeploymentState::Verifying)
    }

    fn turn(&mut self, state: DeploymentState, reason: String, now: Tick) {
        self.state = state;
        self.reason = reason;
        self.progress = (0, 0, 0);
        self.progress_at = now;
        self.verify = None;
    }
}

/// All deployments at work.
#[derive(Debug, Default)]
pub(super) struct Rollouts {
    at_work: BTreeMap<AppName, Rollout>,
    /// What is written of those that ended here, until desired state shows it.
    ended: BTreeMap<u64, (DeploymentUpdate, Option<Tick>)>,
}

impl Rollouts {
    pub(super) fn of(&self, app: &AppName) -> Option<&Rollout> {
        self.at_work.get(app)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rollout> {
        self.at_work.values()
    }
}

fn verdict_on(one: &Instance) -> String {
    let why = one.report.as_ref().map_or("", |report| match report.last_failure.as_str() {
        "" => report.reason.as_str(),
        why => why,
    });
    let times = match one.failures() {
        0 | 1 => String::new(),
        times => format!(" {times} times"),
    };
    let text = format!("instance {} on {} failed{times}: {why}", one.id.short(), one.node);
    text.trim_end_matches([':', ' ']).to_owned()
}

impl Reign {
    /// The release that is in force: the one that the last deployment brought counts before the database shows it.
    pub(super) fn in_force(&self, app: &DesiredApp) -> Option<u64> {
        match self.rollouts.of(&app.name) {
            Some(rollout) if rollout.state == DeploymentState::Succeeded => Some(rollout.release),
            _ => app.release,
        }
    }

    /// The release that the app is being brought to.
    pub(super) fn goal(&self, app: &DesiredApp) -> Option<u64> {
        let Some(rollout) = self.rollouts.of(&app.name) else { return app.release };
        match rollout.state {
            DeploymentState::Rolling | DeploymentState::Verifying | DeploymentState::Succeeded => Some(rollout.release),
            _ => rollout.previous,
        }
    }

    /// Brings what is at work in line with what people asked for.
    pub(super) fn sync_rollouts(&mut self, desired: &Desired, now: Tick) {
        self.rollouts.at_work.retain(|name, _| desired.apps.contains_key(name));
        for app in desired.apps.values() {
            let wanted = app.deployment.as_ref();
            match (self.rollouts.at_work.get_mut(&app.name), wanted) {
                (Some(rollout), Some(wanted)) if (rollout.id, rollout.release) == (wanted.id, wanted.release) => {
                    rollout.cancel |= wanted.cancel;
                }
                (Some(_), None) => {
                    self.rollouts.at_work.remove(&app.name);
                }
                (None, None) => {}
                (_, Some(wanted)) => {
                    let mut begun = Rollout::begin(wanted, self.in_force(app), now);
                    // After a restore ids of deployments come again: what had this one is gone.
                    let before = self.rollouts.at_work.remove(&app.name).filter(|before| before.id != wanted.id);
                    if let Some(before) = before {
                        begun.brought.extend(before.brought.iter().filter(|release| Some(**release) != begun.previous));
                        self.end_older(app, &before);
                    }
                    self.rollouts.at_work.insert(app.name.clone(), begun);
                }
            }
            for id in &app.older_deployments {
                self.rollouts.ended.entry(*id).or_insert_with(|| {
                    let update = DeploymentUpdate {
                        id: *id,
                        app: app.name.clone(),
                        state: DeploymentState::Superseded,
                        reason: "a newer deployment took its place".to_owned(),
                        output: Vec::new(),
                        previous: None,
                        release_in_force: None,
                    };
                    (update, None)
                });
            }
        }
        let is_open =
            |app: &AppName, id: &u64| desired.apps.get(app).is_some_and(|app| app.older_deployments.contains(id));
        self.rollouts.ended.retain(|id, (update, told)| told.is_none() || is_open(&update.app, id));
    }

    fn end_older(&mut self, app: &DesiredApp, before: &Rollout) {
        let mut update = before.update(&app.name);
        if !before.state.is_final() {
            update.state = DeploymentState::Superseded;
            update.reason = "a newer deployment took its place".to_owned();
        }
        // What it had brought into force stays written even though a newer one is there.
        self.rollouts.ended.insert(before.id, (update, None));
    }

    /// Takes the app's deployment a step further, if its standing allows.
    pub(super) fn advance(&mut self, app: &DesiredApp, standing: &Standing, now: Tick) {
        let Some(mut rollout) = self.rollouts.of(&app.name).cloned() else { return };
        let before = rollout.state;
        self.step(&mut rollout, app, standing, now);
        if rollout.state != before {
            self.news.change();
            let detail = format!("deployment {}: {} {}", rollout.id, rollout.state.as_str(), rollout.reason);
            self.event(Some(&app.name), None, None, "deployment", detail.trim_end().to_owned());
        }
        self.rollouts.at_work.insert(app.name.clone(), rollout);
    }

    fn step(&self, rollout: &mut Rollout, app: &DesiredApp, standing: &Standing, now: Tick) {
        use DeploymentState::{Cancelled, Pending, RolledBack, Rolling, RollingBack, Succeeded, Verifying};
        if !self.permission.is_settled() || self.permission.only_replaces() || rollout.state.is_final() {
            rollout.progress_at = now;
            if let Some(frozen) = self.permission.frozen().filter(|_| self.revision.is_held()) {
                rollout.reason = format!("waiting: {frozen}");
            }
            return;
        }
        let count = self.count(app) as usize;
        match rollout.state {
            Pending if rollout.cancel => rollout.turn(Cancelled, "a person cancelled it".to_owned(), now),
            Pending if app.deleted => rollout.turn(Cancelled, "the app was deleted".to_owned(), now),
            Pending if !app.releases.contains_key(&rollout.release) => {
                rollout.reason = format!("release {} is not known", rollout.release);
            }
            Pending => rollout.turn(Rolling, String::new(), now),
            Rolling | Verifying if rollout.cancel => {
                rollout.turn(RollingBack, "a person cancelled it".to_owned(), now);
            }
            Rolling | Verifying if app.deleted => {
                rollout.turn(RollingBack, "the app was deleted".to_owned(), now);
            }
            Rolling | Verifying => {
                if let Some(reason) = self.failure(rollout, app, standing, now) {
                    rollout.turn(RollingBack, reason, now);
                    return;
                }
                let is_whole = standing.proved >= count && standing.leftovers == 0;
                let since = rollout.verify.map_or(now, |(since, _)| since);
                rollout.verify = is_whole.then(|| (since, self.verify_ms(app, rollout.release)));
                match rollout.verify {
                    Some((since, millis)) if now.saturating_sub(since) >= millis => {
                        rollout.turn(Succeeded, String::new(), now);
                    }
                    Some(_) => rollout.state = Verifying,
                    None => rollout.state = Rolling,
                }
            }
            RollingBack => {
                let is_back = rollout.previous.is_none() || standing.serving >= count;
                if is_back && standing.leftovers == 0 {
                    let end = if rollout.cancel { Cancelled } else { RolledBack };
                    rollout.turn(end, rollout.reason.clone(), now);
                }
            }
            Succeeded | RolledBack | Cancelled | DeploymentState::Superseded => {}
        }
    }

    fn verify_ms(&self, app: &DesiredApp, release: u64) -> u64 {
        app.releases.get(&release).map_or(self.settings.verify_ms, |spec| self.settings.times_of(spec).verify_ms)
    }

    /// Why the deployment has failed, if it has. Notes progress, and what it waits for.
    fn failure(&self, rollout: &mut Rollout, app: &DesiredApp, standing: &Standing, now: Tick) -> Option<String> {
        let of_release = self.fleet.of_app(&app.name).filter(|one| one.release == rollout.release);
        if let Some(one) = of_release.max_by_key(|one| (self.is_verdict(one), one.failures()))
            && self.is_verdict(one)
        {
            rollout.output = one.report.as_ref().map_or_else(Vec::new, |report| report.output.clone());
            return Some(verdict_on(one));
        }
        let away = usize::MAX - standing.leftovers;
        let (proved, serving, least) = rollout.progress;
        let better = (standing.proved.max(proved), standing.serving.max(serving), away.max(least));
        let frozen = self.permission.frozen();
        if better != rollout.progress || frozen.is_some() {
            rollout.progress = better;
            rollout.progress_at = now;
        }
        rollout.reason = match (frozen, &standing.refused) {
            (Some(frozen), _) => format!("waiting: {frozen}"),
            (None, Some(refused)) => refused.clone(),
            (None, None) => self
                .late_routers(now)
                .map_or_else(String::new, |names| format!("waiting for the router {names} to take the table over")),
        };
        let late = now.saturating_sub(rollout.progress_at) >= self.settings.progress_deadline_ms;
        late.then(|| {
            let secs = self.settings.progress_deadline_ms / 1_000;
            let text = format!(
                "no progress in {secs} s, {} of {} new instances serve: {}",
                standing.serving,
                self.count(app),
                rollout.reason
            );
            text.trim_end_matches([':', ' ']).to_owned()
        })
    }

    /// Whether what has become of an instance is the verdict on its release: it failed so often, or it ran and would not
    /// become ready.
    fn is_verdict(&self, one: &Instance) -> bool {
        one.failures() >= self.settings.start_failures || one.report.as_ref().is_some_and(|report| report.failed_start)
    }

    /// Routers that have not taken the table over in the time that is theirs.
    fn late_routers(&self, now: Tick) -> Option<String> {
        let (version, at) = self.table.published()?;
        let is_late = now.saturating_sub(at) >= self.settings.router_read_ms;
        let lagging = if is_late { self.lagging(version, now) } else { Vec::new() };
        (!lagging.is_empty()).then(|| lagging.join(", "))
    }

    /// What is to be written now: what is new, and what desired state does not show yet.
    pub(super) fn tell_deployments(&mut self, desired: &Desired, now: Tick) -> Vec<DeploymentUpdate> {
        let mut updates = Vec::new();
        for (update, told) in self.rollouts.ended.values_mut() {
            if told.is_none_or(|at| now.saturating_sub(at) >= REPEAT_MS) {
                *told = Some(now);
                updates.push(update.clone());
            }
        }
        for (name, rollout) in &mut self.rollouts.at_work {
            let shown = desired.apps.get(name).and_then(|app| app.deployment.as_ref()).map(|shown| shown.state);
            let is_new = match &rollout.told {
                None => rollout.state != DeploymentState::Pending || !rollout.reason.is_empty(),
                Some((state, reason, at)) => {
                    let differs = *state != rollout.state || *reason != rollout.reason;
                    let unseen = shown != Some(rollout.state) && now.saturating_sub(*at) >= REPEAT_MS;
                    differs || unseen
                }
            };
            if is_new {
                rollout.told = Some((rollout.state, rollout.reason.clone(), now));
                updates.push(rollout.update(name));
            }
        }
        updates
    }
}
