//! Nodes for operators, users and teams for administrators.

use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::show::{self, Badge};
use super::{Page, Shared, done, html};
use crate::{Caller, Dash, people, refuse};
use askama::Template;
use axum::Extension;
use axum::extract::{Path, Query, State};
use dinp_common::api::control::ClusterStatus;
use dinp_common::api::uic::{MemberPut, PlatformRole, TeamCreate, TeamInfo, TeamRole, UserCreate, UserInfo, UserPatch};
use dinp_common::problem::Problem;
use http::{Method, StatusCode};

struct NodeRow {
    name: String,
    address: String,
    zone: String,
    badge: Badge,
    cordoned: bool,
    instances: u32,
    memory: String,
    cpu: String,
    heard: String,
    version: String,
    error: String,
}

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    frame: Frame,
    status: Option<ClusterStatus>,
    rows: Vec<NodeRow>,
    error: Option<String>,
}

/// `GET /nodes`.
pub(super) async fn nodes(State(dash): Shared, Extension(caller): Extension<Caller>) -> Page {
    let (nodes, error) = match dash.nodes().await {
        Ok(nodes) => (nodes, None),
        Err(problem) => (Vec::new(), Some(problem.detail)),
    };
    let status = dash.glance().await.ok();
    let rows = nodes
        .into_iter()
        .map(|node| (node.problems().join("; "), node))
        .map(|(problems, node)| NodeRow {
            badge: show::node(node.condition),
            memory: format!("{} of {} MiB", node.booked.memory_mb, node.capacity.memory_mb),
            cpu: format!("{} of {} cores", cores(node.booked.cpu_millis), cores(node.capacity.cpu_millis)),
            heard: node.last_report.map(|at| show::moment(at).ago).unwrap_or_else(|| "never".to_owned()),
            name: node.name.into(),
            address: node.address,
            zone: node.zone,
            cordoned: node.cordoned,
            instances: node.instances,
            version: node.agent_version,
            error: problems,
        })
        .collect();
    let frame = Frame::new(&dash, &caller, "nodes").await;
    Ok(html(StatusCode::OK, &NodesPage { frame, status, rows, error }))
}

fn cores(millis: u32) -> String {
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}

#[derive(Template)]
#[template(path = "people.html")]
struct PeoplePage {
    frame: Frame,
    user_form: Form,
    team_form: Form,
    error: Option<String>,
    users: Vec<UserInfo>,
    teams: Vec<TeamInfo>,
}

impl PeoplePage {
    /// The word of a platform role.
    fn role(&self, role: &PlatformRole) -> &'static str {
        match role {
            PlatformRole::User => "user",
            PlatformRole::Operator => "operator",
            PlatformRole::Admin => "admin",
        }
    }

    /// The word of a role in a team.
    fn team_role(&self, role: &TeamRole) -> &'static str {
        match role {
            TeamRole::Viewer => "viewer",
            TeamRole::Deployer => "deployer",
            TeamRole::Owner => "owner",
        }
    }
}

async fn people_page(
    dash: &Dash,
    caller: &Caller,
    said: &DoneQuery,
    user: Form,
    team: Form,
    error: Option<Problem>,
) -> Page {
    let users = dash.users("limit=1000").await?.items;
    let teams = dash.teams("limit=1000").await?.items;
    let status = [user.status(), team.status()].into_iter().find(|status| *status != StatusCode::OK);
    let status = status.or_else(|| StatusCode::from_u16(error.as_ref()?.status).ok()).unwrap_or(StatusCode::OK);
    let page = PeoplePage {
        frame: Frame::new(dash, caller, "people").await.with_notice(said),
        user_form: user,
        team_form: team,
        error: error.map(|problem| problem.detail),
        users,
        teams,
    };
    Ok(html(status, &page))
}

fn user_form() -> Form {
    Form::of([("name", String::new()), ("password", String::new()), ("role", "user".to_owned())])
}

fn team_form() -> Form {
    Form::of([("name", String::new())])
}

/// `GET /people`.
pub(super) async fn people(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Query(said): Query<DoneQuery>,
) -> Page {
    people_page(&dash, &caller, &said, user_form(), team_form(), None).await
}

fn word<T: serde::de::DeserializeOwned>(text: &str, field: &str) -> Result<T, Problem> {
    let value = serde_json::Value::String(text.to_owned());
    serde_json::from_value(value).map_err(|_| refuse(field, "invalid-value", format!("there is no role {text}")))
}

/// `POST /people/users`.
pub(super) async fn create_user(State(dash): Shared, Extension(caller): Extension<Caller>, Sent(form): Sent) -> Page {
    let create = async {
        let new = UserCreate {
            name: form.value("name").trim().to_owned(),
            password: form.value("password").to_owned(),
            role: word(form.value("role"), "role")?,
        };
        dash.at_uic::<_, UserInfo>(&caller, Method::POST, "/v1/users", Some(&new)).await
    };
    match create.await {
        Ok(_) => Ok(done("/people", "saved")),
        Err(problem) => {
            // A password is typed again rather than sent back.
            let again = Form::of([
                ("name", form.value("name").to_owned()),
                ("password", String::new()),
                ("role", form.value("role").to_owned()),
            ]);
            people_page(&dash, &caller, &DoneQuery::default(), again.with(problem), team_form(), None).await
        }
    }
}

/// `POST /people/users/{name}`: role, suspension, new password, or removal.
pub(super) async fn change_user(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Sent(form): Sent,
) -> Page {
    let change = async {
        let patch = match form.value("act") {
            "role" => UserPatch { role: Some(word(form.value("role"), "role")?), ..UserPatch::default() },
            "suspend" => UserPatch { suspended: Some(true), ..UserPatch::default() },
            "resume" => UserPatch { suspended: Some(false), ..UserPatch::default() },
            "password" => UserPatch { password: Some(form.value("password").to_owned()), ..UserPatch::default() },
            "remove" => {
                if form.value("confirm").trim() != name {
                    return Err(refuse("confirm", "name-differs", format!("type {name} to remove this user")));
                }
                return dash.remove_user(&caller, &name).await;
            }
            _ => return Err(Problem::bad_request("invalid-form", "there is no such change of a user")),
        };
        dash.at_uic::<_, UserInfo>(&caller, Method::PATCH, &people::user_path(&name), Some(&patch)).await.map(drop)
    };
    match change.await {
        Ok(()) => Ok(done("/people", "saved")),
        Err(problem) => {
            people_page(&dash, &caller, &DoneQuery::default(), user_form(), team_form(), Some(problem)).await
        }
    }
}

/// `POST /people/teams`.
pub(super) async fn create_team(State(dash): Shared, Extension(caller): Extension<Caller>, Sent(form): Sent) -> Page {
    let new = TeamCreate { name: form.value("name").trim().to_owned() };
    match dash.at_uic::<_, TeamInfo>(&caller, Method::POST, "/v1/teams", Some(&new)).await {
        Ok(_) => Ok(done("/people", "saved")),
        Err(problem) => people_page(&dash, &caller, &DoneQuery::default(), user_form(), form.with(problem), None).await,
    }
}

/// `POST /people/teams/{name}`: a member's role, or removal of a member or of the team.
pub(super) async fn change_team(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Sent(form): Sent,
) -> Page {
    let change = async {
        let member = people::member_path(&name, form.value("user").trim());
        match form.value("act") {
            "put" if form.value("user").trim().is_empty() => {
                Err(refuse("user", "invalid-value", "name the user who is to be a member"))
            }
            "put" => {
                let put = MemberPut { role: word(form.value("role"), "role")? };
                dash.at_uic::<_, TeamInfo>(&caller, Method::PUT, &member, Some(&put)).await.map(drop)
            }
            "leave" => dash.at_uic::<(), ()>(&caller, Method::DELETE, &member, None).await,
            "remove" if form.value("confirm").trim() != name => {
                Err(refuse("confirm", "name-differs", format!("type {name} to remove this team")))
            }
            "remove" => dash.remove_team(&caller, &name).await,
            _ => Err(Problem::bad_request("invalid-form", "there is no such change of a team")),
        }
    };
    match change.await {
        Ok(()) => Ok(done("/people", "saved")),
        Err(problem) => {
            people_page(&dash, &caller, &DoneQuery::default(), user_form(), team_form(), Some(problem)).await
        }
    }
}
