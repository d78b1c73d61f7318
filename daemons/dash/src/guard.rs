//! Applies the table of permissions to every request, before its handler runs.
//!
//! What the check has found is handed on in the request's extensions: the [`Caller`], and the app, deployment or build
//! that the path names.

use crate::permissions::{self, Denied, Need};
use crate::{Caller, Dash};
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request};
use axum::response::Response;
use dinp_common::api::builder::BuildView;
use dinp_common::api::people::DeploymentView;
use dinp_common::api::uic::{PlatformRole, TeamRole};
use dinp_common::auth::bearer;
use dinp_common::model::AppName;
use dinp_common::problem::Problem;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::{build, deployment};
use dinp_common::web::{self, ClientAddress, Cookies};
use http::HeaderMap;
use http::request::Parts;
use std::sync::Arc;
use std::time::Duration;

/// Time from one look to the next whether who follows a log may still see it.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// Cookie that holds a browser's access token.
pub(crate) const COOKIE: &str = "dinp_dash";

/// Where an access token is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Surface {
    /// The API: in the Authorization header, and never in a cookie, so that no foreign page can use it.
    Api,
    /// The pages: in the cookie.
    Pages,
}

impl Surface {
    fn token(self, headers: &HeaderMap, cookies: Cookies) -> Result<String, Problem> {
        match self {
            Self::Api => bearer(headers).map(|credential| credential.to_string()),
            Self::Pages => cookies
                .get(headers, COOKIE)
                .map(str::to_owned)
                .ok_or_else(|| Problem::unauthorized("you are not signed in")),
        }
    }

    fn table(self) -> &'static [(&'static str, &'static str, Need)] {
        match self {
            Self::Api => permissions::API,
            Self::Pages => permissions::PAGES,
        }
    }
}

/// Refuses as a problem.
pub(crate) fn denied(denied: Denied) -> Problem {
    match denied {
        Denied::Hidden => Problem::not_found(denied.sentence()),
        other => Problem::forbidden(other.sentence()),
    }
}

fn no_app(name: &str) -> Problem {
    let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    Problem::not_found(format!("there is no app {name}"))
}

impl Dash {
    /// The app of this name, if the caller has this role on it. Who may not see it is told that there is none.
    pub(crate) async fn app(&self, caller: &Caller, name: &str, needs: TeamRole) -> Result<AppRow, Problem> {
        let parsed: AppName = name.parse().map_err(|_| no_app(name))?;
        let row = app::find(&mut self.conn().await?, &parsed).await?;
        let row = row.filter(|row| !row.deleted).ok_or_else(|| no_app(name))?;
        let has = permissions::role_on(&caller.user, &row.owner, row.team.as_deref());
        match permissions::check_app(has, needs) {
            Ok(()) => Ok(row),
            Err(Denied::Hidden) => Err(no_app(name)),
            Err(other) => Err(denied(other)),
        }
    }

    /// Ends when a person can see an app no more: the sign-on has ended, the person is suspended or has left the team, or
    /// the app is gone. Other daemons are asked, whatever is believed here; while they do not answer, nothing has changed.
    pub(crate) async fn until_hidden(self: Arc<Self>, caller: Caller, app: AppName) {
        loop {
            tokio::time::sleep(LOOK_AGAIN).await;
            self.tokens.ask_again(caller.token.expose());
            let seen = async {
                let caller = self.caller(caller.token.expose(), caller.address.clone()).await?;
                self.app(&caller, app.as_str(), TeamRole::Viewer).await
            };
            if seen.await.is_err_and(|problem| problem.status < 500) {
                return;
            }
        }
    }

    async fn deployment(
        &self,
        caller: &Caller,
        id: &str,
        needs: TeamRole,
    ) -> Result<(DeploymentView, AppRow), Problem> {
        let none = || Problem::not_found(format!("there is no deployment {}", shown(id)));
        let id: u64 = id.parse().map_err(|_| none())?;
        let view = deployment::find(&mut self.conn().await?, id).await?.ok_or_else(none)?;
        let row = self.app(caller, view.app.as_str(), needs).await;
        Ok((view, row.map_err(|problem| if problem.status == 404 { none() } else { problem })?))
    }

    async fn build(&self, caller: &Caller, id: &str, needs: TeamRole) -> Result<(BuildView, AppRow), Problem> {
        let none = || Problem::not_found(format!("there is no build {}", shown(id)));
        let id: u64 = id.parse().map_err(|_| none())?;
        let view = build::get(&mut self.conn().await?, id).await?.ok_or_else(none)?;
        let row = self.app(caller, view.app.as_str(), needs).await;
        let row = row.map_err(|problem| if problem.status == 404 { none() } else { problem })?;
        if view.started_at < row.created_at {
            // It belonged to a deleted app of the same name.
            return Err(none());
        }
        Ok((view, row))
    }

    /// Checks a request against the table and puts what it finds into the extensions.
    pub(crate) async fn admit(&self, surface: Surface, parts: &mut Parts) -> Result<(), Problem> {
        let matched = parts.extensions.get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
        let need = permissions::need(surface.table(), parts.method.as_str(), &matched);
        // Not in the table: a method that the path does not have, which the router answers, or an endpoint that
        // somebody forgot to list, which must not run.
        let need = need.ok_or_else(|| {
            let status = http::StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "method-not-allowed", format!("{} is not possible here", parts.method))
        })?;
        if need == Need::Public {
            return Ok(());
        }
        let ClientAddress(address) = ClientAddress::of(&parts.extensions);
        let token = surface.token(&parts.headers, self.cookies)?;
        let caller = self.caller(&token, address.to_string()).await?;
        self.check_rate(&caller)?;
        let params = RawPathParams::from_request_parts(parts, &()).await;
        let params = params.map_err(|_| Problem::not_found("there is nothing at this address"))?;
        let param = |name: &str| {
            params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        match need {
            Need::Public | Need::SignedIn => {}
            Need::App(role) => {
                let row = self.app(&caller, &param("app"), role).await?;
                parts.extensions.insert(row);
            }
            Need::Deployment(role) => {
                let (view, row) = self.deployment(&caller, &param("id"), role).await?;
                parts.extensions.insert(view);
                parts.extensions.insert(row);
            }
            Need::Build(role) => {
                let (view, row) = self.build(&caller, &param("id"), role).await?;
                parts.extensions.insert(view);
                parts.extensions.insert(row);
            }
            Need::Operator => permissions::check_platform(&caller.user, PlatformRole::Operator).map_err(denied)?,
            Need::Admin => permissions::check_platform(&caller.user, PlatformRole::Admin).map_err(denied)?,
        }
        parts.extensions.insert(caller);
        Ok(())
    }
}

fn shown(id: &str) -> String {
    id.chars().filter(|c| !c.is_control()).take(40).collect()
}

/// Whether an answer may take long because it carries a stream in one direction or the other.
fn is_stream(matched: &str) -> bool {
    matched.ends_with("/logs")
        || matched.ends_with("/log")
        || matched.ends_with("/logs/stream")
        || matched.ends_with("/upload")
        || matched == "/v1/builds"
        || matched.starts_with("/v1/uploads/")
}

/// Runs the rest with a deadline, unless it is a stream.
pub(crate) async fn within_deadline(
    limit: Duration,
    request: Request,
    next: axum::middleware::Next,
) -> Result<Response, Problem> {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    if is_stream(matched) {
        return Ok(next.run(request).await);
    }
    web::within_deadline(limit, request, next).await
}
