//! `/v1/uploads`: a package in parts.

use super::{Asked, accept, prepare};
use crate::arrival;
use crate::problems;
use crate::service::Service;
use crate::spool;
use crate::uploads::{About, Upload, UploadError};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use dinp_common::api::builder::{BuildView, UploadBegin, UploadView};
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use dinp_common::store;
use http::StatusCode;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfUser {
    user: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartQuery {
    user: String,
    offset: u64,
}

pub async fn begin(
    State(service): State<Arc<Service>>,
    ApiJson(UploadBegin { bytes, sha256, build }): ApiJson<UploadBegin>,
) -> Result<(StatusCode, Json<UploadView>), Problem> {
    if bytes == 0 {
        return Err(Problem::unprocessable("package-refused", "the package is empty").with("field", "package"));
    }
    let is_hex = |text: &String| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if sha256.as_ref().is_some_and(|sha256| !is_hex(sha256)) {
        let detail = "sha256 is not valid: it must be 64 digits, in hexadecimal and lower case";
        return Err(Problem::unprocessable("invalid-query", detail).with("field", "sha256"));
    }
    let Asked { query, .. } = prepare(&service, build).await?;
    let about = About { query, bytes, sha256, build: None };
    let uploads = &service.uploads;
    let upload = match uploads.again(&about).map_err(|error| problems::upload(error.into()))? {
        Some(upload) => upload,
        None => {
            let most = arrival::most(&service, about.query.max_bytes);
            let place = loop {
                match arrival::place(&service, &about.query.user, bytes, most) {
                    // What somebody has left lying about is no reason to refuse what comes.
                    Err(problem) if problem.status != 413 && uploads.make_room(&about.query.user) => drop(problem),
                    place => break place?,
                }
            };
            uploads.begin(about, place).map_err(|error| problems::upload(error.into()))?
        }
    };
    Ok((StatusCode::CREATED, Json(uploads.view(&upload))))
}

pub async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<OfUser>,
) -> Result<Json<UploadView>, Problem> {
    let upload = find(&service, &id, &query.user)?;
    Ok(Json(service.uploads.view(&upload)))
}

pub async fn append(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    query: Result<ApiQuery<PartQuery>, Problem>,
    body: Body,
) -> Result<Json<UploadView>, Problem> {
    let mut stream = body.into_data_stream();
    let stall = Duration::from_secs(service.config.package.upload_stall_secs.into());
    let taken = async {
        let ApiQuery(PartQuery { user, offset }) = query?;
        let upload = find(&service, &id, &user)?;
        let before = service.uploads.view(&upload).offset;
        let taken = upload.append(offset, &mut stream, stall).await;
        let view = service.uploads.view(&upload);
        metrics::counter!("dinp_builder_uploaded_bytes_total").increment(view.offset.saturating_sub(before));
        taken.map_err(problems::upload)?;
        Ok(view)
    };
    match taken.await {
        Ok(view) => Ok(Json(view)),
        Err(problem) => {
            spool::discard(stream).await;
            Err(problem)
        }
    }
}

pub async fn build(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<OfUser>,
) -> Result<(StatusCode, Json<BuildView>), Problem> {
    let upload = find(&service, &id, &query.user)?;
    // Asked again because an answer was lost, it is still one build.
    let _building = upload.building.lock().await;
    let about = upload.about();
    if let Some(build) = about.build {
        let mut conn = service.connect().await.map_err(problems::store)?;
        let build = store::build::get(&mut conn, build).await.map_err(problems::store)?;
        let gone = || Problem::not_found("the build of this upload does not exist any more");
        return Ok((StatusCode::ACCEPTED, Json(build.ok_or_else(gone)?)));
    }
    let (package, place) = match upload.whole().await {
        Err(error @ UploadError::Damaged(_)) => {
            service.uploads.forget(&upload);
            return Err(problems::upload(error));
        }
        whole => whole.map_err(problems::upload)?,
    };
    // Time has passed since it was asked for.
    let asked = prepare(&service, about.query).await?;
    let build = accept(&service, asked, package, place).await?;
    if let Err(error) = service.uploads.built(&upload, build.id) {
        tracing::warn!(build = build.id, %error, "upload of a build stays on disk");
    }
    Ok((StatusCode::ACCEPTED, Json(build)))
}

pub async fn forget(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    ApiQuery(query): ApiQuery<OfUser>,
) -> Result<StatusCode, Problem> {
    service.uploads.forget(find(&service, &id, &query.user)?.as_ref());
    Ok(StatusCode::NO_CONTENT)
}

fn find(service: &Service, id: &str, user: &str) -> Result<Arc<Upload>, Problem> {
    let gone = || Problem::not_found(format!("there is no upload {id}: it was forgotten, or never begun"));
    service.uploads.find(id, user).ok_or_else(gone)
}
