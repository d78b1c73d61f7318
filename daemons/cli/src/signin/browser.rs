//! Signing in with a browser: it is sent back to a listener of ours on the loopback address.

use std::process::{Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;

use super::{Attempt, not_signed_in};
use crate::error::CliError;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(300);

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>DINP</title>\
<body style='font-family:system-ui;margin:20vh auto;max-width:30em;text-align:center'>\
<h1>That is all</h1><p>The command line goes on in its terminal. You can close this window.</p>";

/// A listener that waits for the browser.
pub struct Loopback {
    listener: TcpListener,
    /// What uic is told to send the browser to.
    pub redirect_uri: String,
}

impl Loopback {
    /// Listens on a free port.
    pub async fn open() -> Result<Self, CliError> {
        let failed = |error| CliError::io("listen on the loopback address", error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, redirect_uri: format!("http://127.0.0.1:{port}/callback") })
    }

    /// Waits until the browser brings an answer to this attempt, and returns the code.
    pub async fn code(self, attempt: &Attempt) -> Result<String, CliError> {
        let (sender, mut answers) = mpsc::channel::<String>(4);
        let pages = Router::new().route("/callback", get(callback)).with_state(sender);
        let server = axum::serve(self.listener, pages).into_future();
        let waiting = async {
            while let Some(query) = answers.recv().await {
                let url = format!("{}?{query}", attempt.redirect_uri);
                let Ok(url) = Url::parse(&url) else { continue };
                let result = attempt.code(&url);
                // The page must reach the browser before the listener goes.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return result;
            }
            Err(not_signed_in("the browser did not come back"))
        };
        tokio::select! {
            result = waiting => result,
            _ = server => Err(not_signed_in("the listener for the browser ended")),
            () = tokio::time::sleep(PATIENCE) => Err(not_signed_in("nobody signed in within five minutes")),
        }
    }
}

async fn callback(State(answers): State<mpsc::Sender<String>>, RawQuery(query): RawQuery) -> Html<&'static str> {
    // A second answer while the first is looked at says nothing new.
    answers.try_send(query.unwrap_or_default()).ok();
    Html(PAGE)
}

/// Opens a URL in the person's browser, where there is a desktop.
pub fn open(url: &Url) {
    let desktop =
        ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if desktop {
        // The URL has been printed: whoever has no xdg-open opens it by hand.
        Command::new("xdg-open")
            .arg(url.as_str())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok();
    }
}
