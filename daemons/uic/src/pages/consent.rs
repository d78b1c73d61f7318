//! A client asks for a code: the dashboard gets it at once, to the command line the person has to say yes.

use super::sign_in::login_form;
use super::{error, html, role_word, sender};
use crate::Uic;
use crate::oauth::{CodeRequest, Refused};
use crate::sessions::Browser;
use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::response::Response;
use dinp_common::problem::Problem;
use dinp_common::store::user::UserRow;
use http::{HeaderMap, StatusCode, Uri};
use serde::Deserialize;
use std::sync::Arc;

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage<'a> {
    csrf: &'a str,
    request: &'a CodeRequest,
    user: &'a UserRow,
    role: &'a str,
    lasts: &'a str,
}

/// The request at this address, or the answer to one that is not sound.
fn read(uic: &Uic, uri: &Uri) -> Result<CodeRequest, Box<Response>> {
    CodeRequest::read(uic, uri).map_err(|refused| match *refused {
        Refused::Here(problem) => Box::new(error(&problem)),
        Refused::Back(answer) => Box::new(answer),
    })
}

/// The answer to a client, or why there is none.
fn answer(told: Result<Response, Problem>) -> Response {
    told.unwrap_or_else(|problem| error(&problem))
}

/// `GET /oauth/authorize`.
pub(crate) async fn authorize(State(uic): State<Arc<Uic>>, headers: HeaderMap, uri: Uri) -> Response {
    let request = match read(&uic, &uri) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    match uic.browser(&headers).await {
        Ok(Some(browser)) if request.asks_first() => ask(&uic, &browser, &request),
        Ok(Some(browser)) => answer(request.allow(&uic, &browser.session.id).await),
        Ok(None) => login_form(&uic, &headers, &request.path, "", None),
        Err(problem) => error(&problem),
    }
}

/// Asks whether the command line may sign in as the person whose browser this is.
fn ask(uic: &Uic, browser: &Browser, request: &CodeRequest) -> Response {
    let page = ConsentPage {
        csrf: &browser.form_token(),
        request,
        user: &browser.session.user,
        role: &role_word(browser),
        lasts: &in_words(uic.config.cli_token_secs),
    };
    html(StatusCode::OK, &page)
}

/// A time of five minutes or more.
fn in_words(secs: u64) -> String {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    match secs {
        days if days >= 2 * DAY => format!("{} days", days / DAY),
        hours if hours >= 2 * HOUR => format!("{} hours", hours / HOUR),
        minutes => format!("{} minutes", minutes / 60),
    }
}

/// Form of the page that asks.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsentForm {
    csrf: String,
    answer: String,
}

/// `POST /oauth/authorize`: what the person said.
pub(crate) async fn consent(
    State(uic): State<Arc<Uic>>,
    headers: HeaderMap,
    uri: Uri,
    Form(form): Form<ConsentForm>,
) -> Response {
    let request = match read(&uic, &uri) {
        Ok(request) => request,
        Err(answer) => return *answer,
    };
    // Where the sign-on has ended meanwhile, the request begins anew.
    let browser = match sender(&uic, &headers, &form.csrf, &request.path).await {
        Ok(browser) => browser,
        Err(answer) => return answer,
    };
    match form.answer.as_str() {
        "allow" => answer(request.allow(&uic, &browser.session.id).await),
        "other" => login_form(&uic, &headers, &request.path, "", None),
        _ => answer(request.deny()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_in_words() {
        assert_eq!([300, 7199, 86_400, 30 * 86_400].map(in_words), ["5 minutes", "119 minutes", "24 hours", "30 days"]);
    }
}
