//! Deploying an image, and what was deployed before.

use super::app::Head;
use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::show::{self, DeploymentRow, ReleaseRow};
use super::{Page, Shared, done, html};
use crate::{Caller, Dash, invalid};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use dinp_common::api::people::{AppView, Deploy, ReleaseView, Rollback};
use dinp_common::model::{HealthCheck, InvalidValue, Limits, Timing};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::{deployment, release};
use http::StatusCode;

/// Releases and deployments shown.
const SHOWN: u32 = 50;

#[derive(Template)]
#[template(path = "app_deploy.html")]
struct DeployPage {
    frame: Frame,
    head: Head,
    form: Form,
    first: bool,
    registry: String,
    limits: Limits,
}

/// The fields as the release in force has them.
fn fields(view: &AppView, release: Option<&ReleaseView>) -> Form {
    let number = |value: Option<u32>| value.map(|value| value.to_string()).unwrap_or_default();
    let health = release.and_then(|release| release.health.as_ref());
    Form::of([
        ("image", release.map(tagged).unwrap_or_default()),
        ("instances", view.instances.to_string()),
        ("memory_mb", release.map_or(256, |release| release.memory_mb).to_string()),
        ("cpu_millis", release.map_or(100, |release| release.cpu_millis).to_string()),
        ("cpu_limit_millis", number(release.and_then(|release| release.cpu_limit_millis))),
        ("health", health.map(|health| health.path.clone()).unwrap_or_default()),
        (
            "command",
            release.and_then(|release| release.command.as_ref()).map(|words| words.join("\n")).unwrap_or_default(),
        ),
        ("note", String::new()),
    ])
}

/// The image as a person would name it: by tag where there is one, so that a new one under the tag is found.
fn tagged(release: &ReleaseView) -> String {
    let text = release.image.to_string();
    match (release.image.tag(), text.split_once('@')) {
        (Some(_), Some((name, _))) => name.to_owned(),
        _ => text,
    }
}

/// What a form of the fields above asks for; the health check keeps the times of the one before.
pub(super) fn wish(form: &Form, before: Option<&HealthCheck>) -> Result<Deploy, Problem> {
    let path = form.value("health").trim();
    let health = match before {
        Some(before) => HealthCheck { path: path.to_owned(), ..before.clone() },
        None => HealthCheck::new(path),
    };
    let words = form.value("command").lines().map(str::trim_end).filter(|word| !word.is_empty());
    Ok(Deploy {
        image: form
            .text("image")
            .map(|text| text.parse())
            .transpose()
            .map_err(|error: InvalidValue| invalid("image", &error))?,
        build: None,
        memory_mb: form.number("memory_mb", "memory")?,
        cpu_millis: form.number("cpu_millis", "cpu")?,
        cpu_limit_millis: form.number("cpu_limit_millis", "cpu limit")?,
        instances: form.number("instances", "instance count")?,
        command: Some(words.map(str::to_owned).collect()),
        health: Some(health),
        timing: Timing::default(),
        note: form.value("note").trim().to_owned(),
    })
}

async fn page(dash: &Dash, caller: &Caller, view: &AppView, form: Form) -> Page {
    let status = form.status();
    let page = DeployPage {
        frame: Frame::new(dash, caller, "apps").await,
        head: Head::new(caller, view, "deploy"),
        form,
        first: view.release.is_none(),
        registry: dash.cluster.registry.address.clone(),
        limits: dash.config.limits.clone(),
    };
    Ok(html(status, &page))
}

/// `GET /apps/{app}/deploy`.
pub(super) async fn form(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
) -> Page {
    let view = dash.app_view(&row).await?;
    let form = fields(&view, view.release.as_ref());
    page(&dash, &caller, &view, form).await
}

/// `POST /apps/{app}/deploy`.
pub(super) async fn deploy(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let view = dash.app_view(&row).await?;
    let before = view.release.as_ref().and_then(|release| release.health.as_ref());
    let deploy = async { dash.deploy(&caller, &row, &wish(&form, before)?).await };
    match deploy.await {
        Ok(_) => Ok(done(&format!("/apps/{}", row.name), "deployed")),
        Err(problem) => page(&dash, &caller, &view, form.with(problem)).await,
    }
}

#[derive(Template)]
#[template(path = "app_history.html")]
struct HistoryPage {
    frame: Frame,
    head: Head,
    error: Option<String>,
    deployments: Vec<DeploymentRow>,
    releases: Vec<ReleaseRow>,
}

async fn history_page(dash: &Dash, caller: &Caller, row: &AppRow, problem: Option<Problem>) -> Page {
    let view = dash.app_view(row).await?;
    let mut conn = dash.conn().await?;
    let deployments = deployment::list(&mut conn, &row.name, None, SHOWN).await?;
    let releases = release::list(&mut conn, &row.name, None, SHOWN).await?;
    drop(conn);
    let in_force = view.release.as_ref().map(|release| release.id);
    let status = problem.as_ref().map_or(200, |problem| problem.status);
    let page = HistoryPage {
        frame: Frame::new(dash, caller, "apps").await,
        head: Head::new(caller, &view, "history"),
        error: problem.map(|problem| problem.detail),
        deployments: deployments.iter().map(show::deployment_row).collect(),
        releases: releases.iter().map(|view| show::release_row(view, in_force)).collect(),
    };
    Ok(html(StatusCode::from_u16(status).unwrap_or(StatusCode::OK), &page))
}

/// `GET /apps/{app}/history`.
pub(super) async fn history(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(_): Query<DoneQuery>,
) -> Page {
    history_page(&dash, &caller, &row, None).await
}

/// `POST /apps/{app}/rollback`.
pub(super) async fn rollback(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let back = async {
        let release = form.number("release", "release")?;
        dash.rollback(&caller, &row, &Rollback { release }).await
    };
    match back.await {
        Ok(_) => Ok(done(&format!("/apps/{}", row.name), "rolled-back")),
        Err(problem) => history_page(&dash, &caller, &row, Some(problem)).await,
    }
}
