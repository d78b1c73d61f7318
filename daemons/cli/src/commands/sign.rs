//! `dinp login`, `logout`, `whoami`.

use std::io::Read;

use clap::Args;
use dinp_common::api::people::Meta;
use dinp_common::api::uic::{PlatformRole, TeamRole, TokenReply, UserInfo};
use dinp_common::api::unix_millis;
use dinp_common::auth::Credential;
use reqwest::Client;
use url::Url;

use crate::api::Api;
use crate::args::Global;
use crate::contexts::{Context, ContextFile, Contexts};
use crate::error::{CliError, trimmed};
use crate::output::Output;
use crate::session::{self, Target, is_of, server_url};
use crate::signin::browser::{self, Loopback};
use crate::signin::{Attempt, http_client, password, revoke};

const EXAMPLES: &str = "\
Examples:
  dinp login --server https://dash.example          in a browser
  dinp login --server http://dash.example:1985 --username anna
                                                    on a machine without a browser; asks for the password
  dinp login --server https://dash.example --ca-file ca.pem
                                                    where an authority of your own signs
  dinp login --username anna --password-stdin < file";

/// Arguments of `dinp login`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Login {
    /// Sign in by name and password, without a browser
    #[arg(long, short = 'u', value_name = "NAME")]
    username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
    /// Print the address and open no browser
    #[arg(long, conflicts_with = "username")]
    no_browser: bool,
}

/// Signs in and keeps the token.
pub async fn login(login: &Login, global: &Global, out: &Output) -> Result<(), CliError> {
    let file = ContextFile::of_user()?;
    let mut contexts = file.read()?;
    let Target { server, trust, .. } = login_target(global, &contexts)?;
    let ca_file = trust.ca_file()?;
    let meta: Meta = Api::new(server.clone(), None, &trust)?.get("/v1/meta").await?;
    let uic = server_url(&meta.uic_url)?;
    let http = http_client(&uic, &trust)?;
    let reply = match &login.username {
        Some(username) => by_password(&http, uic, username, &read_password(login.password_stdin, username)?).await?,
        None => by_browser(&http, uic, login.no_browser, out).await?,
    };
    let credential: Credential = reply
        .access_token
        .parse()
        .map_err(|error| CliError::Other(format!("sign-on gave something else than an access token: {error}")))?;
    let me: UserInfo = Api::new(server.clone(), Some(credential), &trust)?.get("/v1/me").await?;
    let name = match &global.context {
        Some(name) => name.clone(),
        None => context_name(&contexts, &server, &meta.cluster),
    };
    let expires_at =
        unix_millis().saturating_add(i64::try_from(reply.expires_in).unwrap_or(i64::MAX).saturating_mul(1000));
    let context = Context {
        server: trimmed(&server).to_owned(),
        ca_file,
        user: me.name.clone(),
        token: Some(reply.access_token),
        expires_at: Some(expires_at),
    };
    contexts.contexts.insert(name.clone(), context);
    contexts.current = Some(name.clone());
    file.write(&contexts)?;
    out.done(&me, &format!("signed in to {} as {} (context {name})", trimmed(&server), me.name))
}

/// A new cluster may be named by its address; without one, sign in where one was signed in before.
fn login_target(global: &Global, contexts: &Contexts) -> Result<Target, CliError> {
    match &global.server {
        Some(server) => Target::at(server_url(server)?, global, contexts),
        None => session::target(global, contexts).map_err(|error| match error {
            CliError::SignedOut { .. } => CliError::usage(
                "the address of the dashboard is not known yet",
                "name it: `dinp login --server http://<dashboard>:1985`",
            ),
            other => other,
        }),
    }
}

/// The context of this server; else a new one that is called as the cluster, or as the address where that is taken.
fn context_name(contexts: &Contexts, server: &Url, cluster: &str) -> String {
    if let Some((name, _)) = contexts.contexts.iter().find(|(_, context)| is_of(context, server)) {
        return name.clone();
    }
    if contexts.contexts.contains_key(cluster) || cluster.is_empty() {
        return server.authority().to_owned();
    }
    cluster.to_owned()
}

async fn by_password(http: &Client, uic: Url, username: &str, secret: &str) -> Result<TokenReply, CliError> {
    // Nobody listens there: the answer is taken from the redirect before it is followed.
    let attempt = Attempt::new(uic, "http://127.0.0.1:1/callback".into())?;
    let code = password::code(http, &attempt, username, secret).await?;
    attempt.exchange(http, &code).await
}

async fn by_browser(http: &Client, uic: Url, print_only: bool, out: &Output) -> Result<TokenReply, CliError> {
    let loopback = Loopback::open().await?;
    let attempt = Attempt::new(uic, loopback.redirect_uri.clone())?;
    let url = attempt.authorize_url()?;
    // Not a note: with --quiet, too, a person must be able to go on.
    eprintln!(
        "open this address in a browser on this machine to sign in:\n  {url}\n(without a browser: dinp login --username NAME)"
    );
    if !print_only {
        browser::open(&url);
    }
    out.note("waiting for the browser ...");
    let code = loopback.code(&attempt).await?;
    attempt.exchange(http, &code).await
}

fn read_password(from_stdin: bool, username: &str) -> Result<String, CliError> {
    if from_stdin {
        return secret_from_stdin("password");
    }
    prompt(&format!("password of {username}: "))
}

/// Asks at the terminal, without showing what is typed.
pub fn prompt(question: &str) -> Result<String, CliError> {
    rpassword::prompt_password(question).map_err(|_| {
        CliError::usage(
            "there is no terminal to ask for the password at",
            "give it on standard input with --password-stdin",
        )
    })
}

/// All of standard input, without the end of its last line.
pub fn secret_from_stdin(what: &str) -> Result<String, CliError> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| CliError::io(format!("read the {what} from standard input"), error))?;
    let text = without_line_end(text);
    if text.is_empty() {
        return Err(CliError::refused(format!("the {what} on standard input is empty"), ""));
    }
    Ok(text)
}

/// A text without the end of its last line.
pub fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Signs out.
pub async fn logout(global: &Global, out: &Output) -> Result<(), CliError> {
    let file = ContextFile::of_user()?;
    let mut contexts = file.read()?;
    let target = session::target(global, &contexts)?;
    let (Some(name), Some(token)) = (target.name, target.token) else {
        out.note(format!("you are not signed in to {}", trimmed(&target.server)));
        return Ok(());
    };
    if let Some(context) = contexts.contexts.get_mut(&name) {
        context.token = None;
        context.expires_at = None;
    }
    file.write(&contexts)?;
    let ended = async {
        let meta: Meta = Api::new(target.server.clone(), None, &target.trust)?.get("/v1/meta").await?;
        revoke(&server_url(&meta.uic_url)?, &token, &target.trust).await
    };
    match ended.await {
        Ok(()) => out.note(format!("signed out of {}", trimmed(&target.server))),
        Err(error) => out.note(format!(
            "signed out here; the session itself could not be ended and lasts until it expires ({error})"
        )),
    }
    Ok(())
}

/// Shows who is signed in.
pub async fn whoami(global: &Global, out: &Output) -> Result<(), CliError> {
    let api = session::api(global)?;
    let me: UserInfo = api.get("/v1/me").await?;
    out.show(&me, || {
        let teams = me.teams.iter().map(|team| format!("{} ({})", team.team, team_role(team.role)));
        out.pairs(vec![
            ("user", me.name.clone()),
            ("role", platform_role(me.role).into()),
            ("teams", teams.collect::<Vec<_>>().join(", ")),
            ("server", trimmed(api.server()).into()),
        ])
    })
}

/// The word for a role on the platform.
pub fn platform_role(role: PlatformRole) -> &'static str {
    match role {
        PlatformRole::User => "user",
        PlatformRole::Operator => "operator",
        PlatformRole::Admin => "admin",
    }
}

/// The word for a role in a team.
pub fn team_role(role: TeamRole) -> &'static str {
    match role {
        TeamRole::Viewer => "viewer",
        TeamRole::Deployer => "deployer",
        TeamRole::Owner => "owner",
    }
}
