//! One app: overview, scale, stop and start, events, delete.

use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::show::{self, Badge, DeploymentRow, InstanceRow, Moment};
use super::{Page, Shared, done, html, to_app};
use crate::{Caller, Dash, permissions, refuse};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use dinp_common::api::people::{AppState, AppView, Scale};
use dinp_common::api::uic::TeamRole;
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::{deployment, event};
use http::StatusCode;
use serde::Deserialize;

/// Events on one page.
const EVENTS: u32 = 100;

/// What stands above every page of an app.
pub(super) struct Head {
    pub name: String,
    pub url: String,
    pub badge: Badge,
    pub tab: &'static str,
    pub can_deploy: bool,
    pub can_own: bool,
}

impl Head {
    pub(super) fn new(caller: &Caller, view: &AppView, tab: &'static str) -> Self {
        let role = permissions::role_on(&caller.user, &view.owner, view.team.as_deref());
        Self {
            name: view.name.to_string(),
            url: view.urls.first().cloned().unwrap_or_default(),
            badge: show::app(view),
            tab,
            can_deploy: role >= Some(TeamRole::Deployer),
            can_own: role >= Some(TeamRole::Owner),
        }
    }

    /// The host name that the app answers at.
    pub(super) fn host(&self) -> String {
        url::Url::parse(&self.url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Whether this tab is the page's.
    pub(super) fn is_at(&self, tab: &str) -> bool {
        self.tab == tab
    }
}

#[derive(Template)]
#[template(path = "app.html")]
struct OverviewPage {
    frame: Frame,
    head: Head,
    form: Form,
    ready: String,
    wanted: u32,
    started: bool,
    release: Option<show::ReleaseRow>,
    domains: Vec<String>,
    belongs_to: String,
    created: Moment,
    deployment: Option<DeploymentRow>,
    meanwhile: String,
    instances: Vec<InstanceRow>,
    unknown: Option<String>,
    max: u32,
}

async fn overview_page(dash: &Dash, caller: &Caller, row: &AppRow, said: &DoneQuery, form: Form) -> Page {
    let view = dash.app_view(row).await?;
    let (instances, unknown) = match dash.instances(&row.name).await {
        Ok(instances) => (instances, None),
        Err(problem) => (Vec::new(), Some(problem.detail)),
    };
    let mut frame = Frame::new(dash, caller, "apps").await.with_notice(said);
    let deployment = view.deployment.as_ref().map(show::deployment_row);
    if deployment.as_ref().is_some_and(|deployment| deployment.under_way) {
        frame.reload_secs = 3;
    }
    let head = Head::new(caller, &view, "overview");
    let status = form.status();
    let page = OverviewPage {
        head,
        frame,
        form,
        ready: view.ready.map_or("?".to_owned(), |ready| ready.to_string()),
        wanted: view.instances,
        started: view.state == AppState::Started,
        release: view.release.as_ref().map(|release| show::release_row(release, Some(release.id))),
        domains: view.urls.iter().skip(1).cloned().collect(),
        belongs_to: view.team.clone().unwrap_or_else(|| view.owner.clone()),
        created: show::moment(view.created_at),
        deployment,
        meanwhile: show::meanwhile(&view),
        instances: instances.iter().map(show::instance_row).collect(),
        unknown,
        max: dash.config.limits.instances_max,
    };
    Ok(html(status, &page))
}

fn scale_form(row: &AppRow) -> Form {
    Form::of([("instances", row.instances.to_string())])
}

/// `GET /apps/{app}`.
pub(super) async fn overview(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(said): Query<DoneQuery>,
) -> Page {
    overview_page(&dash, &caller, &row, &said, scale_form(&row)).await
}

fn here(row: &AppRow) -> String {
    format!("/apps/{}", row.name)
}

/// `POST /apps/{app}/scale`.
pub(super) async fn scale(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let scale = async {
        let missing = || refuse("instances", "invalid-value", "name a number of instances");
        let instances = form.number("instances", "instance count")?.ok_or_else(missing)?;
        dash.scale_app(&caller, &row, &Scale { instances }).await
    };
    match scale.await {
        Ok(_) => Ok(done(&here(&row), "scaled")),
        Err(problem) => overview_page(&dash, &caller, &row, &DoneQuery::default(), form.with(problem)).await,
    }
}

/// `POST /apps/{app}/state`.
pub(super) async fn state(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let (state, what) = match form.value("state") {
        "started" => (AppState::Started, "started"),
        "stopped" => (AppState::Stopped, "stopped"),
        _ => return Err(Problem::bad_request("invalid-form", "the state must be started or stopped").into()),
    };
    dash.set_app_state(&caller, &row, state).await?;
    Ok(done(&here(&row), what))
}

/// `POST /apps/{app}/cancel`.
pub(super) async fn cancel(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let none = || Problem::not_found("there is no such deployment of this app");
    let id: u64 = form.number("deployment", "deployment")?.ok_or_else(none)?;
    let view = deployment::find(&mut dash.conn().await?, id).await?.filter(|view| view.app == row.name);
    dash.cancel_deployment(&caller, &view.ok_or_else(none)?).await?;
    Ok(to_app(&row))
}

struct EventRow {
    at: Moment,
    kind: String,
    instance: String,
    short: String,
    node: String,
    detail: String,
}

#[derive(Template)]
#[template(path = "app_events.html")]
struct EventsPage {
    frame: Frame,
    head: Head,
    rows: Vec<EventRow>,
    next: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct EventsQuery {
    after: Option<u64>,
}

/// `GET /apps/{app}/events`.
pub(super) async fn events(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(query): Query<EventsQuery>,
) -> Page {
    let view = dash.app_view(&row).await?;
    let events = event::list(&mut dash.conn().await?, &row.name, query.after, EVENTS).await?;
    let next = if events.len() == EVENTS as usize { events.last().map(|(id, _)| *id) } else { None };
    let rows = events
        .into_iter()
        .map(|(_, event)| EventRow {
            at: show::moment(event.at),
            kind: event.kind.replace('_', " "),
            short: event.instance.iter().flat_map(|id| id.chars().take(8)).collect(),
            instance: event.instance.unwrap_or_default(),
            node: event.node.unwrap_or_default(),
            detail: event.detail,
        })
        .collect();
    let head = Head::new(&caller, &view, "events");
    let page = EventsPage { frame: Frame::new(&dash, &caller, "apps").await, head, rows, next };
    Ok(html(StatusCode::OK, &page))
}

#[derive(Template)]
#[template(path = "app_delete.html")]
struct DeletePage {
    frame: Frame,
    head: Head,
    form: Form,
}

async fn delete_page(dash: &Dash, caller: &Caller, row: &AppRow, form: Form) -> Page {
    let view = dash.app_view(row).await?;
    let status = form.status();
    let head = Head::new(caller, &view, "delete");
    Ok(html(status, &DeletePage { frame: Frame::new(dash, caller, "apps").await, head, form }))
}

/// `GET /apps/{app}/delete`.
pub(super) async fn confirm_delete(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
) -> Page {
    delete_page(&dash, &caller, &row, Form::of([("name", String::new())])).await
}

/// `POST /apps/{app}/delete`: the name must have been typed.
pub(super) async fn delete(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    if form.value("name").trim() != row.name.as_str() {
        let problem = refuse("name", "name-differs", format!("type {} to delete this app", row.name));
        return delete_page(&dash, &caller, &row, form.with(problem)).await;
    }
    dash.delete_app(&caller, &row).await?;
    Ok(done("/apps", "deleted"))
}
