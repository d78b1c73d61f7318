//! `/v1/uploads`: packages in parts.

use super::{ApiPath, Shared};
use crate::builds::Upload;
use crate::{Caller, Dash};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use dinp_common::api::builder::{BuildView, UploadView};
use dinp_common::api::people::UploadCreate;
use dinp_common::api::uic::TeamRole;
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use http::StatusCode;
use serde::Deserialize;

pub(super) async fn begin(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiJson(asked): ApiJson<UploadCreate>,
) -> Result<(StatusCode, ApiJson<UploadView>), Problem> {
    let row = dash.app(&caller, asked.app.as_str(), TeamRole::Deployer).await?;
    let upload = Upload {
        runtime: Dash::check_runtime(asked.runtime.as_deref().unwrap_or_default())?,
        suite: asked.suite.filter(|suite| !suite.is_empty()),
        version: asked.version.filter(|version| !version.is_empty()),
        package: asked.package,
        note: asked.note,
        url: None,
        length: Some(asked.bytes),
    };
    let view = dash.begin_upload(&caller, &row, &upload, asked.bytes, asked.sha256).await?;
    Ok((StatusCode::CREATED, ApiJson(view)))
}

pub(super) async fn show(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<ApiJson<UploadView>, Problem> {
    Ok(ApiJson(dash.find_upload(&caller, &id).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PartQuery {
    offset: u64,
}

pub(super) async fn append(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<PartQuery>,
    body: Body,
) -> Result<ApiJson<UploadView>, Problem> {
    Ok(ApiJson(dash.append_to_upload(&caller, &id, query.offset, body).await?))
}

pub(super) async fn build(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<(StatusCode, ApiJson<BuildView>), Problem> {
    let upload = dash.find_upload(&caller, &id).await?;
    // Roles and what is left of a quota may have changed since it began.
    let row = dash.app(&caller, upload.app.as_str(), TeamRole::Deployer).await?;
    Ok((StatusCode::ACCEPTED, ApiJson(dash.build_upload(&caller, &row, &upload).await?)))
}

pub(super) async fn forget(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiPath(id): ApiPath<String>,
) -> Result<StatusCode, Problem> {
    dash.forget_upload(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
