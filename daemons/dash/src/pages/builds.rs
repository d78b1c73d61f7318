//! Uploading packages, watching builds, deploying their images.

use super::app::Head;
use super::form::{Form, Sent, check_token};
use super::frame::{DoneQuery, Frame};
use super::settings_form::{self, TIMES, TimeField};
use super::show::{self, BuildRow};
use super::{Page, Shared, done, html, to_app};
use crate::builds::Upload;
use crate::{Caller, Dash, refuse};
use askama::Template;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::multipart::{Field, Multipart};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use dinp_common::api::builder::{BuildView, RuntimeView};
use dinp_common::api::people::Deploy;
use dinp_common::model::Limits;
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::build;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Builds on one page.
const PER_PAGE: u32 = 50;
/// Builds shown beside the upload.
const RECENT: u32 = 10;
/// Pieces of log in a page; the script loads all.
const LOG_BYTES: usize = 512 * 1024;
/// Most text fields of an upload.
const MAX_FIELDS: usize = 16;
/// Longest text field of an upload.
const MAX_FIELD: usize = 1024;

#[derive(Template)]
#[template(path = "app_upload.html")]
struct UploadPage {
    frame: Frame,
    head: Head,
    form: Form,
    runtimes: Vec<RuntimeView>,
    unknown: Option<String>,
    builds: Vec<BuildRow>,
    max_mb: u64,
}

async fn upload_page(dash: &Dash, caller: &Caller, row: &AppRow, form: Form) -> Page {
    let view = dash.app_view(row).await?;
    let builds = dash.builds(caller, Some(&row.name), None, RECENT).await?;
    let (runtimes, unknown) = match dash.runtimes().await {
        Ok(page) => (page.items, None),
        Err(problem) => (Vec::new(), Some(problem.detail)),
    };
    let status = form.status();
    let page = UploadPage {
        frame: Frame::new(dash, caller, "apps").await,
        head: Head::new(caller, &view, "upload"),
        form,
        runtimes,
        unknown,
        builds: builds.iter().map(show::build_row).collect(),
        max_mb: dash.config.upload_max_mb,
    };
    Ok(html(status, &page))
}

fn fields(values: &BTreeMap<String, String>) -> Form {
    let value = |name: &str| values.get(name).cloned().unwrap_or_default();
    Form::of([("runtime", value("runtime")), ("version", value("version")), ("package", String::new())])
}

/// `GET /apps/{app}/upload`.
pub(super) async fn upload_form(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
) -> Page {
    upload_page(&dash, &caller, &row, fields(&BTreeMap::new())).await
}

/// `POST /apps/{app}/upload`: the package goes on to the builder while it arrives, and is never held whole.
pub(super) async fn upload(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    form: Result<Multipart, axum::extract::multipart::MultipartRejection>,
) -> Page {
    let broken = || Problem::bad_request("upload-incomplete", "the upload did not arrive whole; try again");
    let mut form = form.map_err(|_| Problem::bad_request("invalid-form", "the upload is no form with a file"))?;
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let missing = || refuse("package", "package-missing", "choose the package to upload");
    loop {
        let Some(field) = form.next_field().await.map_err(|_| broken())? else {
            check_token(&caller, values.get("csrf").map_or("", String::as_str))?;
            return upload_page(&dash, &caller, &row, fields(&values).with(missing())).await;
        };
        let name = field.name().unwrap_or_default().to_owned();
        if name != "package" {
            if values.len() >= MAX_FIELDS {
                return Err(Problem::bad_request("invalid-form", "the upload has too many fields").into());
            }
            values.insert(name, text(field).await?);
            continue;
        }
        // The file is the form's last field, so that all else is known when it begins.
        check_token(&caller, values.get("csrf").map_or("", String::as_str))?;
        let sent = match accept(&dash, &caller, &row, &values, field).await {
            Ok(view) => return Ok(Redirect::to(&format!("/builds/{}", view.id)).into_response()),
            Err(problem) => problem,
        };
        return upload_page(&dash, &caller, &row, fields(&values).with(sent)).await;
    }
}

async fn text(mut field: Field<'_>) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let broken = |_| Problem::bad_request("upload-incomplete", "the upload did not arrive whole; try again");
    while let Some(chunk) = field.chunk().await.map_err(broken)? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > MAX_FIELD {
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a field of the form is too long"));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}

async fn accept(
    dash: &Dash,
    caller: &Caller,
    row: &AppRow,
    values: &BTreeMap<String, String>,
    mut field: Field<'_>,
) -> Result<BuildView, Problem> {
    let package = field.file_name().unwrap_or_default().to_owned();
    let value = |name: &str| values.get(name).map_or("", String::as_str);
    // What is wrong is found out before the package is read, and said after: a browser shows no answer that comes
    // while it still sends.
    let checked = match (package.is_empty(), Dash::check_runtime(value("runtime"))) {
        (true, _) => Err(refuse("package", "package-missing", "choose the package to upload")),
        (false, runtime) => runtime,
    };
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(4);
    let pump = async {
        let mut sender = Some(sender);
        let mut left = dash.config.upload_max_mb * 1024 * 1024 * 2;
        loop {
            let chunk = match field.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return,
                Err(error) => {
                    if let Some(sender) = sender {
                        // Nobody may be left who listens.
                        sender.send(Err(std::io::Error::other(error))).await.ok();
                    }
                    return;
                }
            };
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                return;
            }
            if let Some(to) = &sender
                && to.send(Ok(chunk)).await.is_err()
            {
                sender = None;
            }
        }
    };
    let send = async move {
        let runtime = match checked {
            Ok(runtime) => runtime,
            Err(problem) => {
                receiver.close();
                return Err(problem);
            }
        };
        let version = Some(value("version").to_owned()).filter(|version| !version.is_empty());
        let upload =
            Upload { runtime, suite: None, version, package, note: value("note").to_owned(), url: None, length: None };
        let stream = futures_util::stream::poll_fn(move |context| receiver.poll_recv(context));
        dash.upload(caller, row, &upload, stream).await
    };
    let (sent, ()) = tokio::join!(send, pump);
    sent
}

#[derive(Template)]
#[template(path = "builds.html")]
struct ListPage {
    frame: Frame,
    rows: Vec<BuildRow>,
    next: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    after: Option<u64>,
}

/// `GET /builds`.
pub(super) async fn list(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Page {
    let builds = dash.builds(&caller, None, query.after, PER_PAGE).await?;
    let next = if builds.len() == PER_PAGE as usize { builds.last().map(|build| build.id) } else { None };
    let rows = builds.iter().map(show::build_row).collect();
    Ok(html(StatusCode::OK, &ListPage { frame: Frame::new(&dash, &caller, "builds").await, rows, next }))
}

#[derive(Template)]
#[template(path = "build.html")]
struct BuildPage {
    frame: Frame,
    head: Head,
    row: BuildRow,
    form: Form,
    limits: Limits,
    times: &'static [TimeField],
    left_out: Option<String>,
    log: String,
    cut: bool,
}

async fn build_page(
    dash: &Dash,
    caller: &Caller,
    (view, owner): (&BuildView, &AppRow),
    said: &DoneQuery,
    form: Option<Form>,
) -> Page {
    let app = dash.app_view(owner).await?;
    let pieces = build::log_from(&mut dash.conn().await?, view.id, 0).await?;
    let mut log = String::new();
    let mut cut = false;
    for (_, text) in pieces {
        if log.len() + text.len() > LOG_BYTES {
            cut = true;
            break;
        }
        log.push_str(&text);
    }
    let mut frame = Frame::new(dash, caller, "builds").await.with_notice(said);
    let row = show::build_row(view);
    if row.running {
        frame.reload_secs = 2;
    }
    let form = match form {
        Some(form) => form,
        None => settings_form::fields(app.instances, dash.parents(owner).await?.settings.as_ref()),
    };
    let page = BuildPage {
        frame,
        head: Head::new(caller, &app, ""),
        row,
        limits: dash.config.limits.clone(),
        times: TIMES,
        left_out: dash.env_left_out(owner).await?.as_ref().map(show::left_out),
        log,
        cut,
        form,
    };
    Ok(html(page.form.status(), &page))
}

/// `GET /builds/{id}`.
pub(super) async fn show(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
    Extension(row): Extension<AppRow>,
    Query(said): Query<DoneQuery>,
) -> Page {
    build_page(&dash, &caller, (&view, &row), &said, None).await
}

/// `GET /builds/{id}/log`: what the page's script follows.
pub(super) async fn log(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    dash.build_log(&caller, &view, &headers, 0, true)
}

/// `POST /builds/{id}/cancel`.
pub(super) async fn cancel(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
    Sent(_): Sent,
) -> Page {
    dash.cancel_build(&caller, &view).await?;
    Ok(done(&format!("/builds/{}", view.id), "build-cancelled"))
}

/// `POST /builds/{id}/deploy`: the build's image, with one click.
pub(super) async fn deploy(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(view): Extension<BuildView>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let deploy = async {
        let parents = dash.parents(&row).await?;
        let note = form.text("note").unwrap_or_else(|| format!("build {}, version {}", view.id, view.version));
        let wish = settings_form::wish(&form, parents.settings.as_ref())?;
        let wish = Deploy { build: Some(view.id), note, ..wish };
        dash.deploy(&caller, &row, &wish).await
    };
    match deploy.await {
        Ok(_) => Ok(to_app(&row)),
        Err(problem) => {
            build_page(&dash, &caller, (&view, &row), &DoneQuery::default(), Some(form.with(problem))).await
        }
    }
}
