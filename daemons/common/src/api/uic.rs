//! User Information Center and its callers.
//!
//! * `GET /oauth/authorize?response_type=code&client_id=&redirect_uri=&state=&code_challenge=&code_challenge_method=S256`
//!   -> login page, or a redirect with `code` and `state`
//! * `POST /oauth/token` (form: grant_type=authorization_code, code, redirect_uri, client_id, code_verifier) -> [`TokenReply`]
//! * `POST /oauth/revoke` (form: token) -> 200; ends the session that the token belongs to
//! * `POST /v1/introspect` [`Introspect`] -> [`Introspection`]
//! * `GET|POST /v1/users`, `GET|PATCH|DELETE /v1/users/{name}`, `GET|POST /v1/teams`, `DELETE /v1/teams/{name}`,
//!   `PUT|DELETE /v1/teams/{name}/members/{user}`
//!
//! Clients: `dash` (redirect to dash's public URL) and `cli` (redirect to any port of the loopback address).
//! Authorization: introspection and the lists take a service credential of role dash; changes take the access token of an
//! admin too, passed by dash in `X-Dinp-Access-Token`.

use super::UnixMillis;
use serde::{Deserialize, Serialize};

/// What a client gets for its code.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenReply {
    /// `session:<id>:<secret>`.
    pub access_token: String,
    /// Always `Bearer`.
    pub token_type: String,
    /// Seconds until it ends.
    pub expires_in: u64,
}

/// A token to look at.
#[derive(Clone, Serialize, Deserialize)]
pub struct Introspect {
    /// The access token.
    pub token: String,
}

/// What a token stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introspection {
    /// Whether it is good. If not, the rest is empty.
    pub active: bool,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserInfo>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserInfo {
    /// Name.
    pub name: String,
    /// Role on the whole platform.
    pub role: PlatformRole,
    /// Teams, with the role in each.
    #[serde(default)]
    pub teams: Vec<TeamMembership>,
    /// Whether the person may not sign in.
    #[serde(default)]
    pub suspended: bool,
}

/// Role on the whole platform. Each includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlatformRole {
    /// Sees and changes what the own teams have.
    User,
    /// Sees and changes all apps, and nodes.
    Operator,
    /// Users and teams too.
    Admin,
}

/// Membership in a team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamMembership {
    /// The team.
    pub team: String,
    /// The role in it.
    pub role: TeamRole,
}

/// Role in a team. Each includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TeamRole {
    /// Sees.
    Viewer,
    /// Deploys, scales, sets environment.
    Deployer,
    /// Members, domains, deletes.
    Owner,
}

/// A person to create.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserCreate {
    /// Name: a DNS label.
    pub name: String,
    /// Password: at least 10 characters.
    pub password: String,
    /// Role on the platform.
    #[serde(default = "default_role")]
    pub role: PlatformRole,
}

fn default_role() -> PlatformRole {
    PlatformRole::User
}

/// A change of a person; what is absent stays.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// New password. Ends all sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// New role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PlatformRole>,
    /// Whether the person may not sign in. Ends all sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
}

/// A team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamInfo {
    /// Name: a DNS label.
    pub name: String,
    /// Members.
    #[serde(default)]
    pub members: Vec<TeamMember>,
}

/// A member of a team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamMember {
    /// The person.
    pub user: String,
    /// The role.
    pub role: TeamRole,
}

/// A team to create.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeamCreate {
    /// Name: a DNS label.
    pub name: String,
}

/// A member's role.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberPut {
    /// The role.
    pub role: TeamRole,
}
