//! What every page has around it.

use crate::{Caller, Dash};
use dinp_common::api::uic::PlatformRole;
use dinp_common::web;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the line about the cluster is kept.
const FRESH: Duration = Duration::from_secs(2);

/// What the leader said last, as the line at the top of each page.
#[derive(Default)]
pub(crate) struct BannerCache(Mutex<Option<(Instant, Option<String>)>>);

/// Bar, banner and notice of a page.
pub(crate) struct Frame {
    /// Who is signed in; empty: nobody.
    pub user: String,
    /// Whether pages for operators are shown.
    pub operator: bool,
    /// Whether pages for administrators are shown.
    pub admin: bool,
    /// What each form must carry.
    pub csrf: String,
    /// What is out of order in the cluster.
    pub banner: Option<String>,
    /// What was just done.
    pub notice: Option<&'static str>,
    /// The section that the page belongs to.
    pub section: &'static str,
    /// Seconds after which a browser without scripts loads the page again.
    pub reload_secs: u32,
    /// Where accounts are.
    pub account_url: String,
}

impl Frame {
    /// For somebody who is signed in.
    pub(crate) async fn new(dash: &Dash, caller: &Caller, section: &'static str) -> Self {
        Self {
            user: caller.name().to_owned(),
            operator: caller.user.role >= PlatformRole::Operator,
            admin: caller.user.role >= PlatformRole::Admin,
            csrf: web::form_token(caller.token.expose()),
            banner: dash.banner().await,
            notice: None,
            section,
            reload_secs: 0,
            account_url: dash.cluster.uic.public_url.to_string(),
        }
    }

    /// For pages without a sign-on.
    pub(crate) fn anonymous() -> Self {
        Self {
            user: String::new(),
            operator: false,
            admin: false,
            csrf: String::new(),
            banner: None,
            notice: None,
            section: "",
            reload_secs: 0,
            account_url: String::new(),
        }
    }

    /// Says what was just done, by the code in the query.
    pub(crate) fn with_notice(mut self, query: &DoneQuery) -> Self {
        self.notice = notice(&query.done);
        self
    }

    /// Whether this section is the page's.
    pub(crate) fn is_in(&self, section: &str) -> bool {
        self.section == section
    }
}

/// Query that says what was just done.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub(crate) struct DoneQuery {
    done: String,
}

fn notice(code: &str) -> Option<&'static str> {
    Some(match code {
        "created" => "The app has been created. Next: give it something to run.",
        "scaled" => "The new number of instances has been saved.",
        "started" => "The app will be started.",
        "stopped" => "The app will be stopped.",
        "env" => "The environment has been changed.",
        "domain-added" => "The domain has been added.",
        "domain-removed" => "The domain has been removed.",
        "deleted" => "The app has been deleted. Its instances are being stopped.",
        "build-cancelled" => "The build has been cancelled.",
        "saved" => "Saved.",
        _ => return None,
    })
}

impl Dash {
    /// What is out of order in the cluster, in a sentence.
    async fn banner(&self) -> Option<String> {
        let kept = self.banner_cache.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, line)) = kept
            && at.elapsed() < FRESH
        {
            return line;
        }
        let line = match self.glance().await {
            Err(problem) if problem.kind == "waiting-for-leader" => Some(
                "Waiting for leader: no server can be reached now. What runs keeps running; changes are saved and carried \
                 out when there is a leader again."
                    .to_owned(),
            ),
            Err(problem) => Some(format!("The leader does not say how the cluster is: {problem}.")),
            Ok(status) => match (status.frozen, status.holdover) {
                (Some(reason), _) => {
                    Some(format!("Frozen: {reason}. What runs keeps running; nothing is stopped or moved until this is cleared."))
                }
                (None, true) => Some(
                    "Holdover: the leader cannot renew its lease. What runs keeps running; deployments and stops wait."
                        .to_owned(),
                ),
                (None, false) => None,
            },
        };
        *self.banner_cache.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), line.clone()));
        line
    }
}
