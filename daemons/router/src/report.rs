//! What the leader is told: each second, and at once after every table that is in force.

use crate::table::Shared;
use crate::totals::Totals;
use dinp_common::api::router::{ReleaseCounters, RouterGoodbye, RouterReply, RouterReport};
use dinp_common::auth::Credential;
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Heartbeat;
use dinp_common::model::Version;
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
    /// The report of this moment. The requests in flight are counted after the version was read, never before.
    pub(crate) fn report(&self) -> RouterReport {
        let mut ledger = self.ledger.lock();
        RouterReport {
            router: self.router.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status_url: self.status_url.clone(),
            applied: ledger.applied(),
            in_flight: ledger.in_flight(),
            counters: ledger.counters(),
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
            let report = self.report();
            let sent = tokio::select! {
                sent = client.post::<_, RouterReply>("/v1/router/report", &report, TIMEOUT) => Some(sent),
                _ = applied.wait_for(|version| *version > report.applied) => None,
            };
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
        let ledger = self.ledger.lock();
        let (apps, instances) = ledger.size();
        metrics::gauge!("dinp_router_table_apps").set(apps as f64);
        metrics::gauge!("dinp_router_table_instances").set(instances as f64);
        metrics::gauge!("dinp_router_table_epoch").set(ledger.applied().epoch as f64);
        metrics::gauge!("dinp_router_table_seq").set(ledger.applied().seq as f64);
    }

    /// The counters of each release, as Prometheus text: of those that the ledger counts, and of no other for ever.
    pub(crate) fn release_metrics(&self) -> String {
        per_release(&self.ledger.lock().counters())
    }
}

fn per_release(all: &[ReleaseCounters]) -> String {
    let mut answers = "# TYPE dinp_router_answers_total counter\n".to_owned();
    let mut failed = "# TYPE dinp_router_failed_attempts_total counter\n".to_owned();
    for ReleaseCounters { app, release, answers: counts, failed: count } in all {
        for (class, count) in ["1xx", "2xx", "3xx", "4xx", "5xx"].into_iter().zip(counts) {
            answers += &format!(
                "dinp_router_answers_total{{app=\"{app}\",release=\"{release}\",class=\"{class}\"}} {count}\n"
            );
        }
        failed += &format!("dinp_router_failed_attempts_total{{app=\"{app}\",release=\"{release}\"}} {count}\n");
    }
    answers + &failed
}

/// The client for the leader.
pub(crate) fn client(servers: Vec<Url>, credential: Credential) -> ApiClient {
    ApiClient::of_servers(servers, Some(credential), concat!("dinp-router/", env!("CARGO_PKG_VERSION")))
}
