//! Signing in without a browser: this program fills in the login form itself.

use http::{StatusCode, header};
use reqwest::{Client, Response};
use url::Url;

use super::{Attempt, form, not_signed_in, send, unreachable};
use crate::error::CliError;

/// Redirects that are followed before and after the form.
const MOST_REDIRECTS: usize = 10;

/// What came at the end of the redirects.
enum Answer {
    /// We were sent back with a code, or with an error.
    Back(Url),
    /// A page, from this address.
    Page(Url, StatusCode, String),
}

/// Signs in with name and password and returns the code.
pub async fn code(http: &Client, attempt: &Attempt, username: &str, password: &str) -> Result<String, CliError> {
    let first = send(&attempt.uic, http.get(attempt.authorize_url()?)).await?;
    let (url, status, page) = match follow(http, attempt, first).await? {
        Answer::Back(url) => return attempt.code(&url),
        Answer::Page(url, status, page) => (url, status, page),
    };
    let Some(form) = form::find(&page) else {
        return Err(no_form(attempt, status, &page));
    };
    let action =
        url.join(&form.action).map_err(|error| not_signed_in(format!("the login form leads nowhere: {error}")))?;
    // A password goes to uic and to nobody else, whatever a page says.
    if action.origin() != attempt.uic.origin() {
        return Err(not_signed_in(format!(
            "the login form leads to another server, {}",
            action.origin().ascii_serialization()
        )));
    }
    let mut fields = form.hidden;
    fields.push(("username".into(), username.into()));
    fields.push(("password".into(), password.into()));
    let sent = send(&attempt.uic, http.post(action).form(&fields)).await?;
    match follow(http, attempt, sent).await? {
        Answer::Back(url) => attempt.code(&url),
        Answer::Page(_, status, page) => Err(turned_away(status, &page)),
    }
}

async fn follow(http: &Client, attempt: &Attempt, mut response: Response) -> Result<Answer, CliError> {
    for _ in 0..MOST_REDIRECTS {
        let url = response.url().clone();
        let status = response.status();
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            let page = response.text().await.map_err(|error| unreachable(&attempt.uic, error))?;
            return Ok(Answer::Page(url, status, page));
        };
        let next = url.join(location).map_err(|error| not_signed_in(format!("uic leads to {location}: {error}")))?;
        if is_back(attempt, &next) {
            return Ok(Answer::Back(next));
        }
        if next.origin() != attempt.uic.origin() {
            return Err(not_signed_in(format!("uic leads to another server, {}", next.origin().ascii_serialization())));
        }
        response = send(&attempt.uic, http.get(next)).await?;
    }
    Err(not_signed_in("uic leads in a circle"))
}

fn is_back(attempt: &Attempt, url: &Url) -> bool {
    let mut bare = url.clone();
    bare.set_query(None);
    bare.set_fragment(None);
    bare.as_str() == attempt.redirect_uri
}

fn no_form(attempt: &Attempt, status: StatusCode, page: &str) -> CliError {
    if status.is_server_error() {
        let message = format!("sign-on at {} cannot answer now ({status})", crate::error::trimmed(&attempt.uic));
        return CliError::Unavailable {
            message,
            hint: "try again in a few seconds (`systemctl status dinp-uic`)".into(),
        };
    }
    let said = form::alert(page).unwrap_or_else(|| format!("there is no login form at {} ({status})", attempt.uic));
    not_signed_in(said)
}

fn turned_away(status: StatusCode, page: &str) -> CliError {
    if status.is_server_error() {
        let message = format!("sign-on cannot answer now ({status})");
        return CliError::Unavailable {
            message,
            hint: "try again in a few seconds (`systemctl status dinp-uic`)".into(),
        };
    }
    let default = match status {
        StatusCode::TOO_MANY_REQUESTS => "too many attempts: wait a little and try again",
        _ => "user name or password is wrong",
    };
    CliError::SignedOut {
        message: form::alert(page).unwrap_or_else(|| default.into()),
        hint: "an administrator can set a new password with `dinp user passwd NAME`".into(),
    }
}
