//! Builds: packages handed on to the builder as they arrive, records and logs read from MySQL.

use crate::backend::{self, BUILDER, LIMIT};
use crate::{Caller, Dash, invalid};
use bytes::Bytes;
use dinp_common::api::Page;
use dinp_common::api::builder::{BuildQuery, BuildView, ImageDelete, RebaseAsk, RebaseView, RuntimeView};
use dinp_common::api::people::Rebase;
use dinp_common::model::{AppName, InvalidValue, RuntimeName};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::build;
use futures_util::{Stream, TryStreamExt};
use http::{Method, StatusCode, header};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use url::Url;

/// Most characters of what is said of a version.
const MOST_NOTE: usize = 255;

/// What the person says about a package.
#[derive(Debug, Clone)]
pub(crate) struct Upload {
    /// How to make an image of it; none where the builder is to find out.
    pub runtime: Option<RuntimeName>,
    /// Suite of the base image, where it is not to be that of the app's last build.
    pub suite: Option<String>,
    /// What to call this version.
    pub version: Option<String>,
    /// File name, for people.
    pub package: String,
    /// What the person says of this version.
    pub note: String,
    /// Where the builder is to fetch it; then nothing is uploaded.
    pub url: Option<Url>,
    /// Size, where it is known beforehand.
    pub length: Option<u64>,
}

/// How large a package may be.
pub(crate) struct Room {
    bytes: u64,
    /// What is said of a larger one.
    exceeded: Problem,
}

/// Checks what a version is called; the rule is that of image tags.
fn check_version(version: &str) -> Result<(), InvalidValue> {
    let first = version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let rest = version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if first && rest && version.len() <= 64 {
        return Ok(());
    }
    let rule = "it must be 1 to 64 letters, digits, dots, underscores and hyphens, and not start with a dot or hyphen";
    Err(InvalidValue::new("version", version, rule))
}

impl Dash {
    fn too_large(&self) -> Problem {
        let detail = format!(
            "the package is larger than {} MiB, which is the most that is taken here",
            self.config.upload_max_mb
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail).with("field", "package")
    }

    /// How large a package may be, once all else that a person says of it is valid; one that is known to be larger is refused.
    pub(crate) async fn room(&self, caller: &Caller, row: &AppRow, upload: &Upload) -> Result<Room, Problem> {
        if let Some(version) = &upload.version {
            check_version(version).map_err(|error| invalid("version", &error))?;
        }
        if upload.note.chars().count() > MOST_NOTE || upload.note.chars().any(char::is_control) {
            let rule = "it must be one line of at most 255 characters";
            return Err(invalid("note", &InvalidValue::new("note", &upload.note, rule)));
        }
        self.check_new_build(caller, row).await?;
        let left = self.upload_left(caller, row).await?;
        let largest = self.config.upload_max_mb * 1024 * 1024;
        let exceeded = if left < largest { self.uploads_exceeded(row) } else { self.too_large() };
        let bytes = largest.min(left);
        if upload.length.is_some_and(|length| length > bytes) {
            return Err(exceeded);
        }
        Ok(Room { bytes, exceeded })
    }

    /// What the builder is told of a package.
    pub(crate) fn order(&self, caller: &Caller, row: &AppRow, upload: &Upload) -> BuildQuery {
        BuildQuery {
            app: row.name.clone(),
            app_created_at: Some(row.created_at),
            version: upload.version.clone(),
            runtime: upload.runtime.clone(),
            suite: upload.suite.clone(),
            user: caller.name().to_owned(),
            owner: row.team.as_deref().unwrap_or(&row.owner).to_owned(),
            package: upload.package.chars().take(200).collect(),
            note: upload.note.clone(),
            url: upload.url.clone(),
            max_bytes: None,
        }
    }

    /// Hands a package on to the builder while it arrives.
    pub(crate) async fn upload<S, E>(
        &self,
        caller: &Caller,
        row: &AppRow,
        upload: &Upload,
        package: S,
    ) -> Result<BuildView, Problem>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let max = self.room(caller, row, upload).await?;
        let query = BuildQuery { max_bytes: Some(max.bytes), ..self.order(caller, row, upload) };
        // What went wrong on the person's side is told apart from what the builder says.
        let (seen, over, broken) =
            (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let counted = {
            let (seen, over, broken) = (seen.clone(), over.clone(), broken.clone());
            package
                .map_err(move |error| {
                    broken.store(true, Ordering::Relaxed);
                    std::io::Error::other(error)
                })
                .and_then(move |chunk| {
                    let total = seen.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
                    let too_large = total > max.bytes;
                    over.fetch_or(too_large, Ordering::Relaxed);
                    std::future::ready(if too_large {
                        Err(std::io::Error::other("the package is too large"))
                    } else {
                        Ok(chunk)
                    })
                })
        };
        let request = self.builder.request(Method::POST, "/v1/builds");
        let mut request = request.map_err(|error| backend::problem(error, &BUILDER))?.query(&query);
        request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        if let Some(length) = upload.length {
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let answer = backend::head(request.body(reqwest::Body::wrap_stream(counted)), None, &BUILDER).await;
        if over.load(Ordering::Relaxed) {
            return Err(max.exceeded);
        }
        if broken.load(Ordering::Relaxed) {
            return Err(Problem::bad_request("upload-incomplete", "the package did not arrive whole"));
        }
        let response = match answer {
            // What the builder fetches it counts itself, and it may have a smaller limit of its own.
            Err(problem) if problem.text("limit") == Some("max_bytes") => return Err(max.exceeded),
            answer => answer?,
        };
        // The builder has written the audit event, with the record of the build.
        response.json::<BuildView>().await.map_err(|error| Problem::internal(&error))
    }

    /// Asks the builder for the image in force on its base as that is now.
    pub(crate) async fn rebase(&self, caller: &Caller, row: &AppRow, wish: &Rebase) -> Result<RebaseView, Problem> {
        if !wish.check {
            self.check_new_build(caller, row).await?;
        }
        let app = self.app_view(row).await?;
        let Some(release) = app.release else {
            let detail = format!("app {} has no release in force, whose base could be another one now", row.name);
            return Err(Problem::conflict("no-release", detail));
        };
        let ask = RebaseAsk {
            app: row.name.clone(),
            app_created_at: row.created_at,
            image: release.image,
            user: caller.name().to_owned(),
            owner: row.team.as_deref().unwrap_or(&row.owner).to_owned(),
            check: wish.check,
        };
        self.builder.post("/v1/rebases", &ask, LIMIT).await.map_err(|error| backend::problem(error, &BUILDER))
    }

    /// Asks the builder to delete the image of a version that no release names.
    pub(crate) async fn delete_image(&self, caller: &Caller, row: &AppRow, version: String) -> Result<(), Problem> {
        check_version(&version).map_err(|error| invalid("version", &error))?;
        let object = format!("{} version {version}", crate::apps::object(&row.name));
        let ask = ImageDelete {
            app: row.name.clone(),
            app_created_at: row.created_at,
            version,
            user: caller.name().to_owned(),
        };
        let deleted = self.builder.post::<_, ()>("/v1/images/delete", &ask, LIMIT).await;
        deleted.map_err(|error| backend::problem(error, &BUILDER))?;
        self.record_done(caller, "image.delete", &object).await;
        Ok(())
    }

    /// Asks the builder to end a build.
    pub(crate) async fn cancel_build(&self, caller: &Caller, view: &BuildView) -> Result<BuildView, Problem> {
        if view.status.is_final() {
            let detail = format!("build {} has ended: it is {}", view.id, view.status.as_str());
            return Err(Problem::conflict("has-ended", detail));
        }
        let path = format!("/v1/builds/{}", view.id);
        self.builder.delete::<()>(&path, LIMIT).await.map_err(|error| backend::problem(error, &BUILDER))?;
        self.record_done(caller, "build.cancel", &crate::apps::object(&view.app)).await;
        let now = build::get(&mut self.conn().await?, view.id).await?;
        Ok(now.unwrap_or_else(|| view.clone()))
    }

    /// The builds that the caller sees, newest first.
    pub(crate) async fn builds(
        &self,
        caller: &Caller,
        app: Option<&AppName>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<BuildView>, Problem> {
        Ok(build::list_visible(&mut self.conn().await?, caller.visible(), app, before, limit).await?)
    }

    /// The builder's runtimes.
    pub(crate) async fn runtimes(&self) -> Result<Page<RuntimeView>, Problem> {
        self.builder.get("/v1/runtimes", LIMIT).await.map_err(|error| backend::problem(error, &BUILDER))
    }

    /// A runtime's name that the builder may know, or none; the builder has the last word.
    pub(crate) fn check_runtime(name: &str) -> Result<Option<RuntimeName>, Problem> {
        if name.is_empty() {
            return Ok(None);
        }
        name.parse().map(Some).map_err(|error: InvalidValue| invalid("runtime", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_image_tags() {
        for good in ["v1", "2026-11-22", "_x", "1.0.0-rc.1"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for bad in ["", ".x", "-x", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(check_version(bad).is_err(), "{bad:?}");
        }
    }
}
