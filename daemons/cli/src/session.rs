//! Which cluster a command speaks to, and as whom.

use dinp_common::auth::Credential;
use url::Url;

use crate::api::Api;
use crate::args::Global;
use crate::contexts::{Context, ContextFile, Contexts};
use crate::error::{CliError, trimmed};
use crate::trust::Trust;

const SIGN_IN: &str = "sign in with `dinp login --server http://<dashboard>:1985`";

/// Where a command goes.
pub struct Target {
    /// Name of the context, where one fits.
    pub name: Option<String>,
    /// Address of dash.
    pub server: Url,
    /// The access token of that context.
    pub token: Option<String>,
    /// Whom to trust there.
    pub trust: Trust,
}

impl Target {
    fn new(name: &str, context: &Context, global: &Global) -> Result<Self, CliError> {
        let trust = Trust::new(global.ca_file.clone().or_else(|| context.ca_file.clone()));
        let server = server_url(&context.server)?;
        Ok(Self { name: Some(name.to_owned()), server, token: context.token.clone(), trust })
    }

    /// One that nobody has signed in to.
    fn unknown(server: Url, global: &Global) -> Self {
        Self { name: None, server, token: None, trust: Trust::new(global.ca_file.clone()) }
    }

    /// A server, by the context that is of it.
    pub fn at(server: Url, global: &Global, contexts: &Contexts) -> Result<Self, CliError> {
        match contexts.contexts.iter().find(|(_, context)| is_of(context, &server)) {
            Some((name, context)) => Self::new(name, context, global),
            None => Ok(Self::unknown(server, global)),
        }
    }
}

/// Whether a context is of that server.
pub fn is_of(context: &Context, server: &Url) -> bool {
    server_url(&context.server).is_ok_and(|url| url == *server)
}

/// dash, signed in.
pub fn api(global: &Global) -> Result<Api, CliError> {
    let given = std::env::var("DINP_TOKEN").ok().filter(|token| !token.is_empty());
    // With address and token given, no file is needed: for programs.
    let target = match (&given, &global.server) {
        (Some(_), Some(server)) => Target::unknown(server_url(server)?, global),
        _ => target(global, &ContextFile::of_user()?.read()?)?,
    };
    let source = if given.is_some() { "DINP_TOKEN" } else { "the token that `dinp login` kept" };
    let Some(token) = given.or(target.token) else {
        let message = format!("you are not signed in to {}", trimmed(&target.server));
        let hint = format!("sign in with `dinp login --server {}`", trimmed(&target.server));
        return Err(CliError::SignedOut { message, hint });
    };
    let credential = token.trim().parse::<Credential>().map_err(|error| CliError::SignedOut {
        message: format!("{source} is no access token: {error}"),
        hint: SIGN_IN.into(),
    })?;
    Api::new(target.server, Some(credential), &target.trust)
}

/// The cluster that the command line, else the context in use, names. A token goes to its own server only.
pub fn target(global: &Global, contexts: &Contexts) -> Result<Target, CliError> {
    let signed_out = |message: &str| CliError::SignedOut { message: message.into(), hint: SIGN_IN.into() };
    if let Some(name) = &global.context {
        let Some(context) = contexts.contexts.get(name) else {
            return Err(CliError::refused(
                format!("there is no context {name}"),
                "`dinp context ls` shows those that exist",
            ));
        };
        let target = Target::new(name, context, global)?;
        return match &global.server {
            Some(server) if server_url(server)? != target.server => Err(CliError::usage(
                format!("--server {server} is not the server of context {name}, {}", trimmed(&target.server)),
                "give one of the two",
            )),
            _ => Ok(target),
        };
    }
    if let Some(server) = &global.server {
        return Target::at(server_url(server)?, global, contexts);
    }
    let Some(current) = &contexts.current else {
        return Err(signed_out("you are not signed in"));
    };
    match contexts.contexts.get(current) {
        Some(context) => Target::new(current, context, global),
        None => Err(signed_out("you are not signed in")),
    }
}

/// The address of a dashboard, as people write it: `https://host`, `http://host:port`, `host:port` or `host`.
pub fn server_url(text: &str) -> Result<Url, CliError> {
    const HINT: &str = "write it as http://<host>:<port>, dinp-dash listens on port 1985; or as https://<host> where a proxy speaks TLS";
    let refused = |why: &str| CliError::refused(format!("server \"{text}\" is not valid: {why}"), HINT);
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let url = Url::parse(&full).map_err(|error| refused(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(refused("it must begin with http:// or https://"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("it must have no path"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("it must hold no user name and no password"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use std::path::PathBuf;

    fn global(server: Option<&str>, context: Option<&str>) -> Global {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Global { server: text(server), context: text(context), ca_file: None, output: Format::Table, quiet: false }
    }

    fn contexts() -> Contexts {
        let context = |server: &str, token: &str| Context {
            server: server.into(),
            ca_file: Some(format!("/{token}.pem").into()),
            user: "anna".into(),
            token: Some(token.into()),
            expires_at: None,
        };
        let contexts =
            [("a".to_owned(), context("http://a:1985", "ta")), ("b".to_owned(), context("http://b:1985", "tb"))];
        Contexts { current: Some("a".into()), contexts: contexts.into() }
    }

    #[test]
    fn a_token_goes_to_its_own_server_only() {
        let token = |server, context| target(&global(server, context), &contexts()).unwrap().token;
        assert_eq!(token(None, None).as_deref(), Some("ta"));
        assert_eq!(token(None, Some("b")).as_deref(), Some("tb"));
        assert_eq!(token(Some("b:1985"), None).as_deref(), Some("tb"));
        assert_eq!(token(Some("http://c:1985"), None), None);
        assert_eq!(target(&global(Some("b:1985"), Some("a")), &contexts()).err().unwrap().code(), 64);
    }

    #[test]
    fn each_server_is_trusted_by_its_own_context_or_by_what_the_command_line_says() {
        let ca_file = |server, given: Option<&str>| {
            let global = Global { ca_file: given.map(PathBuf::from), ..global(server, None) };
            target(&global, &contexts()).unwrap().trust
        };
        assert_eq!(ca_file(None, None), Trust::new(Some("/ta.pem".into())));
        assert_eq!(ca_file(Some("b:1985"), None), Trust::new(Some("/tb.pem".into())));
        assert_eq!(ca_file(Some("c:1985"), None), Trust::default());
        assert_eq!(ca_file(None, Some("/own.pem")), Trust::new(Some("/own.pem".into())));
    }

    #[test]
    fn servers_are_written_in_several_ways() {
        for text in ["http://h:1985", "http://h:1985/", "h:1985"] {
            assert_eq!(server_url(text).unwrap().as_str(), "http://h:1985/", "{text}");
        }
        assert_eq!(server_url("https://h").unwrap().as_str(), "https://h/");
        for (bad, why) in [
            ("ftp://h", "must begin with http:// or https://"),
            ("http://h/x", "no path"),
            ("http://a:b@h", "no user name"),
            ("http://", "empty host"),
        ] {
            let error = server_url(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
