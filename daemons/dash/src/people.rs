//! Users and teams: uic's, changed there in the person's name.

use crate::backend::{self, LIMIT, UIC};
use crate::{Caller, Dash, refuse};
use dinp_common::api::Page;
use dinp_common::api::uic::{TeamInfo, UserInfo};
use dinp_common::client::check;
use dinp_common::problem::Problem;
use dinp_common::store::app;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// One part of a path.
fn segment(text: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
    encoded.replace('+', "%20")
}

/// Path of a user at uic.
pub(crate) fn user_path(name: &str) -> String {
    format!("/v1/users/{}", segment(name))
}

/// Path of a team at uic.
pub(crate) fn team_path(name: &str) -> String {
    format!("/v1/teams/{}", segment(name))
}

/// Path of a member at uic.
pub(crate) fn member_path(team: &str, user: &str) -> String {
    format!("{}/members/{}", team_path(team), segment(user))
}

impl Dash {
    /// Changes something at uic in the caller's name.
    pub(crate) async fn at_uic<B: Serialize, R: DeserializeOwned>(
        &self,
        caller: &Caller,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<R, Problem> {
        let failed = |error| backend::problem(error, &UIC);
        let mut request = self.uic.request(method, path).map_err(failed)?;
        request = request
            .header("x-dinp-access-token", caller.token.expose())
            .header("x-dinp-client-address", &caller.address)
            .timeout(LIMIT);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = check(backend::sent(request, None, &UIC).await?).await;
        if answer.as_ref().is_err_and(|error| error.status() == Some(401)) {
            // The caller's sign-on has ended, or dash's own credential is refused: asked about the former alone, uic
            // tells which.
            self.tokens.forget(caller.token.expose());
            self.caller(caller.token.expose(), String::new()).await?;
        }
        let bytes = answer.map_err(failed)?.bytes().await;
        let bytes = bytes.map_err(|error| Problem::internal(&error))?;
        // Roles may have changed: nobody is believed without asking again.
        self.tokens.forget_all();
        let text: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(text).map_err(|error| Problem::internal(&error))
    }

    /// A page of the people.
    pub(crate) async fn users(&self, query: &str) -> Result<Page<UserInfo>, Problem> {
        self.uic.get(&format!("/v1/users?{query}"), LIMIT).await.map_err(|error| backend::problem(error, &UIC))
    }

    /// A page of the teams.
    pub(crate) async fn teams(&self, query: &str) -> Result<Page<TeamInfo>, Problem> {
        self.uic.get(&format!("/v1/teams?{query}"), LIMIT).await.map_err(|error| backend::problem(error, &UIC))
    }

    /// Removes a person, unless apps would be left without an owner, for the next person of the name to inherit.
    pub(crate) async fn remove_user(&self, caller: &Caller, name: &str) -> Result<(), Problem> {
        if let Some(app) = app::owned_by(&mut self.conn().await?, name).await? {
            let detail = format!("{name} owns apps, such as {app}; delete them first, or suspend the user");
            return Err(Problem::conflict("owns-apps", detail));
        }
        self.at_uic(caller, Method::DELETE, &user_path(name), None::<&()>).await
    }

    /// Removes a team, unless it has apps.
    pub(crate) async fn remove_team(&self, caller: &Caller, name: &str) -> Result<(), Problem> {
        if let Some(app) = app::of_team(&mut self.conn().await?, name).await? {
            let detail = format!("the team {name} has apps, such as {app}; delete them first");
            return Err(Problem::conflict("has-apps", detail));
        }
        self.at_uic(caller, Method::DELETE, &team_path(name), None::<&()>).await
    }

    /// Refuses an app for a team that does not exist; operators can name any.
    pub(crate) async fn require_team(&self, name: &str) -> Result<(), Problem> {
        let none = || refuse("team", "no-such-team", format!("there is no team {name}"));
        // The list is in order of name, so the entry after the largest smaller name is the team or there is none.
        let mut after = String::new();
        loop {
            let page = self.teams(&format!("limit=1000{after}")).await?;
            if page.items.iter().any(|team| team.name == name) {
                return Ok(());
            }
            match page.next {
                Some(next) if next.as_str() < name => after = format!("&after={}", segment(&next)),
                _ => return Err(none()),
            }
        }
    }
}
