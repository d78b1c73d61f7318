//! Waiting for a build or a deployment while saying what goes on. The server is the judge; this only watches.

use std::time::{Duration, Instant};

use dinp_common::api::Page;
use dinp_common::api::agent::InstanceState;
use dinp_common::api::builder::{BuildStatus, BuildView};
use dinp_common::api::people::{AppInstance, AppView, DeploymentState, DeploymentView};
use http::Method;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::sleep;

use crate::api::Api;
use crate::error::CliError;
use crate::output::Output;

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(250);
/// How long dash may give no answer before waiting ends; what was asked for goes on without us.
const PATIENCE: Duration = Duration::from_secs(60);

/// One line that changes in place on a terminal, and a line per change elsewhere.
pub struct Progress<'a> {
    out: &'a Output,
    bar: ProgressBar,
    last: String,
}

impl<'a> Progress<'a> {
    /// Nothing is shown before the first word.
    pub fn new(out: &'a Output) -> Self {
        let bar = ProgressBar::with_draw_target(None, out.draw_target());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { out, bar, last: String::new() }
    }

    /// Says what goes on.
    pub fn say(&mut self, text: String) {
        if text != self.last {
            if self.out.is_live() {
                self.bar.set_message(text.clone());
                self.bar.enable_steady_tick(Duration::from_millis(100));
            } else {
                self.out.note(&text);
            }
            self.last = text;
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Passes a build's log on as it grows, until the build ends; returns its record.
pub async fn build(
    api: &Api,
    out: &Output,
    id: u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<BuildView, CliError> {
    let mut seen = 0;
    let mut patience = Patience::new(out);
    loop {
        match log(api, id, true, &mut seen, &mut sink).await {
            Ok(()) => {
                let build: BuildView = match api.get(&format!("/v1/builds/{id}")).await {
                    Ok(build) => build,
                    Err(error) => {
                        patience.bear(error)?;
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                patience.reset();
                if build.status.is_final() {
                    return Ok(build);
                }
            }
            Err(error) => patience.bear(error)?,
        }
        sleep(PAUSE).await;
    }
}

/// Passes a build's log on, without the bytes that were seen before a stream broke.
pub async fn log(
    api: &Api,
    id: u64,
    follow: bool,
    seen: &mut usize,
    sink: &mut impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let path = format!("/v1/builds/{id}/log?follow={follow}");
    let mut response = api.send(api.request(Method::GET, &path)?).await?;
    let mut at = 0;
    while let Some(chunk) = response.chunk().await.map_err(|error| api.broken(error))? {
        let new = seen.saturating_sub(at).min(chunk.len());
        at += chunk.len();
        *seen = at.max(*seen);
        sink(&chunk[new..])?;
    }
    Ok(())
}

/// The verdict of a build.
pub fn built(build: &BuildView) -> Result<(), CliError> {
    let (id, reason) = (build.id, build.reason.as_str());
    let message = match build.status {
        BuildStatus::Succeeded => return Ok(()),
        BuildStatus::Cancelled => format!("build {id} of {} was cancelled", build.app),
        _ if reason.is_empty() => format!("build {id} of {} failed at \"{}\"", build.app, build.stage),
        _ => format!("build {id} of {} failed: {reason}", build.app),
    };
    Err(CliError::NotDeployed {
        message,
        hint: format!("`dinp build log {id}` shows the whole log; nothing was deployed"),
        output: Vec::new(),
    })
}

/// Waits until a deployment ends; `step` hears of each state.
pub async fn deployment(
    api: &Api,
    out: &Output,
    first: DeploymentView,
    wanted: u32,
    mut step: impl FnMut(DeploymentState),
) -> Result<DeploymentView, CliError> {
    let mut progress = Progress::new(out);
    let mut patience = Patience::new(out);
    let mut deployment = first;
    let path = format!("/v1/deployments/{}", deployment.id);
    loop {
        step(deployment.state);
        if deployment.state.is_final() {
            return Ok(deployment);
        }
        let instances = format!("/v1/apps/{}/instances", deployment.app);
        let counted = match api.list::<AppInstance>(&instances).await {
            Ok(page) => counts(&page, deployment.release_id, wanted),
            // Without the leader there is nothing to count; the deployment itself is in the database.
            Err(error) if error.is_transient() => "instances are not known now".into(),
            Err(error) => return Err(meanwhile(error, &deployment)),
        };
        progress.say(told(&deployment, &counted));
        sleep(PAUSE).await;
        match api.get::<DeploymentView>(&path).await {
            Ok(next) => {
                patience.reset();
                deployment = next;
            }
            Err(error) => patience.bear(meanwhile(error, &deployment))?,
        }
    }
}

/// An error while a deployment goes on; one that is not there any more went with its app.
fn meanwhile(error: CliError, deployment: &DeploymentView) -> CliError {
    if error.status() != Some(404) {
        return error;
    }
    CliError::NotDeployed {
        message: format!("app {} was deleted before its deployment ended", deployment.app),
        hint: String::new(),
        output: Vec::new(),
    }
}

fn told(deployment: &DeploymentView, counted: &str) -> String {
    let state = match deployment.state {
        DeploymentState::Pending => "waiting to begin",
        DeploymentState::Rolling => "rolling",
        DeploymentState::Verifying => "watching the new release",
        DeploymentState::RollingBack if deployment.previous_number.is_none() => "taking the release back",
        DeploymentState::RollingBack => "going back to the release before",
        _ => deployment.state.as_str(),
    };
    let reason = if deployment.reason.is_empty() { String::new() } else { format!(" ({})", deployment.reason) };
    format!("{} release {}: {state}, {counted}{reason}", deployment.app, deployment.release_number)
}

/// How far a release is: new ones that serve, and old ones that are still there because of that.
fn counts(page: &Page<AppInstance>, release: u64, wanted: u32) -> String {
    let of = |new: bool| page.items.iter().map(|one| &one.view).filter(move |view| (view.release == release) == new);
    let ready = of(true).filter(|view| view.state == InstanceState::Ready).count();
    let routed = of(true).filter(|view| view.routed).count();
    let old = of(false).count();
    let mut text = format!("{ready}/{wanted} ready");
    if routed < ready {
        text += &format!(", {routed} routed");
    }
    if old > 0 {
        text += &format!(", {old} of other releases left");
    }
    text
}

/// The verdict of a deployment.
pub fn deployed(deployment: &DeploymentView) -> Result<(), CliError> {
    let DeploymentView { id, app, release_number: release, .. } = deployment;
    let because = if deployment.reason.is_empty() { String::new() } else { format!(": {}", deployment.reason) };
    let (message, hint) = match deployment.state {
        DeploymentState::Succeeded => return Ok(()),
        DeploymentState::Cancelled => (format!("deployment {id} of {app} was cancelled{because}"), String::new()),
        DeploymentState::Superseded => (
            format!("deployment {id} of {app} was overtaken by a newer one{because}"),
            format!("`dinp app show {app}` shows that one"),
        ),
        DeploymentState::RolledBack => (
            format!("release {release} of {app} did not come up and was taken back{because}"),
            format!("{}; `dinp logs {app} --previous` and `dinp events {app}` show more", left(deployment)),
        ),
        state => (
            format!("deployment {id} of {app} has not ended: it is {}{because}", state.as_str()),
            format!("`dinp app show {app}` tells how it goes on"),
        ),
    };
    Err(CliError::NotDeployed { message, hint, output: deployment.output.clone() })
}

/// What is in force after a release was taken back.
fn left(deployment: &DeploymentView) -> String {
    match deployment.previous_number {
        Some(number) => format!("release {number} is in force as before"),
        None => "nothing was in force before, so nothing runs".into(),
    }
}

/// Waits until as many instances serve as are wanted.
pub async fn scaled(api: &Api, out: &Output, name: &str) -> Result<AppView, CliError> {
    let mut progress = Progress::new(out);
    let mut patience = Patience::new(out);
    loop {
        match api.get::<AppView>(&format!("/v1/apps/{name}")).await {
            Ok(app) => {
                patience.reset();
                let page = api.list::<AppInstance>(&format!("/v1/apps/{name}/instances")).await;
                let present = page.map(|page| page.items.len()).ok();
                if app.ready == Some(app.instances) && present == usize::try_from(app.instances).ok() {
                    return Ok(app);
                }
                let ready = app.ready.map_or("?".into(), |ready| ready.to_string());
                progress.say(format!("{name}: {ready}/{} ready", app.instances));
            }
            Err(error) => patience.bear(error)?,
        }
        sleep(PAUSE).await;
    }
}

/// Bears answers that fail for a while.
struct Patience<'a> {
    out: &'a Output,
    since: Option<Instant>,
}

impl<'a> Patience<'a> {
    fn new(out: &'a Output) -> Self {
        Self { out, since: None }
    }

    fn reset(&mut self) {
        self.since = None;
    }

    fn bear(&mut self, error: CliError) -> Result<(), CliError> {
        if !error.is_transient() {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(|| {
            self.out.note(format!("{error}; trying again"));
            Instant::now()
        });
        if since.elapsed() < PATIENCE {
            return Ok(());
        }
        Err(CliError::Unavailable {
            message: format!("gave up waiting after {} s: {error}", PATIENCE.as_secs()),
            hint: "what was asked for goes on without this program; `dinp app show` tells how it ended".into(),
        })
    }
}
