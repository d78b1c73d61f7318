//! Environment and domains of an app.

use super::app::Head;
use super::form::{Form, Sent};
use super::frame::{DoneQuery, Frame};
use super::show::{self, Moment};
use super::{Page, Shared, done, html, to_app};
use crate::{Caller, Dash};
use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use dinp_common::api::people::EnvPatch;
use dinp_common::model::{DomainName, EnvName};
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::domain;

#[derive(Template)]
#[template(path = "app_env.html")]
struct EnvPage {
    frame: Frame,
    head: Head,
    form: Form,
    names: Vec<String>,
    pending: bool,
    deployable: bool,
    left_out: Option<String>,
}

async fn env_page(dash: &Dash, caller: &Caller, row: &AppRow, said: &DoneQuery, form: Form) -> Page {
    let view = dash.app_view(row).await?;
    let env = dash.env_view(row).await?;
    let under_way = view.deployment.as_ref().is_some_and(|deployment| !deployment.state.is_final());
    let status = form.status();
    let page = EnvPage {
        frame: Frame::new(dash, caller, "apps").await.with_notice(said),
        head: Head::new(caller, &view, "env"),
        form,
        left_out: env.left_out.as_ref().map(show::left_out),
        names: env.names.into_iter().map(String::from).collect(),
        pending: !under_way && env.deployed_version.is_some_and(|version| version != env.version),
        deployable: view.release.is_some() || under_way,
    };
    Ok(html(status, &page))
}

fn env_form() -> Form {
    Form::of([("name", String::new()), ("value", String::new()), ("deploy", "yes".to_owned())])
}

/// `GET /apps/{app}/env`.
pub(super) async fn env(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(said): Query<DoneQuery>,
) -> Page {
    env_page(&dash, &caller, &row, &said, env_form()).await
}

/// `POST /apps/{app}/env`: sets one variable, or takes one away, or takes along the version that is not in force.
pub(super) async fn change_env(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let change = async {
        let keep = form.ticked("keep");
        let mut patch = EnvPatch { deploy: form.ticked("deploy"), keep, ..EnvPatch::default() };
        if let Some(name) = form.text("unset") {
            patch.unset = vec![name.parse().map_err(|error| crate::invalid("unset", &error))?];
        } else if !keep || form.text("name").is_some() {
            let name: EnvName = form.parse("name")?;
            patch.set.insert(name, form.value("value").to_owned());
        }
        dash.patch_env(&caller, &row, &patch).await
    };
    match change.await {
        Ok(view) if view.deployment.is_some() => Ok(to_app(&row)),
        Ok(_) => Ok(done(&format!("/apps/{}/env", row.name), "env")),
        Err(problem) => {
            let problem = at_name(problem);
            let present =
                Form::of([("name", form.value("name").to_owned()), ("value", form.value("value").to_owned())]);
            env_page(&dash, &caller, &row, &DoneQuery::default(), present.with(problem)).await
        }
    }
}

/// The API names a variable as `set.NAME`; the form has one field for all names.
fn at_name(problem: Problem) -> Problem {
    if problem.text("field").is_some_and(|field| field.starts_with("set")) {
        problem.with("field", "name")
    } else {
        problem
    }
}

struct DomainRow {
    name: String,
    url: String,
    by: String,
    at: Moment,
}

#[derive(Template)]
#[template(path = "app_domains.html")]
struct DomainsPage {
    frame: Frame,
    head: Head,
    form: Form,
    own: String,
    rows: Vec<DomainRow>,
}

async fn domains_page(dash: &Dash, caller: &Caller, row: &AppRow, said: &DoneQuery, form: Form) -> Page {
    let view = dash.app_view(row).await?;
    let rows = domain::list(&mut dash.conn().await?, &row.name).await?;
    let status = form.status();
    let page = DomainsPage {
        frame: Frame::new(dash, caller, "apps").await.with_notice(said),
        head: Head::new(caller, &view, "domains"),
        form,
        own: format!("{}.{}", row.name, dash.cluster.domain),
        rows: rows
            .into_iter()
            .map(|domain| DomainRow {
                url: dash.url_of_host(domain.name.as_str()),
                name: domain.name.into(),
                by: domain.created_by,
                at: show::moment(domain.created_at),
            })
            .collect(),
    };
    Ok(html(status, &page))
}

/// `GET /apps/{app}/domains`.
pub(super) async fn domains(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Query(said): Query<DoneQuery>,
) -> Page {
    domains_page(&dash, &caller, &row, &said, Form::of([("name", String::new())])).await
}

/// `POST /apps/{app}/domains`.
pub(super) async fn add_domain(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    let add = async {
        let name: DomainName = form.parse("name")?;
        dash.add_domain(&caller, &row, &name).await
    };
    match add.await {
        Ok(_) => Ok(done(&format!("/apps/{}/domains", row.name), "domain-added")),
        Err(problem) => domains_page(&dash, &caller, &row, &DoneQuery::default(), form.with(problem)).await,
    }
}

/// `POST /apps/{app}/domains/remove`.
pub(super) async fn remove_domain(
    State(dash): Shared,
    Extension(caller): Extension<Caller>,
    Extension(row): Extension<AppRow>,
    Sent(form): Sent,
) -> Page {
    dash.remove_domain(&caller, &row, form.value("domain")).await?;
    Ok(done(&format!("/apps/{}/domains", row.name), "domain-removed"))
}
