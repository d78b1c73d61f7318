//! `dinp deploy`: from a package or an image to a served request.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use dinp_common::api::people::{
    AppCreate, AppState, AppView, Deploy as Request, DeploymentState, DeploymentView, EnvView,
};
use dinp_common::model::{AppName, ImageRef};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::build::{self, Upload};
use super::settings::{self, Settings};
use super::{Waiting, app, env};
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
  dinp deploy ./app.tar.gz --app hello
  dinp deploy ./server --app api --health /health --instances 2
  dinp deploy --image registry.example:5000/team/hello:v3 --app hello --memory 512
  dinp deploy --image registry.example:5000/team/hello:v3 --app hello -- ./run --fast
  dinp deploy ./app.tar.gz --app hello --env-file .env --env DATABASE_URL=- < url
  dinp deploy ./app.tar.gz --app hello --start-timeout 120 --health /health

A setting is kept by every later deploy until it is changed, whatever failed in between; the word
default gives a time back to the cluster. Path and host of a health check are one setting. What a
failed release has brought into the environment is left out, unless --keep-env is given.

The command ends with 0 once all instances of the new release have proved themselves, and with 4,
the reason and the last lines of the instance that failed when the build fails or the release is
taken back. The build log is written to standard error.";

/// Arguments of `dinp deploy`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Deploy {
    /// Directory, http or https address, or package to build: .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .tar, .zip, .war, .jar or one static executable
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
    let package = deploy.package.as_deref().map(|path| Package::open(path, out)).transpose()?;
    let request = deploy.settings.request()?;
    settings::check(&request, api).await?;
    let found = api.find(&app::path(&deploy.app)).await?;
    let is_new = found.is_none();
    let app = match found {
        Some(app) => app,
        None => create(deploy, api, out).await?,
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
    let wanted = Wanted { package: package.as_ref(), source: &deploy.source, request, waiting: deploy.waiting, start };
    let result = release(&app, wanted, api, out).await;
    // What was refused leaves nothing behind. A build that failed keeps its app, because its log belongs to it.
    if is_new && result.as_ref().is_err_and(|error| error.code() == REFUSED) {
        match api.delete(&app::path(&deploy.app)).await {
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
    let package = package.map(|path| Package::open(path, out)).transpose()?;
    let request = settings.request()?;
    settings::check(&request, api).await?;
    let app: AppView = api.get(&app::path(name)).await?;
    release(&app, Wanted { package: package.as_ref(), source, request, waiting, start }, api, out).await
}

async fn create(deploy: &Deploy, api: &Api, out: &Output) -> Result<AppView, CliError> {
    let body = AppCreate { name: deploy.app.clone(), team: deploy.team.clone(), instances: deploy.settings.instances };
    let app = api.post("/v1/apps", &body).await?;
    out.note(format!("created app {}", deploy.app));
    Ok(app)
}

/// What is to come into force, and since when somebody waits for it.
struct Wanted<'a> {
    package: Option<&'a Package>,
    source: &'a Source,
    request: Request,
    waiting: Waiting,
    start: Instant,
}

async fn release(app: &AppView, wanted: Wanted<'_>, api: &Api, out: &Output) -> Result<(), CliError> {
    let Wanted { package, source, request, waiting, start } = wanted;
    let build = match package {
        Some(package) => Some(build::package(&app.name, package, &source.upload, &request.note, api, out).await?.id),
        None => source.build,
    };
    if !request.env.keep
        && let Some(env) = api.find::<EnvView>(&format!("{}/env", app::path(&app.name))).await?
        && let Some(left_out) = &env.left_out
    {
        out.note(env::left_out(left_out, env.deployed_version, "--keep-env"));
    }
    let app = AppView { instances: request.instances.unwrap_or(app.instances), ..app.clone() };
    let request = Request { image: source.image.clone(), build, ..request };
    let deployment: DeploymentView = api.post(&format!("{}/deployments", app::path(&app.name)), &request).await?;
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
    if app.state == AppState::Stopped {
        return out.line(format!("{name} release {number} is in force; `dinp app start {name}` starts it"));
    }
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
