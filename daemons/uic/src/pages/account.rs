//! The own account: who one is, another password, signing out.

use super::sign_in::{WRONG, check_password};
use super::{error, html, record, role_word, sender};
use crate::Uic;
use crate::people::{self, Actor};
use crate::sessions::{Browser, COOKIE};
use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use dinp_common::api::uic::TeamMembership;
use dinp_common::problem::Problem;
use dinp_common::store::user::{self, UserRow};
use dinp_common::web::ClientAddress;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage<'a> {
    csrf: &'a str,
    user: &'a UserRow,
    role: &'a str,
    teams: &'a [TeamMembership],
    dash_url: &'a str,
    saved: bool,
    error: Option<&'a str>,
}

async fn account_page(uic: &Uic, browser: &Browser, saved: bool, message: Option<&str>) -> Response {
    let teams = async {
        let mut conn = uic.conn().await?;
        Ok::<_, Problem>(user::teams_of(&mut conn, browser.session.user.id).await?)
    };
    let teams = match teams.await {
        Ok(teams) => teams,
        Err(problem) => return error(&problem),
    };
    let page = AccountPage {
        csrf: &browser.form_token(),
        user: &browser.session.user,
        role: &role_word(browser),
        teams: &teams,
        dash_url: uic.dash_url.as_str(),
        saved,
        error: message,
    };
    let status = if message.is_some() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    html(status, &page)
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
pub(crate) struct AccountQuery {
    saved: Option<String>,
}

/// `GET /`.
pub(crate) async fn account(
    State(uic): State<Arc<Uic>>,
    headers: HeaderMap,
    Query(query): Query<AccountQuery>,
) -> Response {
    match uic.browser(&headers).await {
        Ok(Some(browser)) => account_page(&uic, &browser, query.saved.is_some(), None).await,
        Ok(None) => Redirect::to("/login").into_response(),
        Err(problem) => error(&problem),
    }
}

#[derive(Deserialize)]
pub(crate) struct LogoutForm {
    #[serde(default)]
    csrf: String,
}

/// `POST /logout`.
pub(crate) async fn sign_out(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Form(form): Form<LogoutForm>,
) -> Response {
    let browser = match sender(&uic, &headers, &form.csrf, "/login").await {
        Ok(browser) => browser,
        Err(response) => return response,
    };
    let end = async {
        let mut conn = uic.conn().await?;
        uic.end_browser(&mut conn, &browser.session.id).await?;
        record(&mut conn, &browser.session.user.name, client, "session.end").await
    };
    if let Err(problem) = end.await {
        return error(&problem);
    }
    let mut response = Redirect::to("/login").into_response();
    response.headers_mut().append(header::SET_COOKIE, uic.cookies.remove(COOKIE));
    response
}

#[derive(Deserialize)]
pub(crate) struct PasswordForm {
    #[serde(default)]
    csrf: String,
    current: String,
    new: String,
    repeated: String,
}

/// `POST /password`.
pub(crate) async fn change_password(
    State(uic): State<Arc<Uic>>,
    ClientAddress(client): ClientAddress,
    headers: HeaderMap,
    Form(form): Form<PasswordForm>,
) -> Response {
    let browser = match sender(&uic, &headers, &form.csrf, "/login").await {
        Ok(browser) => browser,
        Err(response) => return response,
    };
    let user = &browser.session.user;
    if form.new != form.repeated {
        return account_page(&uic, &browser, false, Some("The two new passwords differ.")).await;
    }
    match check_password(&uic, &user.name, &form.current, client).await {
        Ok(Ok(_)) => {}
        Ok(Err(refusal)) => {
            let refusal = if refusal == WRONG { "The current password is wrong.".to_owned() } else { refusal };
            return account_page(&uic, &browser, false, Some(&refusal)).await;
        }
        Err(problem) => return error(&problem),
    }
    let actor = Actor { name: user.name.clone(), address: client.to_string() };
    match people::change_own_password(&uic.pool, &uic.passwords, &actor, user, &browser.session.id, form.new).await {
        Ok(()) => Redirect::to("/?saved=1").into_response(),
        Err(problem) if problem.status == 422 => account_page(&uic, &browser, false, Some(&problem.detail)).await,
        Err(problem) => error(&problem),
    }
}
