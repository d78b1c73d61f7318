//! `/v1/apps` and `/v1/deployments`.

use super::{ApiPath, Shared, before, page};
use crate::Caller;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use dinp_common::api::builder::{ImageView, RebaseView};
use dinp_common::api::control::LogQuery;
use dinp_common::api::people::{
    AppCreate, AppInstance, AppState, AppView, Deploy, DeploymentView, DomainAdd, DomainView, EnvPatch, EnvView,
    EventView, Rebase, ReleaseView, Rollback, Scale,
};
use dinp_common::api::{Page, PageQuery};
use dinp_common::problem::{ApiJson, ApiQuery, Problem};
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::{deployment, domain, event, image, release};
use http::StatusCode;

type Who = Extension<Caller>;
type App = Extension<AppRow>;
type Answer<T> = Result<ApiJson<T>, Problem>;
type Created<T> = Result<(StatusCode, ApiJson<T>), Problem>;

fn created<T>(value: T) -> (StatusCode, ApiJson<T>) {
    (StatusCode::CREATED, ApiJson(value))
}

pub(super) async fn list(
    State(dash): Shared,
    Extension(caller): Who,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Answer<Page<AppView>> {
    let mut conn = dash.conn().await?;
    let after = query.after.as_deref().unwrap_or_default();
    let rows = app::list(&mut conn, caller.visible(), after, query.limit() + 1).await?;
    let Page { items, next } = page(rows, query.limit(), |row| row.name.to_string());
    Ok(ApiJson(Page { items: dash.app_views(&mut conn, items, true).await?, next }))
}

pub(super) async fn create(
    State(dash): Shared,
    Extension(caller): Who,
    ApiJson(body): ApiJson<AppCreate>,
) -> Created<AppView> {
    Ok(created(dash.create_app(&caller, body).await?))
}

pub(super) async fn show(State(dash): Shared, Extension(row): App) -> Answer<AppView> {
    Ok(ApiJson(dash.app_view(&row).await?))
}

pub(super) async fn remove(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
) -> Result<StatusCode, Problem> {
    dash.delete_app(&caller, &row).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn deployments(
    State(dash): Shared,
    Extension(row): App,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Answer<Page<DeploymentView>> {
    let views = deployment::list(&mut dash.conn().await?, &row.name, before(&query)?, query.limit() + 1).await?;
    Ok(ApiJson(page(views, query.limit(), |view| view.id.to_string())))
}

pub(super) async fn deploy(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(body): ApiJson<Deploy>,
) -> Created<DeploymentView> {
    Ok(created(dash.deploy(&caller, &row, &body).await?))
}

pub(super) async fn deployment(Extension(view): Extension<DeploymentView>) -> ApiJson<DeploymentView> {
    ApiJson(view)
}

pub(super) async fn cancel_deployment(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(view): Extension<DeploymentView>,
) -> Answer<DeploymentView> {
    Ok(ApiJson(dash.cancel_deployment(&caller, &view).await?))
}

pub(super) async fn releases(
    State(dash): Shared,
    Extension(row): App,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Answer<Page<ReleaseView>> {
    let views = release::list(&mut dash.conn().await?, &row.name, before(&query)?, query.limit() + 1).await?;
    Ok(ApiJson(page(views, query.limit(), |view| view.number.to_string())))
}

pub(super) async fn rollback(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(body): ApiJson<Rollback>,
) -> Created<DeploymentView> {
    Ok(created(dash.rollback(&caller, &row, &body).await?))
}

pub(super) async fn rebase(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(wish): ApiJson<Rebase>,
) -> Answer<RebaseView> {
    Ok(ApiJson(dash.rebase(&caller, &row, &wish).await?))
}

pub(super) async fn images(State(dash): Shared, Extension(row): App) -> Answer<Page<ImageView>> {
    let items = image::list(&mut dash.conn().await?, row.name.as_str(), row.created_at).await?;
    Ok(ApiJson(Page { items, next: None }))
}

pub(super) async fn remove_image(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiPath((_, version)): ApiPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    dash.delete_image(&caller, &row, version).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn scale(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(body): ApiJson<Scale>,
) -> Answer<AppView> {
    Ok(ApiJson(dash.scale_app(&caller, &row, &body).await?))
}

pub(super) async fn stop(State(dash): Shared, Extension(caller): Who, Extension(row): App) -> Answer<AppView> {
    Ok(ApiJson(dash.set_app_state(&caller, &row, AppState::Stopped).await?))
}

pub(super) async fn start(State(dash): Shared, Extension(caller): Who, Extension(row): App) -> Answer<AppView> {
    Ok(ApiJson(dash.set_app_state(&caller, &row, AppState::Started).await?))
}

pub(super) async fn env(State(dash): Shared, Extension(row): App) -> Answer<EnvView> {
    Ok(ApiJson(dash.env_view(&row).await?))
}

pub(super) async fn patch_env(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(body): ApiJson<EnvPatch>,
) -> Answer<EnvView> {
    Ok(ApiJson(dash.patch_env(&caller, &row, &body).await?))
}

pub(super) async fn domains(State(dash): Shared, Extension(row): App) -> Answer<Page<DomainView>> {
    let items = domain::list(&mut dash.conn().await?, &row.name).await?;
    Ok(ApiJson(Page { items, next: None }))
}

pub(super) async fn add_domain(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiJson(body): ApiJson<DomainAdd>,
) -> Created<DomainView> {
    Ok(created(dash.add_domain(&caller, &row, &body.name).await?))
}

pub(super) async fn remove_domain(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiPath((_, name)): ApiPath<(String, String)>,
) -> Result<StatusCode, Problem> {
    dash.remove_domain(&caller, &row, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn instances(State(dash): Shared, Extension(row): App) -> Answer<Page<AppInstance>> {
    Ok(ApiJson(Page { items: dash.numbered_instances(&row.name).await?, next: None }))
}

pub(super) async fn events(
    State(dash): Shared,
    Extension(row): App,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Answer<Page<EventView>> {
    let events = event::list(&mut dash.conn().await?, &row.name, before(&query)?, query.limit() + 1).await?;
    let Page { items, next } = page(events, query.limit(), |(id, _)| id.to_string());
    Ok(ApiJson(Page { items: items.into_iter().map(|(_, event)| event).collect(), next }))
}

pub(super) async fn logs(
    State(dash): Shared,
    Extension(caller): Who,
    Extension(row): App,
    ApiQuery(query): ApiQuery<LogQuery>,
) -> Result<Response, Problem> {
    dash.app_log(&caller, &row, &query).await
}
