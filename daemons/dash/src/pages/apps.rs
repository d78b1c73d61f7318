//! The list of apps, and new ones.

use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::show::{self, Badge};
use super::{Page, Shared, done, html};
use crate::{Caller, Dash, invalid};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use dinp_common::api::people::AppCreate;
use dinp_common::api::uic::{PlatformRole, TeamRole};
use dinp_common::model::{AppName, InvalidValue};
use dinp_common::problem::Problem;
use dinp_common::store::app;
use http::StatusCode;
use serde::Deserialize;

/// Apps on one page.
const PER_PAGE: u32 = 100;

struct Row {
    name: String,
    belongs_to: String,
    instances: String,
    release: String,
    image: String,
    badge: Badge,
    url: String,
}

#[derive(Template)]
#[template(path = "apps.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<Row>,
    next: Option<String>,
    first: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    after: String,
}

/// `GET /apps`.
pub(super) async fn list(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
    Query(said): Query<DoneQuery>,
) -> Page {
    let mut conn = dash.conn().await?;
    let mut rows = app::list(&mut conn, caller.visible(), &query.after, PER_PAGE + 1).await?;
    let more = rows.len() > PER_PAGE as usize;
    rows.truncate(PER_PAGE as usize);
    let views = dash.app_views(&mut conn, rows, true).await?;
    drop(conn);
    let next = if more { views.last().map(|view| view.name.to_string()) } else { None };
    let rows = views
        .into_iter()
        .map(|view| Row {
            badge: show::app(&view),
            belongs_to: view.team.unwrap_or(view.owner),
            instances: match view.ready {
                Some(ready) => format!("{ready} of {}", view.instances),
                None => format!("? of {}", view.instances),
            },
            release: view.release.as_ref().map(|release| format!("#{}", release.number)).unwrap_or_default(),
            image: view.release.as_ref().map(|release| show::image(&release.image)).unwrap_or_default(),
            url: view.urls.into_iter().next().unwrap_or_default(),
            name: view.name.into(),
        })
        .collect();
    let frame = Frame::new(&dash, &caller, "apps").await.with_notice(&said);
    Ok(html(StatusCode::OK, &ListPage { frame, rows, next, first: query.after.is_empty() }))
}

#[derive(Template)]
#[template(path = "app_new.html")]
struct NewPage {
    frame: Frame,
    form: Form,
    teams: Vec<String>,
    any_team: bool,
    domain: String,
    max: u32,
}

async fn new_page(dash: &Dash, caller: &Caller, form: Form) -> Response {
    let deploys = |role: TeamRole| role >= TeamRole::Deployer;
    let teams =
        caller.user.teams.iter().filter(|member| deploys(member.role)).map(|member| member.team.clone()).collect();
    let status = form.status();
    let page = NewPage {
        frame: Frame::new(dash, caller, "apps").await,
        form,
        teams,
        any_team: caller.user.role >= PlatformRole::Operator,
        domain: dash.cluster.domain.clone(),
        max: dash.config.limits.instances_max,
    };
    html(status, &page)
}

/// `GET /apps/new`.
pub(super) async fn new(State(dash): Shared, Extension(caller): Extension<Caller>) -> Response {
    let form = Form::of([("name", String::new()), ("instances", "1".to_owned()), ("team", String::new())]);
    new_page(&dash, &caller, form).await
}

/// `POST /apps`.
pub(super) async fn create(State(dash): Shared, Extension(caller): Extension<Caller>, Sent(form): Sent) -> Response {
    let create = async {
        let name: AppName = form.value("name").trim().parse().map_err(|error: InvalidValue| invalid("name", &error))?;
        let new = AppCreate { name, team: form.text("team"), instances: form.number("instances", "instance count")? };
        dash.create_app(&caller, new).await
    };
    match create.await {
        Ok(view) => done(&format!("/apps/{}", view.name), "created"),
        Err(problem) => new_page(&dash, &caller, form.with(as_field(problem))).await,
    }
}

/// A refusal of the team stands at the team.
fn as_field(problem: Problem) -> Problem {
    if problem.status == 403 { problem.with("field", "team") } else { problem }
}
