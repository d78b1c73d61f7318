//! `dinp build rebase`: apps on their bases as those are now, one after another, with a brake and a report.

use clap::Args;
use dinp_common::api::builder::{RebaseView, Standing};
use dinp_common::api::people::{AppState, AppView, Deploy, DeploymentView, Rebase as Wish};
use dinp_common::model::AppName;
use serde::Serialize;

use super::app;
use crate::api::Api;
use crate::error::CliError;
use crate::follow;
use crate::output::{Output, dash};

/// What `--help` adds.
pub const EXAMPLES: &str = "\
Examples:
  dinp setup base-images             (on the control machine: makes bases anew that are outdated)
  dinp build rebase --all --check    (says which apps stand on an older base, and changes nothing)
  dinp build rebase --all            (moves them and deploys each, one after another)
  dinp build rebase hello --no-deploy

The package stays as it is: its layer is put on the new base. Each app is deployed as by `dinp deploy --build`, and the
next begins when it has proved itself; the first that does not is taken back and ends the command, unless
--stop-after says otherwise. Where the package is needed, the report says why: deploy it again.";

/// Arguments of `dinp build rebase`.
#[derive(Args, Clone, Debug)]
pub struct Rebase {
    /// The apps
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "APP")]
    apps: Vec<AppName>,
    /// All apps that you may deploy to
    #[arg(long)]
    all: bool,
    /// Only say how each app stands
    #[arg(long, conflicts_with = "no_deploy")]
    check: bool,
    /// Make the images and deploy nothing
    #[arg(long)]
    no_deploy: bool,
    /// Go on until so many apps have failed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    stop_after: u32,
}

/// What became of an app.
#[derive(Debug, Serialize)]
struct Report {
    app: AppName,
    was: String,
    now: String,
    result: String,
    failed: bool,
}

/// Runs it.
pub async fn run(rebase: &Rebase, api: &Api, out: &Output) -> Result<(), CliError> {
    let names = match rebase.all {
        true => api.list::<AppView>("/v1/apps").await?.items.into_iter().map(|app| app.name).collect(),
        false => rebase.apps.clone(),
    };
    let (mut reports, mut failures) = (Vec::new(), 0);
    for name in &names {
        let report = if failures >= rebase.stop_after {
            Report {
                app: name.clone(),
                was: String::new(),
                now: String::new(),
                result: "not tried".into(),
                failed: false,
            }
        } else {
            one(name, rebase, api, out).await?
        };
        failures += u32::from(report.failed);
        reports.push(report);
    }
    out.show(&reports, || {
        let row = |report: &Report| {
            vec![report.app.to_string(), dash(short(&report.was)), dash(short(&report.now)), report.result.clone()]
        };
        out.table(&["APP", "BASE", "NOW", "RESULT"], reports.iter().map(row).collect(), "there is no app")
    })?;
    match failures {
        0 => Ok(()),
        failures => Err(CliError::NotDeployed {
            message: format!("{failures} of {} apps could not be moved", names.len()),
            hint: "what was moved stays; the same command goes on with the rest".into(),
            output: Vec::new(),
        }),
    }
}

async fn one(name: &AppName, rebase: &Rebase, api: &Api, out: &Output) -> Result<Report, CliError> {
    let path = app::path(name);
    let asked = async {
        let app: AppView = api.get(&path).await?;
        if app.release.is_none() {
            return Ok(None);
        }
        let view: RebaseView = api.post(&format!("{path}/rebase"), &Wish { check: rebase.check }).await?;
        Ok(Some((app, view)))
    };
    let report = |was: &str, now: &str, result: String, failed| Report {
        app: name.clone(),
        was: was.to_owned(),
        now: now.to_owned(),
        result,
        failed,
    };
    let (app, view) = match asked.await {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(report("", "", "has no release".into(), false)),
        // Of all apps, some may be others' to deploy.
        Err(error @ CliError::Server { .. }) if rebase.all && error.status() == Some(403) => {
            return Ok(report("", "", "is not yours to deploy".into(), false));
        }
        Err(error) if error.status().is_some() && rebase.all => return Ok(report("", "", error.to_string(), true)),
        Err(error) => return Err(error),
    };
    let result = match (view.standing, &view.build) {
        (Standing::Current, _) => Ok("is current".into()),
        (Standing::Due, _) => Ok("can be moved".into()),
        (Standing::NeedsPackage, _) => Ok(format!("needs its package: {}", view.reason)),
        (Standing::Rebased, Some(build)) if rebase.check => {
            Ok(format!("was moved by build {}, not deployed", build.id))
        }
        (Standing::Rebased, Some(build)) => moved(&app, build.id, rebase, api, out).await,
        (Standing::Rebased, None) => Err(CliError::refused("the builder does not say what it does", "")),
    };
    let failed = result.is_err();
    let result = result.unwrap_or_else(|error| error.to_string());
    out.note(format!("{name}: {result}"));
    Ok(report(&view.was, &view.now, result, failed))
}

async fn moved(app: &AppView, build: u64, rebase: &Rebase, api: &Api, out: &Output) -> Result<String, CliError> {
    let built = follow::build(api, out, build, |_| Ok(())).await?;
    follow::built(&built)?;
    if rebase.no_deploy {
        return Ok(format!("is moved by build {build}, not deployed"));
    }
    if app.state == AppState::Stopped {
        return Ok(format!("is moved by build {build}, and stopped: not deployed"));
    }
    let note = format!("version {} on its base as it is now", built.version);
    let wish = Deploy { build: Some(build), note, ..Deploy::default() };
    let deployment: DeploymentView = api.post(&format!("{}/deployments", app::path(&app.name)), &wish).await?;
    let ended = follow::deployment(api, out, deployment, app.instances, |_| ()).await?;
    follow::deployed(&ended)?;
    Ok(format!("is moved, release {}", ended.release_number))
}

/// An image as people know it: its last name, its tag, and the beginning of its digest.
fn short(image: &str) -> String {
    let (name, digest) = image.split_once('@').unwrap_or((image, ""));
    let name = name.rsplit('/').next().unwrap_or(name);
    match digest.trim_start_matches("sha256:").get(..8) {
        Some(digest) => format!("{name} {digest}"),
        None => name.to_owned(),
    }
}
