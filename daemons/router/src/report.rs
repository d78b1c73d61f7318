//! What the leader is told: each second, and at once after every table that is in force.

use crate::api::{ReleaseTraffic, Traffic};
use crate::release_metrics;
use crate::table::{ReleaseStats, Shared};
use crate::totals::Totals;
use dinp_common::api::router::{ReleaseCounters, RouterGoodbye, RouterReply, RouterReport};
use dinp_common::auth::Credential;
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Heartbeat;
use dinp_common::model::Version;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

/// Time between reports.
const PERIOD: Duration = Duration::from_secs(1);
/// Time for one report.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// Makes reports of what the router has and does.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) ledger: Shared,
    pub(crate) totals: Arc<Totals>,
    pub(crate) router: String,
    pub(crate) status_url: String,
}

impl Reporter {
    /// The report of this moment.
    pub(crate) fn report(&self) -> RouterReport {
        self.report_of(&self.totals.news.look())
    }

    /// The report with the counters of these releases. The requests in flight are counted after the version was read,
    /// never before.
    fn report_of(&self, news: &[Arc<ReleaseStats>]) -> RouterReport {
        let counters = news.iter().filter_map(|stats| stats.read()).collect();
        let mut ledger = self.ledger.lock();
        RouterReport {
            router: self.router.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status_url: self.status_url.clone(),
            applied: ledger.applied(),
            in_flight: ledger.in_flight(),
            counters,
        }
    }

    /// Reports for ever. A report that is under way when a new table comes into force is given up for a new one:
    /// two at a time could arrive in the wrong order.
    pub(crate) async fn run(self, client: ApiClient, mut applied: watch::Receiver<Version>, beat: Heartbeat) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answered = true;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = applied.changed() => if changed.is_err() { return },
            }
            beat.beat();
            applied.borrow_and_update();
            self.publish_metrics();
            let news = self.totals.news.take();
            let report = self.report_of(&news);
            let sent = tokio::select! {
                sent = client.post::<_, RouterReply>("/v1/router/report", &report, TIMEOUT) => Some(sent),
                _ = applied.wait_for(|version| *version > report.applied) => None,
            };
            if !matches!(sent, Some(Ok(_))) {
                self.totals.news.put_back(&news);
            }
            match sent {
                Some(sent) => self.note(sent, &mut answered),
                None => applied.mark_changed(),
            }
        }
    }

    /// Says that the router stops on purpose.
    pub(crate) async fn goodbye(&self, client: &ApiClient) {
        let goodbye = RouterGoodbye { router: self.router.clone() };
        if let Err(error) = client.post::<_, ()>("/v1/router/goodbye", &goodbye, TIMEOUT).await {
            tracing::warn!(error = %ErrorChain(&error), "the leader could not be told that this router stops");
        }
    }

    fn note(&self, sent: Result<RouterReply, ClientError>, answered: &mut bool) {
        let now = sent.is_ok();
        metrics::gauge!("dinp_router_leader_up").set(f64::from(u8::from(now)));
        if let Ok(reply) = &sent {
            let lag = reply.published.seq.saturating_sub(self.ledger.lock().applied().seq);
            metrics::gauge!("dinp_router_published_lag").set(lag as f64);
        }
        match (std::mem::replace(answered, now), sent) {
            (false, Ok(reply)) => tracing::info!(epoch = reply.epoch, "the leader takes reports again"),
            (true, Err(error)) => tracing::warn!(error = %ErrorChain(&error), "the leader does not take reports"),
            _ => {}
        }
    }

    fn publish_metrics(&self) {
        self.totals.publish();
        let ((apps, instances), applied) = {
            let ledger = self.ledger.lock();
            (ledger.size(), ledger.applied())
        };
        metrics::gauge!("dinp_router_table_apps").set(apps as f64);
        metrics::gauge!("dinp_router_table_instances").set(instances as f64);
        metrics::gauge!("dinp_router_table_epoch").set(applied.epoch as f64);
        metrics::gauge!("dinp_router_table_seq").set(applied.seq as f64);
    }

    /// The counters of each release that has answered, and what is in flight to it.
    pub(crate) fn traffic(&self) -> Traffic {
        let (stats, apps) = {
            let ledger = self.ledger.lock();
            (ledger.stats(), ledger.apps(None))
        };
        let mut in_flight: HashMap<(&str, u64), u64> = HashMap::new();
        for endpoint in apps.iter().flat_map(|app| &app.endpoints) {
            let of = (endpoint.stats.app.as_str(), endpoint.stats.release);
            *in_flight.entry(of).or_default() += u64::from(endpoint.instance.in_flight());
        }
        let releases = stats.iter().filter_map(|stats| stats.read()).map(|counters| {
            let ReleaseCounters { app, release, answers, failed, micros } = counters;
            let in_flight = in_flight.get(&(app.as_str(), release)).copied().unwrap_or_default();
            ReleaseTraffic { app, release, answers, failed, micros, in_flight }
        });
        let queued = self.totals.queues.waiting() as u64;
        Traffic { connections: self.totals.open(), queued, releases: releases.collect() }
    }

    /// The counters of each release that has answered, as Prometheus text: of those that the ledger knows, and of no
    /// other for ever.
    pub(crate) fn release_metrics(&self) -> impl Iterator<Item = String> + Send + use<> {
        release_metrics::text(self.ledger.lock().stats())
    }
}

/// The client for the leader.
pub(crate) fn client(servers: Vec<Url>, credential: Credential) -> ApiClient {
    ApiClient::of_servers(servers, Some(credential), concat!("dinp-router/", env!("CARGO_PKG_VERSION")))
}
