//! Forms: received safely, and shown again with the error at its field.

use crate::{Caller, Dash, invalid};
use axum::extract::{FromRequest, Request};
use dinp_common::model::InvalidValue;
use dinp_common::problem::Problem;
use dinp_common::web;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MAX_FORM, Oops};

/// What was typed in, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Form {
    values: BTreeMap<String, String>,
    problem: Option<Problem>,
}

impl Form {
    /// A form with these values in its fields.
    pub(crate) fn of<'a>(values: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { values, problem: None }
    }

    /// The same with another field.
    pub(crate) fn and(mut self, name: &str, value: String) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// The same with what is wrong.
    pub(crate) fn with(mut self, problem: Problem) -> Self {
        self.problem = Some(problem);
        self
    }

    /// What stands in a field.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Whether a box is ticked.
    pub(crate) fn ticked(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// What is wrong with a field.
    pub(crate) fn error(&self, name: &str) -> Option<&str> {
        let problem = self.problem.as_ref()?;
        (problem.text("field")? == name).then_some(problem.detail.as_str())
    }

    /// What is wrong without being about a field of this form.
    pub(crate) fn general(&self) -> Option<&str> {
        let problem = self.problem.as_ref()?;
        match problem.text("field") {
            Some(field) if self.values.contains_key(field) => None,
            _ => Some(&problem.detail),
        }
    }

    /// The status to answer with.
    pub(crate) fn status(&self) -> http::StatusCode {
        let status = self.problem.as_ref().map_or(200, |problem| problem.status);
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// A field as a number; nothing where it is empty.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, what: &'static str) -> Result<Option<T>, Problem> {
        let text = self.value(name).trim();
        if text.is_empty() {
            return Ok(None);
        }
        let wrong = || invalid(name, &InvalidValue::new(what, text, "it must be a whole number"));
        text.parse().map(Some).map_err(|_| wrong())
    }

    /// A field as a checked type.
    pub(crate) fn parse<T: std::str::FromStr<Err = InvalidValue>>(&self, name: &str) -> Result<T, Problem> {
        self.value(name).trim().parse().map_err(|error| invalid(name, &error))
    }

    /// A field that may be empty.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        let text = self.value(name).trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// Whether a token belongs to the caller's forms.
pub(crate) fn check_token(caller: &Caller, token: &str) -> Result<(), Problem> {
    if web::is_form_token(caller.token.expose(), token) {
        return Ok(());
    }
    let problem = Problem::forbidden("this form is not of this session; open the page again and send it from there");
    Err(Problem { kind: "cross-site".into(), ..problem })
}

/// A form that one of our own pages has sent.
pub(crate) struct Sent(pub Form);

impl FromRequest<Arc<Dash>> for Sent {
    type Rejection = Oops;

    async fn from_request(request: Request, _: &Arc<Dash>) -> Result<Self, Oops> {
        let caller = request.extensions().get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| Problem::unauthorized("you are not signed in"))?;
        let bytes = axum::body::to_bytes(request.into_body(), MAX_FORM)
            .await
            .map_err(|_| Problem::new(http::StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the form is too large"))?;
        let mut values: BTreeMap<String, String> =
            url::form_urlencoded::parse(&bytes).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        let token = values.remove("csrf").unwrap_or_default();
        check_token(&caller, &token)?;
        // Browsers send line ends as CR LF.
        for value in values.values_mut() {
            if value.contains('\r') {
                *value = value.replace("\r\n", "\n");
            }
        }
        Ok(Self(Form { values, problem: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stands_at_its_field_or_above_the_form() {
        let form = Form::of([("image", "x".to_owned()), ("memory_mb", "12x".to_owned())]);
        let problem = form.number::<u32>("memory_mb", "memory").unwrap_err();
        let form = form.with(problem);
        assert_eq!(form.error("memory_mb"), Some("memory \"12x\" is not valid: it must be a whole number"));
        assert_eq!((form.error("image"), form.general(), form.status().as_u16()), (None, None, 422));
        let form = Form::default().with(Problem::conflict("x", "nothing to go back to"));
        assert_eq!(form.general(), Some("nothing to go back to"));
    }
}
