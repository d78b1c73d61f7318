//! Who may do what: one table of all endpoints, and pure functions over it.
//!
//! Team roles include each other (viewer, deployer, owner), and so do platform roles (user, operator, admin). An app
//! without a team is its creator's own. Operators and administrators may do everything with all apps. Who may not see
//! an app is told that there is none.

use dinp_common::api::uic::{PlatformRole, TeamRole, UserInfo};

/// What an endpoint needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Public,
    /// Somebody who is signed in; what is shown depends on who it is.
    SignedIn,
    /// A role on the app of path parameter `app`.
    App(TeamRole),
    /// A role on the app of the deployment of path parameter `id`.
    Deployment(TeamRole),
    /// A role on the app of the build of path parameter `id`.
    Build(TeamRole),
    /// An operator.
    Operator,
    /// An administrator.
    Admin,
}

use Need::{Admin, App, Build, Deployment, Operator, Public, SignedIn};
use TeamRole::{Deployer, Owner, Viewer};

/// Method, path and need of every endpoint of the API. `POST /v1/apps`, `POST /v1/builds` and `POST /v1/uploads` name their
/// team or app in the request and check it there, by [`may_create`] and [`role_on`]; an upload is its user's alone, which the
/// builder checks, and what is built of it is checked as a package in one piece is.
pub const API: &[(&str, &str, Need)] = &[
    ("GET", "/v1/meta", Public),
    ("GET", "/v1/me", SignedIn),
    ("GET", "/v1/quotas", SignedIn),
    ("GET", "/v1/status", SignedIn),
    ("GET", "/v1/apps", SignedIn),
    ("POST", "/v1/apps", SignedIn),
    ("GET", "/v1/apps/{app}", App(Viewer)),
    ("DELETE", "/v1/apps/{app}", App(Owner)),
    ("GET", "/v1/apps/{app}/deployments", App(Viewer)),
    ("POST", "/v1/apps/{app}/deployments", App(Deployer)),
    ("GET", "/v1/deployments/{id}", Deployment(Viewer)),
    ("POST", "/v1/deployments/{id}/cancel", Deployment(Deployer)),
    ("GET", "/v1/apps/{app}/releases", App(Viewer)),
    ("POST", "/v1/apps/{app}/rollback", App(Deployer)),
    ("POST", "/v1/apps/{app}/rebase", App(Deployer)),
    ("GET", "/v1/apps/{app}/images", App(Viewer)),
    ("DELETE", "/v1/apps/{app}/images/{version}", App(Deployer)),
    ("PUT", "/v1/apps/{app}/scale", App(Deployer)),
    ("POST", "/v1/apps/{app}/stop", App(Deployer)),
    ("POST", "/v1/apps/{app}/start", App(Deployer)),
    ("GET", "/v1/apps/{app}/env", App(Viewer)),
    ("PATCH", "/v1/apps/{app}/env", App(Deployer)),
    ("GET", "/v1/apps/{app}/domains", App(Viewer)),
    ("POST", "/v1/apps/{app}/domains", App(Owner)),
    ("DELETE", "/v1/apps/{app}/domains/{domain}", App(Owner)),
    ("GET", "/v1/apps/{app}/instances", App(Viewer)),
    ("GET", "/v1/apps/{app}/events", App(Viewer)),
    ("GET", "/v1/apps/{app}/logs", App(Viewer)),
    ("GET", "/v1/builds", SignedIn),
    ("POST", "/v1/builds", SignedIn),
    ("GET", "/v1/builds/{id}", Build(Viewer)),
    ("POST", "/v1/builds/{id}/cancel", Build(Deployer)),
    ("GET", "/v1/builds/{id}/log", Build(Viewer)),
    ("POST", "/v1/uploads", SignedIn),
    ("GET", "/v1/uploads/{id}", SignedIn),
    ("PATCH", "/v1/uploads/{id}", SignedIn),
    ("DELETE", "/v1/uploads/{id}", SignedIn),
    ("POST", "/v1/uploads/{id}/build", SignedIn),
    ("GET", "/v1/runtimes", SignedIn),
    ("GET", "/v1/nodes", Operator),
    ("POST", "/v1/nodes", Operator),
    ("DELETE", "/v1/nodes/{name}", Operator),
    ("GET", "/v1/orphans", Operator),
    ("DELETE", "/v1/orphans/{instance}", Operator),
    ("GET", "/v1/strangers", Operator),
    ("POST", "/v1/tickets/adopt", Operator),
    ("POST", "/v1/resume", Operator),
    ("GET", "/v1/routers", Operator),
    ("DELETE", "/v1/routers/{name}", Operator),
    ("GET", "/v1/users", Admin),
    ("POST", "/v1/users", Admin),
    ("PATCH", "/v1/users/{name}", Admin),
    ("DELETE", "/v1/users/{name}", Admin),
    ("GET", "/v1/teams", Admin),
    ("POST", "/v1/teams", Admin),
    ("DELETE", "/v1/teams/{name}", Admin),
    ("PUT", "/v1/teams/{name}/members/{user}", Admin),
    ("DELETE", "/v1/teams/{name}/members/{user}", Admin),
];

/// Method, path and need of every page and form.
pub const PAGES: &[(&str, &str, Need)] = &[
    ("GET", "/", SignedIn),
    ("GET", "/login", Public),
    ("GET", "/auth/callback", Public),
    ("GET", "/signed-out", Public),
    ("POST", "/logout", SignedIn),
    ("GET", "/assets/style.css", Public),
    ("GET", "/assets/live.js", Public),
    ("GET", "/apps", SignedIn),
    ("POST", "/apps", SignedIn),
    ("GET", "/apps/new", SignedIn),
    ("GET", "/apps/{app}", App(Viewer)),
    ("GET", "/apps/{app}/deploy", App(Deployer)),
    ("POST", "/apps/{app}/deploy", App(Deployer)),
    ("GET", "/apps/{app}/upload", App(Deployer)),
    ("POST", "/apps/{app}/upload", App(Deployer)),
    ("GET", "/apps/{app}/history", App(Viewer)),
    ("POST", "/apps/{app}/rollback", App(Deployer)),
    ("POST", "/apps/{app}/scale", App(Deployer)),
    ("POST", "/apps/{app}/state", App(Deployer)),
    ("POST", "/apps/{app}/cancel", App(Deployer)),
    ("GET", "/apps/{app}/env", App(Viewer)),
    ("POST", "/apps/{app}/env", App(Deployer)),
    ("GET", "/apps/{app}/domains", App(Viewer)),
    ("POST", "/apps/{app}/domains", App(Owner)),
    ("POST", "/apps/{app}/domains/remove", App(Owner)),
    ("GET", "/apps/{app}/events", App(Viewer)),
    ("GET", "/apps/{app}/logs", App(Viewer)),
    ("GET", "/apps/{app}/logs/stream", App(Viewer)),
    ("GET", "/apps/{app}/delete", App(Owner)),
    ("POST", "/apps/{app}/delete", App(Owner)),
    ("GET", "/builds", SignedIn),
    ("GET", "/builds/{id}", Build(Viewer)),
    ("GET", "/builds/{id}/log", Build(Viewer)),
    ("POST", "/builds/{id}/cancel", Build(Deployer)),
    ("POST", "/builds/{id}/deploy", Build(Deployer)),
    ("GET", "/nodes", Operator),
    ("GET", "/people", Admin),
    ("POST", "/people/users", Admin),
    ("POST", "/people/users/{name}", Admin),
    ("POST", "/people/teams", Admin),
    ("POST", "/people/teams/{name}", Admin),
];

/// The need of an endpoint; an endpoint that the tables do not know has none and is refused.
pub fn need(table: &[(&str, &str, Need)], method: &str, path: &str) -> Option<Need> {
    // A HEAD is a GET without its body.
    let method = if method == "HEAD" { "GET" } else { method };
    table.iter().find(|(m, p, _)| *m == method && *p == path).map(|(.., need)| *need)
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// There is nothing here for this person.
    Hidden,
    /// A team role is missing.
    TeamRole(TeamRole),
    /// A platform role is missing.
    PlatformRole(PlatformRole),
}

impl Denied {
    /// The reason as a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Hidden => "there is nothing of this name",
            Self::TeamRole(Viewer) => "this takes membership in the app's team",
            Self::TeamRole(Deployer) => "this takes the role deployer in the app's team",
            Self::TeamRole(Owner) => "this takes the role owner in the app's team",
            Self::PlatformRole(PlatformRole::User) => "this takes a sign-on",
            Self::PlatformRole(PlatformRole::Operator) => "this is for operators of the cluster",
            Self::PlatformRole(PlatformRole::Admin) => "this is for administrators of the cluster",
        }
    }
}

/// The role that a person has on an app; none: the person does not see it.
pub fn role_on(user: &UserInfo, owner: &str, team: Option<&str>) -> Option<TeamRole> {
    if user.role >= PlatformRole::Operator {
        return Some(Owner);
    }
    match team {
        Some(team) => user.teams.iter().find(|membership| membership.team == team).map(|membership| membership.role),
        None => (user.name == owner).then_some(Owner),
    }
}

/// Whether a role is enough for what is needed of an app.
pub fn check_app(has: Option<TeamRole>, needs: TeamRole) -> Result<(), Denied> {
    match has {
        None => Err(Denied::Hidden),
        Some(has) if has < needs => Err(Denied::TeamRole(needs)),
        Some(_) => Ok(()),
    }
}

/// Whether a person's platform role is enough.
pub fn check_platform(user: &UserInfo, needs: PlatformRole) -> Result<(), Denied> {
    if user.role >= needs { Ok(()) } else { Err(Denied::PlatformRole(needs)) }
}

/// Whether a person may create an app: an own one always, a team's as its deployer.
pub fn may_create(user: &UserInfo, team: Option<&str>) -> Result<(), Denied> {
    match team {
        None => Ok(()),
        Some(team) => check_app(role_on(user, "", Some(team)), Deployer),
    }
}

/// Whether a person may run, and so read, the images that are kept for this user or team.
pub fn may_run_images_of(user: &UserInfo, owner: &str) -> bool {
    user.name == owner || may_create(user, Some(owner)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::api::uic::TeamMembership;

    fn user(role: PlatformRole, teams: &[(&str, TeamRole)]) -> UserInfo {
        let teams = teams.iter().map(|(team, role)| TeamMembership { team: (*team).into(), role: *role }).collect();
        UserInfo { name: "anna".into(), role, teams, suspended: false }
    }

    #[test]
    fn a_team_owns_its_app_and_not_the_creator() {
        let anna = user(PlatformRole::User, &[("web", Viewer)]);
        assert_eq!(role_on(&anna, "anna", None), Some(Owner));
        assert_eq!(role_on(&anna, "bert", None), None);
        assert_eq!(role_on(&anna, "bert", Some("web")), Some(Viewer));
        assert_eq!(role_on(&anna, "anna", Some("other")), None);
        assert_eq!(role_on(&user(PlatformRole::Operator, &[]), "bert", Some("web")), Some(Owner));
    }

    #[test]
    fn roles_include_each_other() {
        for (has, needs, ok) in [
            (Viewer, Viewer, true),
            (Viewer, Deployer, false),
            (Deployer, Viewer, true),
            (Deployer, Deployer, true),
            (Deployer, Owner, false),
            (Owner, Owner, true),
        ] {
            assert_eq!(check_app(Some(has), needs).is_ok(), ok, "{has:?} {needs:?}");
        }
        assert_eq!(check_app(None, Viewer), Err(Denied::Hidden));
        assert!(check_platform(&user(PlatformRole::Operator, &[]), PlatformRole::Admin).is_err());
        assert!(check_platform(&user(PlatformRole::Admin, &[]), PlatformRole::Operator).is_ok());
    }

    #[test]
    fn creating_for_a_team_takes_a_deployer() {
        let anna = user(PlatformRole::User, &[("web", Viewer), ("shop", Deployer)]);
        assert!(may_create(&anna, None).is_ok());
        assert!(may_create(&anna, Some("shop")).is_ok());
        assert_eq!(may_create(&anna, Some("web")), Err(Denied::TeamRole(Deployer)));
        assert_eq!(may_create(&anna, Some("none")), Err(Denied::Hidden));
    }

    #[test]
    fn images_are_their_owners_and_of_who_deploys_for_the_team() {
        let anna = user(PlatformRole::User, &[("web", Viewer), ("shop", Deployer)]);
        assert!(may_run_images_of(&anna, "anna") && may_run_images_of(&anna, "shop"));
        assert!(!may_run_images_of(&anna, "web") && !may_run_images_of(&anna, "bert"));
        assert!(may_run_images_of(&user(PlatformRole::Operator, &[]), "bert"));
    }

    #[test]
    fn each_endpoint_stands_once() {
        for table in [API, PAGES] {
            for (index, (method, path, _)) in table.iter().enumerate() {
                assert!(!table[..index].iter().any(|(m, p, _)| m == method && p == path), "{method} {path}");
            }
        }
        assert_eq!(need(API, "HEAD", "/v1/apps"), Some(SignedIn));
        assert_eq!(need(API, "PUT", "/v1/apps"), None);
    }
}
