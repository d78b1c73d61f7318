//! `/v1/builds` and `/v1/runtimes`.

use super::{Shared, page};
use crate::builds::Upload;
use crate::{Caller, Dash};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use dinp_common::api::builder::{BuildView, RuntimeView};
use dinp_common::api::uic::TeamRole;
use dinp_common::api::{Page, PageQuery};
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use url::Url;

#[derive(Deserialize)]
pub(super) struct ListQuery {
    app: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

pub(super) async fn list(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Result<ApiJson<Page<BuildView>>, Problem> {
    let app = match &query.app {
        Some(name) => Some(dash.app(&caller, name, TeamRole::Viewer).await?),
        None => None,
    };
    let query = PageQuery { after: query.after, limit: query.limit };
    let before = super::before(&query)?;
    let views = dash.builds(&caller, app.as_ref().map(|row| &row.name), before, query.limit() + 1).await?;
    Ok(ApiJson(page(views, query.limit(), |view| view.id.to_string())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UploadQuery {
    app: String,
    #[serde(default)]
    runtime: String,
    #[serde(default)]
    suite: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    package: String,
    #[serde(default)]
    note: String,
    /// Where the builder is to fetch the package, instead of the body.
    #[serde(default)]
    url: Option<Url>,
}

pub(super) async fn upload(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<UploadQuery>,
    body: Body,
) -> Result<(StatusCode, ApiJson<BuildView>), Problem> {
    let row = dash.app(&caller, &query.app, TeamRole::Deployer).await?;
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let upload = Upload {
        runtime: Dash::check_runtime(&query.runtime)?,
        suite: query.suite.filter(|suite| !suite.is_empty()),
        version: query.version.filter(|version| !version.is_empty()),
        package: query.package,
        note: query.note,
        url: query.url,
        length,
    };
    let view = dash.upload(&caller, &row, &upload, body.into_data_stream()).await?;
    Ok((StatusCode::ACCEPTED, ApiJson(view)))
}

pub(super) async fn show(Extension(view): Extension<BuildView>) -> ApiJson<BuildView> {
    ApiJson(view)
}

pub(super) async fn cancel(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
) -> Result<ApiJson<BuildView>, Problem> {
    Ok(ApiJson(dash.cancel_build(&caller, &view).await?))
}

#[derive(Deserialize)]
pub(super) struct BuildLogQuery {
    #[serde(default)]
    from: u32,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn log(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
    headers: HeaderMap,
    ApiQuery(query): ApiQuery<BuildLogQuery>,
) -> Result<Response, Problem> {
    dash.build_log(&caller, &view, &headers, query.from, query.follow)
}

pub(super) async fn runtimes(State(dash): Shared) -> Result<ApiJson<Page<RuntimeView>>, Problem> {
    Ok(ApiJson(dash.runtimes().await?))
}
