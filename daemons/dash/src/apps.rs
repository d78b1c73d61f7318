//! Apps: create, show, scale, stop, start, delete.

use crate::{Caller, Dash, invalid, permissions, record, refuse};
use dinp_common::api::people::{AppCreate, AppState, AppView, Scale};
use dinp_common::model::AppName;
use dinp_common::problem::Problem;
use dinp_common::store::app::{self, AppRow, NewApp};
use dinp_common::store::{Change, deployment, domain, release};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

/// The audit log's name of an app.
pub(crate) fn object(name: &AppName) -> String {
    format!("app/{name}")
}

/// The app as it is within a change.
pub(crate) async fn within(change: &mut Change, known: &AppRow) -> Result<AppRow, Problem> {
    again(&mut change.tx, known).await
}

/// The app as it is now. Since the caller was let in to it, it may have been deleted, and somebody else may have created
/// another one of its name: that is not the same app.
async fn again<Q: Queryable>(conn: &mut Q, known: &AppRow) -> Result<AppRow, Problem> {
    let row = app::find(conn, &known.name).await?;
    let row = row.filter(|row| !row.deleted && row.created_at == known.created_at);
    row.ok_or_else(|| no_app(&known.name))
}

fn no_app(name: &AppName) -> Problem {
    Problem::not_found(format!("there is no app {name}"))
}

impl Dash {
    /// Where an app answers by its own name.
    pub(crate) fn url_of(&self, name: &AppName) -> String {
        self.url_of_host(&format!("{name}.{}", self.cluster.domain))
    }

    /// Where a host name is answered by the routers.
    pub(crate) fn url_of_host(&self, host: &str) -> String {
        let port = self.apps_url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{host}{port}/", self.apps_url.scheme())
    }

    /// Rows as people see them. `live` says whether the leader is asked how many instances serve.
    pub(crate) async fn app_views(
        &self,
        conn: &mut Conn,
        rows: Vec<AppRow>,
        live: bool,
    ) -> Result<Vec<AppView>, Problem> {
        let names: Vec<&AppName> = rows.iter().map(|row| &row.name).collect();
        let release_ids: Vec<u64> = rows.iter().filter_map(|row| row.release_id).collect();
        let releases = release::by_ids(conn, &release_ids).await?;
        let deployments = deployment::newest(conn, &names).await?;
        let domains = domain::of_apps(conn, &names).await?;
        let only = if let [one] = names.as_slice() { Some(*one) } else { None };
        let ready = if live && !names.is_empty() { self.ready_counts(only).await } else { None };
        Ok(rows
            .into_iter()
            .map(|row| {
                let own = std::iter::once(self.url_of(&row.name));
                let others =
                    domains.iter().filter(|(app, _)| *app == row.name).map(|(_, name)| self.url_of_host(name.as_str()));
                AppView {
                    urls: own.chain(others).collect(),
                    ready: ready.as_ref().map(|ready| ready.get(row.name.as_str()).copied().unwrap_or(0)),
                    release: releases.iter().find(|release| Some(release.id) == row.release_id).cloned(),
                    deployment: deployments.iter().find(|deployment| deployment.app == row.name).cloned(),
                    name: row.name,
                    owner: row.owner,
                    team: row.team,
                    state: row.state,
                    instances: row.instances,
                    created_at: row.created_at,
                }
            })
            .collect())
    }

    /// One app as people see it, read anew.
    pub(crate) async fn app_view(&self, known: &AppRow) -> Result<AppView, Problem> {
        let mut conn = self.conn().await?;
        let row = again(&mut conn, known).await?;
        self.app_views(&mut conn, vec![row], true).await?.pop().ok_or_else(|| no_app(&known.name))
    }

    /// Adds an app.
    pub(crate) async fn create_app(&self, caller: &Caller, new: AppCreate) -> Result<AppView, Problem> {
        let name = &new.name;
        if self.config.reserved_names.iter().any(|reserved| reserved == name.as_str()) {
            return Err(refuse("name", "name-reserved", format!("the name {name} is reserved; choose another one")));
        }
        let instances = new.instances.unwrap_or(1);
        self.config.limits.check_instances(instances).map_err(|error| invalid("instances", &error))?;
        let team = new.team.as_deref().filter(|team| !team.is_empty());
        permissions::may_create(&caller.user, team).map_err(|denied| match denied {
            permissions::Denied::Hidden => {
                let detail = format!("you are in no team {}", team.unwrap_or_default());
                refuse("team", "no-such-team", detail)
            }
            other => {
                let problem = crate::guard::denied(other);
                problem.with("field", "team")
            }
        })?;
        // Who is in the team proves that it exists; an operator can name any.
        if let Some(team) = team
            && !caller.user.teams.iter().any(|membership| membership.team == team)
        {
            self.require_team(team).await?;
        }
        let mut change = self.begin().await?;
        if let Some(row) = app::find(&mut change.tx, name).await? {
            if !row.deleted {
                let detail = format!("the name {name} is taken; app names are unique in the cluster");
                return Err(Problem::conflict("name-taken", detail).with("field", "name"));
            }
            if row.release_id.is_some() || deployment::any_unfinished(&mut change.tx, name).await? {
                let detail = format!(
                    "a deleted app {name} is still being stopped; its name is free when all its instances are gone"
                );
                return Err(Problem::conflict("still-stopping", detail).with("field", "name"));
            }
        }
        self.check_new_app(&mut change.tx, caller, team.unwrap_or(caller.name()), name, instances).await?;
        app::create(&mut change, &NewApp { name, owner: caller.name(), team, instances }).await?;
        let row = app::find(&mut change.tx, name).await?.ok_or_else(|| no_app(name))?;
        record(&mut change, caller, "app.create", &object(name), team.unwrap_or_default()).await?;
        self.commit(change).await?;
        self.app_view(&row).await
    }

    /// Marks an app as deleted; the server stops its instances.
    pub(crate) async fn delete_app(&self, caller: &Caller, row: &AppRow) -> Result<(), Problem> {
        let name = &row.name;
        let mut change = self.begin().await?;
        within(&mut change, row).await?;
        app::delete(&mut change, name).await?;
        domain::remove_all(&mut change, name).await?;
        record(&mut change, caller, "app.delete", &object(name), "").await?;
        self.commit(change).await
    }

    /// Sets how many instances are wanted.
    pub(crate) async fn scale_app(&self, caller: &Caller, row: &AppRow, scale: &Scale) -> Result<AppView, Problem> {
        self.config.limits.check_instances(scale.instances).map_err(|error| invalid("instances", &error))?;
        let name = &row.name;
        let mut change = self.begin().await?;
        let before = within(&mut change, row).await?;
        self.check_quota(&mut change.tx, caller, &before, scale.instances, None).await?;
        app::set_instances(&mut change, name, scale.instances).await?;
        let detail = format!("{} -> {}", before.instances, scale.instances);
        record(&mut change, caller, "app.scale", &object(name), &detail).await?;
        self.commit(change).await?;
        self.app_view(row).await
    }

    /// Sets whether an app is meant to run.
    pub(crate) async fn set_app_state(
        &self,
        caller: &Caller,
        row: &AppRow,
        state: AppState,
    ) -> Result<AppView, Problem> {
        let name = &row.name;
        let mut change = self.begin().await?;
        if within(&mut change, row).await?.state != state {
            app::set_state(&mut change, name, state).await?;
            let action = match state {
                AppState::Started => "app.start",
                AppState::Stopped => "app.stop",
            };
            record(&mut change, caller, action, &object(name), "").await?;
            self.commit(change).await?;
        }
        self.app_view(row).await
    }
}
