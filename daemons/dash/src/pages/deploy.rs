//! Deploying an image, and what was deployed before.

use super::app::Head;
use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::settings_form::{self, TIMES, TimeField};
use super::show::{self, DeploymentRow, ReleaseRow};
use super::{Page, Shared, html, to_app};
use crate::inherit::Parents;
use crate::{Caller, Dash, invalid};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use dinp_common::api::people::{AppView, Deploy, ReleaseView, Rollback};
use dinp_common::model::{InvalidValue, Limits};
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
    times: &'static [TimeField],
    left_out: Option<String>,
}

/// The fields as they are now: image and command of what runs, and the settings that were made last.
fn fields(instances: u32, parents: &Parents) -> Form {
    let form = settings_form::fields(instances, parents.settings.as_ref());
    match &parents.running {
        Some(running) => form.and("image", tagged(running)).and("command", settings_form::command(running)),
        None => form.and("image", String::new()),
    }
}

/// The image as a person would name it: by tag where there is one, so that a new one under the tag is found.
fn tagged(release: &ReleaseView) -> String {
    let text = release.image.to_string();
    match (release.image.tag(), text.split_once('@')) {
        (Some(_), Some((name, _))) => name.to_owned(),
        _ => text,
    }
}

/// What the form asks for.
fn wish(form: &Form, parents: &Parents) -> Result<Deploy, Problem> {
    let image = form.text("image").map(|text| text.parse()).transpose();
    let image = image.map_err(|error: InvalidValue| invalid("image", &error))?;
    Ok(Deploy { image, ..settings_form::wish(form, parents.settings.as_ref())? })
}

async fn page(dash: &Dash, caller: &Caller, row: &AppRow, view: &AppView, form: Form) -> Page {
    let status = form.status();
    let page = DeployPage {
        frame: Frame::new(dash, caller, "apps").await,
        head: Head::new(caller, view, "deploy"),
        form,
        first: view.release.is_none(),
        registry: dash.cluster.registry.address.clone(),
        limits: dash.config.limits.clone(),
        times: TIMES,
        left_out: dash.env_left_out(row).await?.as_ref().map(show::left_out),
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
    let form = fields(view.instances, &dash.parents(&row).await?);
    page(&dash, &caller, &row, &view, form).await
}

/// `POST /apps/{app}/deploy`.
pub(super) async fn deploy(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let parents = dash.parents(&row).await?;
    let deploy = async { dash.deploy(&caller, &row, &wish(&form, &parents)?).await };
    match deploy.await {
        Ok(_) => Ok(to_app(&row)),
        Err(problem) => {
            let view = dash.app_view(&row).await?;
            page(&dash, &caller, &row, &view, form.with(problem)).await
        }
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
    can_go_back: bool,
}

async fn history_page(dash: &Dash, caller: &Caller, row: &AppRow, problem: Option<Problem>) -> Page {
    let view = dash.app_view(row).await?;
    let mut conn = dash.conn().await?;
    let deployments = deployment::list(&mut conn, &row.name, None, SHOWN).await?;
    let releases = release::list(&mut conn, &row.name, None, SHOWN).await?;
    drop(conn);
    let in_force = view.release.as_ref().map(|release| release.id);
    let status = problem.as_ref().map_or(200, |problem| problem.status);
    let releases: Vec<ReleaseRow> = releases.iter().map(|view| show::release_row(view, in_force)).collect();
    let page = HistoryPage {
        frame: Frame::new(dash, caller, "apps").await,
        head: Head::new(caller, &view, "history"),
        error: problem.map(|problem| problem.detail),
        deployments: deployments.iter().map(show::deployment_row).collect(),
        can_go_back: releases.iter().any(|release| release.came_up && !release.in_force),
        releases,
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
        Ok(_) => Ok(to_app(&row)),
        Err(problem) => history_page(&dash, &caller, &row, Some(problem)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_offers_what_runs_with_the_settings_that_were_made_last() {
        let release = |tag: &str, memory: u32| -> ReleaseView {
            serde_json::from_value(serde_json::json!({
                "id": 1, "number": 1, "image": format!("control:5000/anna/web:{tag}"), "command": ["run", tag],
                "memory_mb": memory, "cpu_millis": 100, "env_version": 0, "instances": 1, "created_by": "anna",
                "created_at": 0,
            }))
            .unwrap()
        };
        let parents = Parents { settings: Some(release("failed", 512)), running: Some(release("good", 256)) };
        let form = fields(2, &parents);
        assert_eq!((form.value("image"), form.value("command")), ("control:5000/anna/web:good", "run\ngood"));
        assert_eq!(form.value("memory_mb"), "512");
        let form = fields(2, &Parents { running: None, ..parents });
        assert_eq!((form.value("image"), form.value("command")), ("", "run\nfailed"));
    }
}
