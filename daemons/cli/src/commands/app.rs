//! `dinp app`: apps and their releases.

use std::path::PathBuf;

use clap::Subcommand;
use dinp_common::api::people::{AppCreate, AppState, AppView, DeploymentView, ReleaseView, Rollback, Scale};
use dinp_common::model::{AppName, HealthCheck, HealthKind, Timing};

use super::deploy::{self, Source};
use super::domain::DomainCommand;
use super::env::EnvCommand;
use super::ps::{self, Events};
use super::settings::Settings;
use super::{Consent, Waiting, domain, env};
use crate::api::Api;
use crate::error::CliError;
use crate::follow;
use crate::output::{Output, age, dash, time};

/// `dinp app ...`
#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Create an app; it runs once something is deployed
    Create {
        /// Its name: a DNS label, because it becomes <name>.<domain>
        name: AppName,
        /// Team that it belongs to [default: it is yours alone]
        #[arg(long, value_name = "TEAM", value_parser = super::team_name)]
        team: Option<String>,
        /// Number of instances, once it has a release [default: 1]
        #[arg(long, short = 'n', value_name = "N")]
        instances: Option<u32>,
    },
    /// The apps that you can see
    Ls,
    /// One app: release, deployment, addresses
    Show {
        /// The app
        app: AppName,
    },
    /// Deploy an image, a build or a package to an app that exists
    #[command(after_help = "Examples:\n  dinp app deploy hello --image registry.example:5000/team/hello:v3\n  \
        dinp app deploy hello --build 12 --instances 4\n  dinp app deploy hello ./app.tar.gz\n  \
        dinp app deploy hello --memory 512     the same image with more memory\n\n\
        A setting is kept by every later deploy until it is changed, whatever failed in between.")]
    Deploy {
        /// The app
        app: AppName,
        /// Directory, http or https address, or package to build: .tar.gz, .tar.zst, .tar.xz, .tar.bz2, .tar, .zip, .war, .jar or one static executable
        package: Option<PathBuf>,
        /// What to deploy
        #[command(flatten)]
        source: Box<Source>,
        /// How to run it
        #[command(flatten)]
        settings: Box<Settings>,
        /// Whether to wait
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Change the number of instances
    Scale {
        /// The app
        app: AppName,
        /// Number of instances
        instances: u32,
        /// Wait until they serve
        #[arg(long)]
        wait: bool,
    },
    /// Go back to an earlier release
    Rollback {
        /// The app
        app: AppName,
        /// Number of the release [default: the one before the present one]
        #[arg(long, value_name = "N")]
        to: Option<u32>,
        /// Whether to wait
        #[command(flatten)]
        waiting: Waiting,
    },
    /// End the deployment that is under way
    Cancel {
        /// The app
        app: AppName,
    },
    /// Environment variables: ls, set, unset
    #[command(after_help = env::EXAMPLES)]
    Env {
        /// The app
        app: AppName,
        /// What to do
        #[command(subcommand)]
        command: Option<EnvCommand>,
    },
    /// Domains besides <app>.<domain>: ls, add, rm
    Domain {
        /// The app
        app: AppName,
        /// What to do
        #[command(subcommand)]
        command: Option<DomainCommand>,
    },
    /// Stop all instances; the app and its settings stay
    Stop {
        /// The app
        app: AppName,
    },
    /// Start a stopped app
    Start {
        /// The app
        app: AppName,
        /// Wait until it serves
        #[arg(long)]
        wait: bool,
    },
    /// Delete an app: its instances stop, its name is free
    Rm {
        /// The app
        app: AppName,
        /// Whether to ask
        #[command(flatten)]
        consent: Consent,
    },
    /// Releases, newest first: * is in force, ! has never come up
    Releases {
        /// The app
        app: AppName,
    },
    /// Deployments, newest first
    Deployments {
        /// The app
        app: AppName,
    },
    /// What happened to an app
    Events(Events),
}

/// Runs `dinp app`.
pub async fn run(command: &AppCommand, api: &Api, out: &Output) -> Result<(), CliError> {
    match command {
        AppCommand::Create { name, team, instances } => {
            let body = AppCreate { name: name.clone(), team: team.clone(), instances: *instances };
            let app: AppView = api.post("/v1/apps", &body).await?;
            out.done(&app, &format!("created app {name}; deploy to it with `dinp deploy PACKAGE --app {name}`"))
        }
        AppCommand::Ls => {
            let apps = api.list::<AppView>("/v1/apps").await?;
            out.show(&apps, || table(&apps.items, out))
        }
        AppCommand::Show { app } => {
            let app: AppView = api.get(&path(app)).await?;
            out.show(&app, || show(&app, out))
        }
        AppCommand::Deploy { app, package, source, settings, waiting } => {
            deploy::existing(app, package.as_ref(), source, settings, *waiting, api, out).await
        }
        AppCommand::Scale { app, instances, wait } => {
            let view: AppView = api.put(&format!("{}/scale", path(app)), &Scale { instances: *instances }).await?;
            let view = if *wait && is_running(&view) { follow::scaled(api, out, app.as_str()).await? } else { view };
            out.done(&view, &format!("{app} is to have {instances} instances"))
        }
        AppCommand::Rollback { app, to, waiting } => {
            let view: AppView = api.get(&path(app)).await?;
            let deployment = api.post(&format!("{}/rollback", path(app)), &Rollback { release: *to }).await?;
            deploy::finish(&view, deployment, *waiting, api, out).await
        }
        AppCommand::Cancel { app } => cancel(app, api, out).await,
        AppCommand::Env { app, command } => env::run(app, command.as_ref().unwrap_or(&EnvCommand::Ls), api, out).await,
        AppCommand::Domain { app, command } => {
            domain::run(app, command.as_ref().unwrap_or(&DomainCommand::Ls), api, out).await
        }
        AppCommand::Stop { app } => {
            let view: AppView = api.post(&format!("{}/stop", path(app)), &()).await?;
            out.done(&view, &format!("{app} is being stopped; `dinp app start {app}` brings it back"))
        }
        AppCommand::Start { app, wait } => {
            let view: AppView = api.post(&format!("{}/start", path(app)), &()).await?;
            let view = if *wait && is_running(&view) { follow::scaled(api, out, app.as_str()).await? } else { view };
            out.done(&view, &format!("{app} is being started with {} instances", view.instances))
        }
        AppCommand::Rm { app, consent } => {
            out.confirm(consent.yes, &format!("Delete app {app} and stop all its instances?"))?;
            api.delete(&path(app)).await?;
            out.note(format!("deleted app {app}"));
            Ok(())
        }
        AppCommand::Releases { app } => {
            let releases = api.list::<ReleaseView>(&format!("{}/releases", path(app))).await?;
            let in_force = api.get::<AppView>(&path(app)).await?.release.map(|release| release.id);
            out.show(&releases, || release_table(&releases.items, in_force, out))
        }
        AppCommand::Deployments { app } => {
            let deployments = api.list::<DeploymentView>(&format!("{}/deployments", path(app))).await?;
            out.show(&deployments, || {
                deployment_table(&deployments.items, out)?;
                last_output(deployments.items.first(), out);
                Ok(())
            })
        }
        AppCommand::Events(events) => ps::events(events, api, out).await,
    }
}

/// Path of an app in the API.
pub fn path(app: &AppName) -> String {
    format!("/v1/apps/{app}")
}

fn is_running(app: &AppView) -> bool {
    app.release.is_some() && app.state == AppState::Started
}

async fn cancel(app: &AppName, api: &Api, out: &Output) -> Result<(), CliError> {
    let view: AppView = api.get(&path(app)).await?;
    let Some(deployment) = view.deployment.filter(|deployment| !deployment.state.is_final()) else {
        return Err(CliError::refused(
            format!("{app} has no deployment under way"),
            format!("`dinp app show {app}` shows the last one"),
        ));
    };
    let ended: DeploymentView = api.post(&format!("/v1/deployments/{}/cancel", deployment.id), &()).await?;
    out.done(&ended, &format!("deployment {} of {app} is being cancelled", ended.id))
}

/// Instances that serve, of those wanted.
fn ready(app: &AppView) -> String {
    let ready = app.ready.map_or("?".into(), |ready| ready.to_string());
    let wanted = if app.state == AppState::Stopped { 0 } else { app.instances };
    format!("{ready}/{wanted}")
}

fn table(apps: &[AppView], out: &Output) -> Result<(), CliError> {
    let row = |app: &AppView| {
        let deployment = app.deployment.as_ref().map(|deployment| deployment.state.as_str());
        vec![
            app.name.to_string(),
            dash(app.team.clone().unwrap_or_default()),
            app.state.as_str().to_owned(),
            ready(app),
            dash(app.release.as_ref().map(|release| release.number.to_string()).unwrap_or_default()),
            dash(deployment.unwrap_or_default()),
            dash(app.urls.first().cloned().unwrap_or_default()),
            age(app.created_at),
        ]
    };
    let headers = ["NAME", "TEAM", "STATE", "READY", "RELEASE", "DEPLOYMENT", "URL", "AGE"];
    out.table(&headers, apps.iter().map(row).collect(), "no apps yet: `dinp deploy PACKAGE --app NAME` makes one")
}

fn show(app: &AppView, out: &Output) -> Result<(), CliError> {
    let release = app.release.as_ref();
    let newest = app.deployment.as_ref();
    let deployment = newest.map(|deployment| {
        let reason = if deployment.reason.is_empty() { String::new() } else { format!(": {}", deployment.reason) };
        format!("{} of release {} {}{reason}", deployment.id, deployment.release_number, deployment.state.as_str())
    });
    out.pairs(vec![
        ("name", app.name.to_string()),
        ("owner", app.owner.clone()),
        ("team", app.team.clone().unwrap_or_default()),
        ("state", app.state.as_str().to_owned()),
        ("ready", ready(app)),
        ("release", release.map(|release| release.number.to_string()).unwrap_or("none".into())),
        ("image", release.map(|release| release.image.to_string()).unwrap_or_default()),
        (
            "command",
            release.and_then(|release| release.command.as_ref()).map(|words| words.join(" ")).unwrap_or_default(),
        ),
        ("memory", release.map(|release| format!("{} MiB", release.memory_mb)).unwrap_or_default()),
        ("cpu", release.map(|release| cores(release.cpu_millis)).unwrap_or_default()),
        ("cpu limit", release.and_then(|release| release.cpu_limit_millis).map(cores).unwrap_or_default()),
        ("health", release.and_then(|release| release.health.as_ref()).map(health).unwrap_or_default()),
        ("times", release.map(|release| times(&release.timing)).unwrap_or_default()),
        ("deployment", deployment.unwrap_or_default()),
        ("it wrote", newest.map(|deployment| deployment.output.join("\n")).unwrap_or_default()),
        ("urls", app.urls.join("\n")),
        ("created", time(app.created_at)),
    ])
}

/// What a health check asks.
fn health(check: &HealthCheck) -> String {
    match (check.kind, &check.host) {
        (HealthKind::Tcp, _) => "connection".to_owned(),
        (HealthKind::Http, Some(host)) => format!("{} of {host}", check.path),
        (HealthKind::Http, None) => check.path.clone(),
    }
}

/// The times that people have set.
fn times(timing: &Timing) -> String {
    let times = [
        ("start timeout", timing.start_timeout_secs),
        ("min healthy", timing.min_healthy_secs),
        ("verify", timing.verify_secs),
        ("drain timeout", timing.drain_timeout_secs),
        ("stop grace", timing.stop_grace_secs),
    ];
    let set = times.iter().filter_map(|(name, secs)| secs.map(|secs| format!("{name} {secs} s")));
    set.collect::<Vec<_>>().join(", ")
}

/// Thousandths of a core, for people.
pub fn cores(millis: u32) -> String {
    format!("{}", f64::from(millis) / 1000.0)
}

fn release_table(releases: &[ReleaseView], in_force: Option<u64>, out: &Output) -> Result<(), CliError> {
    let row = |release: &ReleaseView| {
        let number = release.number;
        vec![
            match in_force {
                Some(id) if id == release.id => format!("{number} *"),
                _ if !release.came_up => format!("{number} !"),
                _ => number.to_string(),
            },
            short_image(release),
            release.memory_mb.to_string(),
            release.instances.to_string(),
            release.env_version.to_string(),
            release.created_by.clone(),
            age(release.created_at),
            release.note.clone(),
        ]
    };
    let headers = ["RELEASE", "IMAGE", "MEMORY", "INSTANCES", "ENV", "BY", "AGE", "NOTE"];
    out.table(&headers, releases.iter().map(row).collect(), "no releases yet")
}

/// Image without registry, with as much of the digest as tells images apart.
fn short_image(release: &ReleaseView) -> String {
    let image = &release.image;
    let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = image.digest().and_then(|digest| digest.get(7..19)).map(|hex| format!("@{hex}")).unwrap_or_default();
    format!("{}{tag}{digest}", image.repository())
}

/// What the instance wrote last for which the newest deployment failed.
fn last_output(newest: Option<&DeploymentView>, out: &Output) {
    if let Some(newest) = newest.filter(|newest| !newest.output.is_empty()) {
        out.note(format!("deployment {}: the last that its instance wrote:", newest.id));
        newest.output.iter().for_each(|line| out.note(format!("  {line}")));
    }
}

fn deployment_table(deployments: &[DeploymentView], out: &Output) -> Result<(), CliError> {
    let row = |deployment: &DeploymentView| {
        vec![
            deployment.id.to_string(),
            deployment.release_number.to_string(),
            deployment.state.as_str().to_owned(),
            deployment.created_by.clone(),
            age(deployment.created_at),
            deployment.reason.clone(),
        ]
    };
    let headers = ["DEPLOYMENT", "RELEASE", "STATE", "BY", "AGE", "REASON"];
    out.table(&headers, deployments.iter().map(row).collect(), "no deployments yet")
}
