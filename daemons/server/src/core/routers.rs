//! What routers have confirmed.
//!
//! A router is live from its first report until it says goodbye or is forgotten. One that has answered neither report
//! nor read for a while is left out of confirmations, and is back in with its first answer. Ports wait for every
//! router that is not forgotten, the silent ones too: those may come back with an old table.

use super::fleet::Instance;
use super::permission::{Cause, Freeze};
use super::{Reign, Tick};
use dinp_common::api::router::RouterReport;
use dinp_common::model::{InstanceId, Version};
use std::collections::BTreeMap;

/// Time within which many routers must not vanish.
const VANISH_MS: u64 = 60_000;
/// Share of routers, in percent, that may vanish within that time; at least one may.
const VANISH_PERCENT: usize = 30;
/// Most routers that a sentence names.
const NAMED: usize = 5;

/// One router.
#[derive(Debug, Clone)]
pub(super) struct Router {
    pub status_url: String,
    pub version: String,
    pub applied: Version,
    pub in_flight: BTreeMap<InstanceId, u64>,
    pub known_since: Tick,
    pub last_heard: Option<Tick>,
    pub said_goodbye: bool,
    /// Whether leaders to come will know it, under this URL.
    pub is_written: bool,
    /// Since when it has been live without a break.
    pub live_since: Tick,
}

impl Router {
    fn silence(&self, now: Tick) -> u64 {
        now.saturating_sub(self.last_heard.unwrap_or(self.known_since))
    }

    pub(super) fn is_live(&self, now: Tick, timeout_ms: u64) -> bool {
        !self.said_goodbye && self.silence(now) < timeout_ms
    }

    /// A table of another epoch says nothing about ours.
    fn has_applied(&self, version: Version) -> bool {
        self.applied.epoch == version.epoch && self.applied >= version
    }
}

/// All routers that are not forgotten.
#[derive(Debug, Default)]
pub(super) struct Routers {
    pub all: BTreeMap<String, Router>,
    /// Whether those that a leader before has heard were read: before that nothing counts as confirmed.
    pub are_known: bool,
}

impl Routers {
    pub(super) fn know(&mut self, name: String, status_url: String, now: Tick) -> &mut Router {
        let router = Router {
            status_url,
            version: String::new(),
            applied: Version::ZERO,
            in_flight: BTreeMap::new(),
            known_since: now,
            last_heard: None,
            said_goodbye: false,
            is_written: false,
            live_since: now,
        };
        self.all.entry(name).or_insert(router)
    }

    pub(super) fn forgive(&mut self, gap: u64, now: Tick) {
        for router in self.all.values_mut() {
            router.last_heard = router.last_heard.map(|at| (at + gap).min(now));
            router.known_since = (router.known_since + gap).min(now);
        }
    }

    fn live(&self, now: Tick, timeout_ms: u64) -> impl Iterator<Item = (&String, &Router)> {
        self.all.iter().filter(move |(_, router)| router.is_live(now, timeout_ms))
    }

    /// Their names, or the first of many.
    fn named(&self) -> String {
        let names: Vec<&str> = self.all.keys().take(NAMED).map(String::as_str).collect();
        match self.all.len() - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

impl Reign {
    /// Takes in the names and status URLs of those that must confirm, as the database has them.
    pub fn routers_known(&mut self, known: Vec<(String, String)>, now: Tick) {
        for (name, status_url) in known {
            let router = self.routers.know(name, status_url.clone(), now);
            router.is_written = router.status_url == status_url;
        }
        self.routers.are_known = true;
    }

    /// Whether that has happened.
    pub fn knows_routers(&self) -> bool {
        self.routers.are_known
    }

    /// Names and status URLs of routers that leaders to come do not know yet.
    pub fn routers_to_write(&self) -> Vec<(String, String)> {
        let heard = self.routers.all.iter().filter(|(_, router)| !router.is_written && router.last_heard.is_some());
        heard.map(|(name, router)| (name.clone(), router.status_url.clone())).collect()
    }

    /// One of them is written down.
    pub fn router_written(&mut self, router: &str) {
        if let Some(router) = self.routers.all.get_mut(router) {
            router.is_written = true;
        }
    }

    /// Takes in what a router says, or what the shell has read from its status listener.
    pub fn router_report(&mut self, report: &RouterReport, now: Tick) {
        let router = self.routers.know(report.router.clone(), report.status_url.clone(), now);
        router.is_written &= router.status_url == report.status_url;
        if !router.is_live(now, self.settings.router_timeout_ms) {
            router.live_since = now;
        }
        router.status_url.clone_from(&report.status_url);
        router.version.clone_from(&report.version);
        router.applied = report.applied;
        router.in_flight.clone_from(&report.in_flight);
        router.last_heard = Some(now);
        router.said_goodbye = false;
    }

    /// When no router is heard, or many fell silent at once, what routers still use must not be taken away from them.
    pub(super) fn update_router_freeze(&mut self, now: Tick) {
        let timeout = self.settings.router_timeout_ms;
        let all = self.routers.all.len();
        let live = self.routers.live(now, timeout).count();
        let vanished = |router: &&Router| {
            let silence = router.silence(now);
            !router.said_goodbye && silence >= timeout && silence < timeout + VANISH_MS
        };
        let gone = self.routers.all.values().filter(vanished).count();
        let reason = if all > 0 && live == 0 {
            Some(format!(
                "no router is heard ({}): what they send to is not taken away; if they are gone for good, \
                 say dinp router forget",
                self.routers.named()
            ))
        } else if gone > (all * VANISH_PERCENT / 100).max(1) {
            Some(format!("{gone} of {all} routers fell silent within a minute"))
        } else {
            None
        };
        self.freeze(Cause::Routers, reason.map(|reason| Freeze { reason, is_blind: false, until: now }), now);
    }

    /// Takes in that a router stops on purpose.
    pub fn router_goodbye(&mut self, router: &str) {
        if let Some(router) = self.routers.all.get_mut(router) {
            router.said_goodbye = true;
        }
    }

    /// Forgets a router because a person said so.
    pub fn router_forget(&mut self, router: &str) {
        self.routers.all.remove(router);
    }

    /// Routers whose last word is too old: name and URL of the status listener, for the shell to read.
    pub fn routers_to_read(&self, now: Tick) -> Vec<(String, String)> {
        let is_due = |router: &Router| !router.said_goodbye && router.silence(now) >= self.settings.router_read_ms;
        let due = self.routers.all.iter().filter(|(_, router)| is_due(router));
        due.map(|(name, router)| (name.clone(), router.status_url.clone())).collect()
    }

    /// Whether every live router has this table or a later one.
    pub(super) fn is_confirmed(&self, version: Version, now: Tick) -> bool {
        let mut live = self.routers.live(now, self.settings.router_timeout_ms);
        self.routers.are_known && live.all(|(_, router)| router.has_applied(version))
    }

    /// Whether every router that is not forgotten has this table or a later one.
    pub(super) fn is_confirmed_by_all(&self, version: Version) -> bool {
        self.routers.are_known && self.routers.all.values().all(|router| router.has_applied(version))
    }

    /// Whether no live router has a request in flight to an instance that is out of the table since then, or each that
    /// has was given the drain timeout. One that comes back late may have sent to it until just now.
    pub(super) fn is_drained(&self, instance: &Instance, confirmed_at: Tick, now: Tick) -> bool {
        let drain_timeout_ms = self.times_of(instance).drain_timeout_ms;
        let mut live = self.routers.live(now, self.settings.router_timeout_ms);
        live.all(|(_, router)| {
            let is_busy = router.in_flight.get(&instance.id).is_some_and(|count| *count > 0);
            let since = confirmed_at.max(router.live_since);
            !is_busy || now.saturating_sub(since) >= drain_timeout_ms
        })
    }

    /// Live routers that do not have this table yet.
    pub(super) fn lagging(&self, version: Version, now: Tick) -> Vec<&str> {
        let live = self.routers.live(now, self.settings.router_timeout_ms);
        live.filter(|(_, router)| !router.has_applied(version)).map(|(name, _)| name.as_str()).collect()
    }
}
