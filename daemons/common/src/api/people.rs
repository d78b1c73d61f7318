//! People's programs and dash: the public API.
//!
//! Public: `GET /v1/meta` -> [`Meta`]. All else takes an access token as bearer.
//!
//! * `GET /v1/me` -> [`crate::api::uic::UserInfo`]
//! * `GET /v1/apps` -> `Page<`[`AppView`]`>`; `POST /v1/apps` [`AppCreate`] -> 201 [`AppView`]
//! * `GET /v1/apps/{app}` -> [`AppView`]; `DELETE /v1/apps/{app}` -> 204
//! * `GET|POST /v1/apps/{app}/deployments`, [`Deploy`] -> 201 [`DeploymentView`]
//! * `GET /v1/deployments/{id}` -> [`DeploymentView`]; `POST /v1/deployments/{id}/cancel` -> [`DeploymentView`]
//! * `GET /v1/apps/{app}/releases` -> `Page<`[`ReleaseView`]`>`
//! * `POST /v1/apps/{app}/rollback` [`Rollback`] -> 201 [`DeploymentView`]
//! * `POST /v1/apps/{app}/rebase` [`Rebase`] -> [`crate::api::builder::RebaseView`], whose build can be deployed
//! * `GET /v1/apps/{app}/images` -> `Page<`[`crate::api::builder::ImageView`]`>`; `DELETE /v1/apps/{app}/images/{version}` -> 204
//! * `PUT /v1/apps/{app}/scale` [`Scale`] -> [`AppView`]; `POST /v1/apps/{app}/stop`, `POST /v1/apps/{app}/start` -> [`AppView`]
//! * `GET /v1/apps/{app}/env` -> [`EnvView`]; `PATCH /v1/apps/{app}/env` [`EnvPatch`] -> [`EnvView`]
//! * `GET|POST /v1/apps/{app}/domains`, [`DomainAdd`] -> 201 [`DomainView`]; `DELETE /v1/apps/{app}/domains/{domain}` -> 204
//! * `GET /v1/apps/{app}/instances` -> `Page<`[`AppInstance`]`>`
//! * `GET /v1/apps/{app}/events` -> `Page<`[`EventView`]`>`
//! * `GET /v1/apps/{app}/logs?instance=&previous=&tail=&follow=` -> lines of [`crate::api::agent::LogLine`] (application/x-ndjson)
//! * `GET /v1/builds?app=` -> `Page<`[`crate::api::builder::BuildView`]`>`;
//!   `POST /v1/builds?app=&version=&runtime=&package=` with the package as body -> 202 [`crate::api::builder::BuildView`]
//! * `POST /v1/uploads` [`UploadCreate`] -> 201 [`crate::api::builder::UploadView`]: the same package in parts;
//!   `PATCH /v1/uploads/{id}?offset=` with the next bytes, `GET /v1/uploads/{id}` -> [`crate::api::builder::UploadView`];
//!   `POST /v1/uploads/{id}/build` -> 202 [`crate::api::builder::BuildView`]; `DELETE /v1/uploads/{id}` -> 204
//! * `GET /v1/builds/{id}`; `POST /v1/builds/{id}/cancel` -> [`crate::api::builder::BuildView`];
//!   `GET /v1/builds/{id}/log?from=&follow=` -> text/plain from piece `from` (by default 0) on; followed, it ends when the build does
//! * `GET /v1/runtimes` -> `Page<`[`crate::api::builder::RuntimeView`]`>`
//! * operators: `GET|POST /v1/nodes`, `DELETE /v1/nodes/{name}`, `GET /v1/orphans`, `DELETE /v1/orphans/{instance}`,
//!   `GET /v1/strangers`, `POST /v1/tickets/adopt`, `POST /v1/resume`,
//!   `GET /v1/routers`, `DELETE /v1/routers/{name}`; everybody signed in: `GET /v1/status`
//! * admins: `GET|POST /v1/users`, `PATCH|DELETE /v1/users/{name}`, `GET|POST /v1/teams`, `DELETE /v1/teams/{name}`,
//!   `PUT|DELETE /v1/teams/{name}/members/{user}` (documents of [`crate::api::uic`])

pub use super::env::{EnvChange, EnvLeftOut, EnvPatch, EnvView};

use super::UnixMillis;
use super::control::InstanceView;
use crate::model::{AppName, DomainName, HealthCheck, ImageRef, Limits, Timing};
use serde::{Deserialize, Serialize};

/// What a program needs to know before it signs in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meta {
    /// Name of the cluster.
    pub cluster: String,
    /// Version of dash.
    pub version: String,
    /// Where to sign in, for a browser.
    pub uic_url: String,
    /// Domain of the apps.
    pub domain: String,
    /// URL of the routers without a host's first label, such as `http://apps.example:8080`.
    pub apps_url: String,
    /// What one app may ask for.
    #[serde(default)]
    pub limits: Option<Limits>,
}

/// An app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppView {
    /// Its name.
    pub name: AppName,
    /// Who created it.
    pub owner: String,
    /// The team that it belongs to.
    #[serde(default)]
    pub team: Option<String>,
    /// Whether it is meant to run.
    pub state: AppState,
    /// Instances wanted.
    pub instances: u32,
    /// Instances that serve, as far as the leader knows.
    #[serde(default)]
    pub ready: Option<u32>,
    /// The release in force, once a deployment has succeeded.
    #[serde(default)]
    pub release: Option<ReleaseView>,
    /// The newest deployment.
    #[serde(default)]
    pub deployment: Option<DeploymentView>,
    /// Where it answers.
    pub urls: Vec<String>,
    /// When it was created.
    pub created_at: UnixMillis,
}

/// Whether an app is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AppState {
    /// It is.
    Started,
    /// It is not; all its instances are stopped.
    Stopped,
}

impl AppState {
    /// The word on the wire and in MySQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
        }
    }
}

/// An app to create.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppCreate {
    /// Its name.
    pub name: AppName,
    /// The team that it belongs to; none: it is the creator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub team: Option<String>,
    /// Instances wanted once it has a release; by default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
}

/// Asks for the image in force on its base as that is now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebase {
    /// Only tell how it stands.
    #[serde(default)]
    pub check: bool,
}

/// A package that will arrive in parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadCreate {
    /// The app that it is for.
    pub app: AppName,
    /// What to call this version; by default a time stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How to make an image of it; by default what the package is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Suite of the base image; by default that of the app's last build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// File name of the package, for people.
    #[serde(default)]
    pub package: String,
    /// What there is to say of this version.
    #[serde(default)]
    pub note: String,
    /// Size of the package.
    pub bytes: u64,
    /// SHA-256 of the package in hexadecimal: what has arrived of it before need not be sent again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What to deploy: an image or a build. Without either it is the image in force, and a setting that is absent is as it
/// was made last, whatever failed since, or the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// The image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// A build that has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<u64>,
    /// Memory of each instance in MiB; by default 256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// CPU share in thousandths of a core; by default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
    /// CPU limit in thousandths of a core; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u32>,
    /// Instances wanted from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Command instead of the image's own (Docker's `CMD`: an entry point of the image stays); an empty list goes back to the image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Health check; a path of "" takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// Times of the app, laid over those that it has.
    #[serde(default)]
    pub timing: Timing,
    /// Settings that go back to their default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reset: Vec<Setting>,
    /// What changes in the environment, together with the release.
    #[serde(default, skip_serializing_if = "EnvChange::is_nothing")]
    pub env: EnvChange,
    /// Why, for people; at most 1000 characters.
    #[serde(default)]
    pub note: String,
}

/// A setting of an app that has a default of the cluster's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setting {
    /// [`Deploy::cpu_limit_millis`].
    CpuLimitMillis,
    /// [`Timing::start_timeout_secs`].
    StartTimeoutSecs,
    /// [`Timing::min_healthy_secs`].
    MinHealthySecs,
    /// [`Timing::verify_secs`].
    VerifySecs,
    /// [`Timing::drain_timeout_secs`].
    DrainTimeoutSecs,
    /// [`Timing::stop_grace_secs`].
    StopGraceSecs,
}

impl Setting {
    /// Where it stands among the times of an app; none if it is no time.
    pub fn time(self, timing: &mut Timing) -> Option<&mut Option<u32>> {
        match self {
            Self::CpuLimitMillis => None,
            Self::StartTimeoutSecs => Some(&mut timing.start_timeout_secs),
            Self::MinHealthySecs => Some(&mut timing.min_healthy_secs),
            Self::VerifySecs => Some(&mut timing.verify_secs),
            Self::DrainTimeoutSecs => Some(&mut timing.drain_timeout_secs),
            Self::StopGraceSecs => Some(&mut timing.stop_grace_secs),
        }
    }
}

/// A release: what was, is or will be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// Its id.
    pub id: u64,
    /// Its number within the app, from 1.
    pub number: u32,
    /// The image, by digest.
    pub image: ImageRef,
    /// Command instead of the image's own (Docker's `CMD`: an entry point of the image stays).
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Memory of each instance in MiB.
    pub memory_mb: u32,
    /// CPU share in thousandths of a core.
    pub cpu_millis: u32,
    /// CPU limit in thousandths of a core.
    #[serde(default)]
    pub cpu_limit_millis: Option<u32>,
    /// Health check.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// Times that people have set.
    #[serde(default)]
    pub timing: Timing,
    /// Version of the environment.
    pub env_version: u32,
    /// Instances wanted when it was made.
    pub instances: u32,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// Why.
    #[serde(default)]
    pub note: String,
    /// Whether a deployment of it has ever succeeded.
    #[serde(default)]
    pub came_up: bool,
}

/// Where a deployment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// Asked for, not begun.
    Pending,
    /// New instances come, old ones go.
    Rolling,
    /// All new ones serve; they are watched for a while.
    Verifying,
    /// Done.
    Succeeded,
    /// It failed; the release before it comes back.
    RollingBack,
    /// The release before it is back.
    RolledBack,
    /// Ended by a person.
    Cancelled,
    /// A newer deployment took its place.
    Superseded,
}

impl DeploymentState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Pending,
        Self::Rolling,
        Self::Verifying,
        Self::Succeeded,
        Self::RollingBack,
        Self::RolledBack,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The word on the wire and in MySQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Rolling => "rolling",
            Self::Verifying => "verifying",
            Self::Succeeded => "succeeded",
            Self::RollingBack => "rolling_back",
            Self::RolledBack => "rolled_back",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::RolledBack | Self::Cancelled | Self::Superseded)
    }
}

/// A deployment: one release on its way to be the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its id.
    pub id: u64,
    /// The app.
    pub app: AppName,
    /// The release that it brings.
    pub release_id: u64,
    /// Number of that release.
    pub release_number: u32,
    /// Number of the release that was in force when it began; none: nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_number: Option<u32>,
    /// Where it is.
    pub state: DeploymentState,
    /// Why it is there, for people.
    #[serde(default)]
    pub reason: String,
    /// The last lines that the instance wrote for which it failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub output: Vec<String>,
    /// Who asked.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<UnixMillis>,
}

/// An instance as the leader knows it, with what people call its release.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AppInstance {
    /// The instance.
    #[serde(flatten)]
    pub view: InstanceView,
    /// Number of its release within the app.
    #[serde(default)]
    pub release_number: Option<u32>,
}

/// Which release to go back to.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Number of the release; none: the one that was in force before the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u32>,
}

/// How many instances are wanted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// Instances.
    pub instances: u32,
}

/// A domain of an app besides `<app>.<domain>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DomainView {
    /// The domain.
    pub name: DomainName,
    /// Who added it.
    pub created_by: String,
    /// When.
    pub created_at: UnixMillis,
}

/// A domain to add.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainAdd {
    /// The domain.
    pub name: DomainName,
}

/// Something that happened to an app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EventView {
    /// When.
    pub at: UnixMillis,
    /// The instance, where it is about one.
    #[serde(default)]
    pub instance: Option<String>,
    /// The node, where it is about one.
    #[serde(default)]
    pub node: Option<String>,
    /// What: `start`, `ready`, `exit`, `kill`, `out_of_memory`, `limit_reached`, `placement_refused`, ...
    pub kind: String,
    /// More, for people.
    pub detail: String,
}

/// `GET /v1/quotas`: what an owner, a user or a team, has in all and may have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuotaView {
    /// The user or team.
    pub owner: String,
    /// Apps, and those that were deleted within the last hour.
    pub apps: QuotaUse,
    /// Instances of all apps.
    pub instances: QuotaUse,
    /// Memory of all these instances.
    pub memory_mb: QuotaUse,
    /// Domains of all apps.
    pub domains: QuotaUse,
    /// Packages that were built from within 24 hours.
    pub build_mb_per_day: QuotaUse,
    /// Builds that run.
    #[serde(default)]
    pub concurrent_builds: QuotaUse,
    /// Builds that have begun within an hour.
    #[serde(default)]
    pub builds_per_hour: QuotaUse,
}

/// One quota.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct QuotaUse {
    /// What counts for it now.
    pub used: u64,
    /// The most that it may be.
    pub allowed: u64,
}
