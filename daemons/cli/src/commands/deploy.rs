//! `dinp deploy`: from a package or an image to a served request.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use dinp_common::api::people::{AppCreate, AppState, AppView, Deploy as Request, DeploymentState, DeploymentView};
use dinp_common::model::{AppName, HealthCheck, ImageRef};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Waiting;
use super::build::{self, Upload};
use crate::api::Api;
use crate::error::{CliError, REFUSED};
use crate::follow;
use crate::output::Output;
use crate::package::Package;
use crate::probe;

/// How long after the verdict the app may take to answer from here.
const LAST_ANSWER: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  dinp deploy ./app.tar.gz --app hello --runtime python
  dinp deploy ./server --app api --health /health --instances 2
  dinp deploy --image registry.example:5000/team/hello:v3 --app hello --memory 512
  dinp deploy --image registry.example:5000/team/hello:v3 --app hello -- ./run --fast

What is not named stays as in the release in force. The command ends with 0 once the new release
serves, and with 4 when the build fails or the server takes the release back. The build log is
written to standard error.";

/// Arguments of `dinp deploy`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Deploy {
    /// Package to build: .tar.gz, .tar, .zip or one static executable
    #[arg(required_unless_present_any = ["image", "from_build"])]
    package: Option<PathBuf>,
    /// The app; it is created if it does not exist
    #[arg(long, short = 'a', value_name = "NAME")]
    app: AppName,
    /// Team of the app, where it is to be created
    #[arg(long, value_name = "TEAM", value_parser = super::team_name)]
    team: Option<String>,
    /// What to deploy
    #[command(flatten)]
    source: Source,
    /// How to run it
    #[command(flatten)]
    settings: Settings,
    /// Whether to wait
    #[command(flatten)]
    waiting: Waiting,
}

/// What is to be run, besides a package.
#[derive(Args, Clone, Debug)]
pub struct Source {
    /// Image to deploy instead of a package
    #[arg(long, value_name = "REF", conflicts_with_all = ["package", "from_build"])]
    pub image: Option<ImageRef>,
    /// Build to deploy instead of a package, by number
    #[arg(long = "build", id = "from_build", value_name = "ID", conflicts_with = "package")]
    pub build: Option<u64>,
    /// How to build it
    #[command(flatten)]
    pub upload: Upload,
}

/// How it is to be run.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Memory of each instance, in MiB [default: 256]
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Share of CPU of each instance: 0.5 or 500m [default: 0.1]
    #[arg(long, value_name = "CORES", value_parser = cpu)]
    cpu: Option<u32>,
    /// Limit of CPU of each instance [default: none]
    #[arg(long, value_name = "CORES", value_parser = cpu)]
    cpu_limit: Option<u32>,
    /// Number of instances from now on [default: 1]
    #[arg(long, short = 'n', value_name = "N")]
    instances: Option<u32>,
    /// Path that answers below 400 while an instance is well
    #[arg(long, value_name = "PATH", value_parser = health)]
    health: Option<HealthCheck>,
    /// Take the health check away
    #[arg(long, conflicts_with = "health")]
    no_health: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    /// Command instead of the image's own (Docker's CMD; an entry point of the image gets it as arguments)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Settings {
    fn request(&self) -> Request {
        let health = if self.no_health { Some(HealthCheck::new("")) } else { self.health.clone() };
        Request {
            memory_mb: self.memory,
            cpu_millis: self.cpu,
            cpu_limit_millis: self.cpu_limit,
            instances: self.instances,
            command: Some(self.command.clone()).filter(|command| !command.is_empty()),
            health,
            note: self.note.clone(),
            ..Request::default()
        }
    }
}

/// Cores, as people write them, in thousandths.
fn cpu(text: &str) -> Result<u32, String> {
    let rule = || format!("cpu \"{text}\" is not valid: write 0.5 or 500m");
    let millis = match text.strip_suffix('m') {
        Some(millis) => return millis.parse().ok().filter(|millis| *millis > 0).ok_or_else(rule),
        None => text.parse::<f64>().map_err(|_| rule())? * 1000.0,
    };
    if (1.0..=1_000_000.0).contains(&millis) {
        // In range, so that nothing is cut off but a fraction of a thousandth.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just above")]
        return Ok(millis.round() as u32);
    }
    Err(rule())
}

fn health(text: &str) -> Result<HealthCheck, dinp_common::model::InvalidValue> {
    let check = HealthCheck::new(text);
    check.check().map(|()| check)
}

/// What `dinp deploy --output json` prints: the deployment, and how it looked from here.
#[derive(Serialize)]
struct Deployed<'a> {
    #[serde(flatten)]
    deployment: &'a DeploymentView,
    urls: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<u64>,
    /// Milliseconds from the start of the command to the first good answer through the router.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_answer_ms: Option<u128>,
}

/// Runs `dinp deploy`.
pub async fn run(deploy: &Deploy, api: &Api, out: &Output) -> Result<(), CliError> {
    let start = Instant::now();
    // Whatever can be refused here is refused before an app comes about.
    let package = deploy.package.as_deref().map(Package::open).transpose()?;
    let found = api.find(&format!("/v1/apps/{}", deploy.app)).await?;
    let is_new = found.is_none();
    let app = match found {
        Some(app) => app,
        None => {
            if let Some(package) = &package {
                deploy.source.upload.runtime(api, &deploy.app, package).await?;
            }
            create(deploy, api, out).await?
        }
    };
    if let Some(team) = &deploy.team
        && app.team.as_ref() != Some(team)
    {
        out.note(format!(
            "{} exists and belongs to {}; --team {team} changes nothing",
            app.name,
            app.team.as_deref().unwrap_or(&app.owner)
        ));
    }
    let result =
        release(&app, package.as_ref(), &deploy.source, &deploy.settings, deploy.waiting, start, api, out).await;
    // What was refused leaves nothing behind. A build that failed keeps its app, because its log belongs to it.
    if is_new && result.as_ref().is_err_and(|error| error.code() == REFUSED) {
        match api.delete(&format!("/v1/apps/{}", deploy.app)).await {
            Ok(()) => out.note(format!("removed app {} again", deploy.app)),
            Err(error) => out.note(format!("app {} stays, without a release: {error}", deploy.app)),
        }
    }
    result
}

/// Runs `dinp app deploy`: the same for an app that exists.
pub async fn existing(
    name: &AppName,
    package: Option<&PathBuf>,
    source: &Source,
    settings: &Settings,
    waiting: Waiting,
    api: &Api,
    out: &Output,
) -> Result<(), CliError> {
    let start = Instant::now();
    let package = package.map(|path| Package::open(path)).transpose()?;
    let app: AppView = api.get(&format!("/v1/apps/{name}")).await?;
    release(&app, package.as_ref(), source, settings, waiting, start, api, out).await
}

async fn create(deploy: &Deploy, api: &Api, out: &Output) -> Result<AppView, CliError> {
    let body = AppCreate { name: deploy.app.clone(), team: deploy.team.clone(), instances: deploy.settings.instances };
    let app = api.post("/v1/apps", &body).await?;
    out.note(format!("created app {}", deploy.app));
    Ok(app)
}

#[expect(clippy::too_many_arguments, reason = "the two commands that end here share all of these and nothing else")]
async fn release(
    app: &AppView,
    package: Option<&Package>,
    source: &Source,
    settings: &Settings,
    waiting: Waiting,
    start: Instant,
    api: &Api,
    out: &Output,
) -> Result<(), CliError> {
    let build = match package {
        Some(package) => Some(build::package(&app.name, package, &source.upload, api, out).await?.id),
        None => source.build,
    };
    let request = Request { image: source.image.clone(), build, ..settings.request() };
    let deployment: DeploymentView = api.post(&format!("/v1/apps/{}/deployments", app.name), &request).await?;
    let app = AppView { instances: settings.instances.unwrap_or(app.instances), ..app.clone() };
    let result = watch(&app, deployment, waiting, api, out).await?;
    let first_answer = result.first_answer.map(|at| at.duration_since(start));
    let document = Deployed {
        deployment: &result.deployment,
        urls: &app.urls,
        build,
        first_answer_ms: first_answer.map(|time| time.as_millis()),
    };
    if out.is_json() {
        out.json(&document)?;
        return if waiting.wanted() { follow::deployed(&result.deployment) } else { Ok(()) };
    }
    say(&app, &result, first_answer, waiting, out)
}

/// A deployment that was waited for.
pub struct Watched {
    /// As it ended, or as it began where nobody waited.
    pub deployment: DeploymentView,
    /// When the app first answered from here.
    pub first_answer: Option<Instant>,
}

/// Waits for a deployment, and for the app's first answer meanwhile.
pub async fn watch(
    app: &AppView,
    deployment: DeploymentView,
    waiting: Waiting,
    api: &Api,
    out: &Output,
) -> Result<Watched, CliError> {
    if !waiting.wanted() {
        return Ok(Watched { deployment, first_answer: None });
    }
    let expects_answer = app.instances > 0 && app.state == AppState::Started;
    let is_first = app.release.is_none();
    let mut answer: Option<Answer> = None;
    let deployment = follow::deployment(api, out, deployment, app.instances, |state| {
        // While the release before still answers, an answer says nothing about this one.
        let tells = is_first || matches!(state, DeploymentState::Verifying | DeploymentState::Succeeded);
        if tells && expects_answer && answer.is_none() {
            answer = app.urls.first().map(|url| Answer::wait(url.clone()));
        }
    })
    .await?;
    let first_answer = match answer {
        Some(answer) if deployment.state == DeploymentState::Succeeded => answer.within(LAST_ANSWER).await,
        _ => None,
    };
    Ok(Watched { deployment, first_answer })
}

/// A wait for an app's first answer that ends with its owner.
struct Answer(JoinHandle<Option<Instant>>);

impl Answer {
    fn wait(url: String) -> Self {
        Self(tokio::spawn(async move { probe::first_answer(&url).await }))
    }

    async fn within(mut self, limit: Duration) -> Option<Instant> {
        timeout(limit, &mut self.0).await.ok()?.ok()?
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn say(
    app: &AppView,
    result: &Watched,
    first: Option<Duration>,
    waiting: Waiting,
    out: &Output,
) -> Result<(), CliError> {
    let deployment = &result.deployment;
    let (name, number) = (&app.name, deployment.release_number);
    if !waiting.wanted() {
        return out.line(format!(
            "deployment {} of {name} release {number} is {}",
            deployment.id,
            deployment.state.as_str()
        ));
    }
    follow::deployed(deployment)?;
    out.line(format!("{name} release {number} is deployed ({} instances)", app.instances))?;
    let Some(url) = app.urls.first() else { return Ok(()) };
    match first {
        Some(time) => out.line(format!("{url}  first answer after {:.1} s", time.as_secs_f64())),
        None => out.line(url),
    }
}

/// Waits for a deployment that another command has caused, and says how it ended.
pub async fn finish(
    app: &AppView,
    deployment: DeploymentView,
    waiting: Waiting,
    api: &Api,
    out: &Output,
) -> Result<(), CliError> {
    let result = watch(app, deployment, waiting, api, out).await?;
    if out.is_json() {
        out.json(&result.deployment)?;
        return if waiting.wanted() { follow::deployed(&result.deployment) } else { Ok(()) };
    }
    say(app, &result, None, waiting, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_written_in_two_ways() {
        assert_eq!(cpu("0.5"), Ok(500));
        assert_eq!(cpu("2"), Ok(2000));
        assert_eq!(cpu("250m"), Ok(250));
        for bad in ["", "0", "-1", "m", "0m", "1e99", "NaN", "x"] {
            assert!(cpu(bad).unwrap_err().starts_with(&format!("cpu \"{bad}\" is not valid")), "{bad}");
        }
    }
}
