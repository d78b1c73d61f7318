//! Builder and its callers.
//!
//! * `POST /v1/builds?app=&version=&runtime=&user=&package=` with the package as body (application/octet-stream), or with `url=`
//!   -> 202 [`BuildView`] once the package has arrived and was found to be a sound archive
//! * `POST /v1/uploads` with [`UploadBegin`] -> 201 [`UploadView`]: the same in parts, for connections that break. `PATCH /v1/uploads/{id}?user=&offset=` with the next bytes -> [`UploadView`], 409 `wrong-offset`
//!   where others are the next; `GET` tells which; `POST /v1/uploads/{id}/build?user=` -> 202 [`BuildView`] once all are here,
//!   however often it is asked; `DELETE` forgets them -> 204
//! * `POST /v1/rebases` with [`RebaseAsk`] -> [`RebaseView`]: the same package on its base as it is now
//! * `POST /v1/images/delete` with [`ImageDelete`] -> 204; 409 `image-in-use` where a release names it
//! * `DELETE /v1/builds/{id}` cancels -> 204, or 202 where another builder is told to
//! * `GET /v1/runtimes` -> `Page<`[`RuntimeView`]`>`
//!
//! Records and logs are read from MySQL, where every builder writes them.
//! Authorization: a service credential of role dash.

use super::UnixMillis;
use crate::model::{AppName, ImageRef, RuntimeName};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use url::Url;

/// Query of an upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildQuery {
    /// The app that it is for.
    pub app: AppName,
    /// When that app was created: a later one of the same name does not get the build; set by dash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_created_at: Option<UnixMillis>,
    /// What to call this version: 1 to 64 letters, digits, `.`, `_` and `-`; by default a time stamp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How to make an image of it; by default the builder finds out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// Suite of the base image, such as `trixie`: by default that of the app's last build, as long as there is a base of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Who asks; set by dash.
    #[serde(default)]
    pub user: String,
    /// Team or user that the image belongs to: the first part of its path in the registry; set by dash.
    #[serde(default)]
    pub owner: String,
    /// File name of the package, for people.
    #[serde(default)]
    pub package: String,
    /// What whoever asks says of this version.
    #[serde(default)]
    pub note: String,
    /// Where to fetch the package, instead of the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Url>,
    /// Most bytes of the package, sent or fetched; by default what the builder takes, which is never more. Set by dash. Who has
    /// more is told `too-large` with `limit` `max_bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
}

/// Begins an upload in parts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadBegin {
    /// Size of the package.
    pub bytes: u64,
    /// SHA-256 of the package in hexadecimal: what arrived of it before need not be sent again, and nothing else is built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What is to be built of it.
    pub build: BuildQuery,
}

/// An image that a builder has pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageView {
    /// Number of its row.
    pub id: u64,
    /// The app that it was built for.
    pub app: String,
    /// What the version is called.
    pub version: String,
    /// Where in the registry it is.
    pub repository: String,
    /// Its digest (`sha256:...`).
    pub digest: String,
    /// The build that made it.
    pub build: u64,
    /// When.
    pub pushed_at: UnixMillis,
    /// Whether a release names it, which can be gone back to.
    pub is_named: bool,
}

/// Asks for the end of an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageDelete {
    /// The app.
    pub app: AppName,
    /// When it was created.
    pub app_created_at: UnixMillis,
    /// The version whose image is to go.
    pub version: String,
    /// Who asks.
    pub user: String,
}

/// Asks for an image of an app on its base as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RebaseAsk {
    /// The app.
    pub app: AppName,
    /// When it was created.
    pub app_created_at: UnixMillis,
    /// Its image, by digest.
    pub image: ImageRef,
    /// Who asks.
    pub user: String,
    /// Team or user that images of the app belong to.
    pub owner: String,
    /// Only tell how the image stands.
    pub check: bool,
}

/// How an image stands to its base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It stands on the base as it is now.
    Current,
    /// Its base was made anew, and it can be moved without its package.
    Due,
    /// Its base was made anew, and it is being moved, or was.
    Rebased,
    /// It cannot be moved without its package.
    NeedsPackage,
}

/// How an image stands to its base, and what was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RebaseView {
    /// The app.
    pub app: AppName,
    /// How it stands.
    pub standing: Standing,
    /// Why the package is needed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What the image stands on.
    pub was: String,
    /// What its base is now.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub now: String,
    /// The build that moves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildView>,
}

/// A package that arrives in parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadView {
    /// Its id, which nobody guesses.
    pub id: String,
    /// The app that it is for.
    pub app: AppName,
    /// How many bytes are here: where the next part begins.
    pub offset: u64,
    /// How many there will be.
    pub bytes: u64,
    /// The build that was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<u64>,
    /// Seconds without a further byte after which it is forgotten.
    pub kept_secs: u32,
}

/// Where a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    /// Under way.
    Running,
    /// The image is in the registry.
    Succeeded,
    /// See the reason.
    Failed,
    /// Ended by a person.
    Cancelled,
}

impl BuildStatus {
    /// The word on the wire and in MySQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }
}

/// The record of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BuildView {
    /// Its id.
    pub id: u64,
    /// The app that it is for.
    pub app: AppName,
    /// What this version is called.
    pub version: String,
    /// How the image is made.
    pub runtime: String,
    /// Who asked.
    pub created_by: String,
    /// What whoever asked says of this version.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Where the package was fetched from, without what nobody else should see; empty where it was uploaded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Which builder.
    pub builder: String,
    /// 1 for the first, and one more whenever it begins again after its builder has ended.
    #[serde(default = "first")]
    pub attempt: u8,
    /// Where it is.
    pub status: BuildStatus,
    /// What it does now, or did last.
    pub stage: String,
    /// What it has done, in the order in which it began it.
    #[serde(default)]
    pub stages: Vec<Stage>,
    /// Why it failed.
    #[serde(default)]
    pub reason: String,
    /// File name of the package.
    #[serde(default)]
    pub package_name: String,
    /// Size of the package.
    #[serde(default)]
    pub package_bytes: Option<u64>,
    /// SHA-256 of the package in hexadecimal.
    #[serde(default)]
    pub package_sha256: Option<String>,
    /// The image that it stands on, by digest once that is known.
    #[serde(default)]
    pub base: String,
    /// The image by digest, once it is in the registry.
    #[serde(default)]
    pub image: Option<String>,
    /// When it began.
    pub started_at: UnixMillis,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<UnixMillis>,
}

impl BuildView {
    /// How long it waited, and how long each of its stages took, as far as they have ended.
    pub fn times(&self) -> Vec<(&str, Duration)> {
        let begun = [("queued", self.started_at)].into_iter();
        let begun = begun.chain(self.stages.iter().map(|stage| (stage.stage.as_str(), stage.at)));
        let ended = self.stages.iter().map(|stage| stage.at).chain(self.finished_at);
        let took = |begin, end: UnixMillis| Duration::from_millis(u64::try_from(end - begin).unwrap_or_default());
        begun.zip(ended).map(|((stage, begin), end)| (stage, took(begin, end))).collect()
    }
}

fn first() -> u8 {
    1
}

/// A part of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// `building` or `pushing`.
    pub stage: String,
    /// When it began.
    pub at: UnixMillis,
}

/// A way to make an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeView {
    /// Its name.
    pub name: RuntimeName,
    /// What it takes, as a sentence.
    pub description: String,
    /// The image that it builds on, as builds do now; none where packages name theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What that image is for, with versions: `python3 3.11.2-1+b1, python3-gunicorn 20.1.0-6`. None where it does not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
}
