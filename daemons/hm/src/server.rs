//! The conversation with the server: what to probe comes from it, what is unfit goes to it.

use crate::monitor::Monitor;
use dinp_common::api::hm::Targets;
use dinp_common::client::ApiClient;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval};

/// How long the server may let a question for targets wait.
const WAIT_SECS: u64 = 20;
/// Time for that question.
const WATCH_TIMEOUT: Duration = Duration::from_secs(WAIT_SECS + 5);
/// Time between reports.
const PERIOD: Duration = Duration::from_secs(2);
/// Time for one report.
const REPORT_TIMEOUT: Duration = Duration::from_millis(1500);
/// First wait after a failure.
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
/// Longest wait after a failure.
const BACK_OFF_MOST: Duration = Duration::from_secs(5);

/// Keeps the list of targets up to date, for ever. While the server is away the last list is probed.
pub async fn subscribe(client: ApiClient, monitor: Monitor, server: Condition, beat: Heartbeat) {
    let mut back_off = BACK_OFF_FIRST;
    loop {
        beat.beat();
        let path = match monitor.version() {
            Some(version) => format!("/v1/hm/targets?have={}&wait_secs={WAIT_SECS}", encode(&version)),
            None => "/v1/hm/targets".to_owned(),
        };
        match client.get::<Option<Targets>>(&path, WATCH_TIMEOUT).await {
            Ok(list) => {
                server.ok();
                back_off = BACK_OFF_FIRST;
                if let Some(list) = list {
                    tracing::debug!(version = list.version, targets = list.targets.len(), "new list of targets");
                    monitor.set(list);
                }
            }
            Err(error) => {
                server.missing(&ErrorChain(&error).to_string());
                tokio::time::sleep(back_off.mul_f64(rand::random_range(0.5..1.0))).await;
                back_off = (back_off * 2).min(BACK_OFF_MOST);
            }
        }
    }
}

/// Reports every 2 s and at once after a change, for ever.
pub async fn report(client: ApiClient, monitor: Monitor, name: String, beat: Heartbeat) {
    let mut changes = monitor.changes();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
        beat.beat();
        changes.borrow_and_update();
        let Some(report) = monitor.report(&name) else { continue };
        match client.post::<_, ()>("/v1/hm/report", &report, REPORT_TIMEOUT).await {
            Ok(()) => {
                if std::mem::take(&mut told) {
                    tracing::info!("the server takes reports again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(error = %ErrorChain(&error), "the server does not take reports");
                }
                // Changes that come meanwhile are all in the next report.
                ticks.tick().await;
                ticks.reset_immediately();
            }
        }
    }
}

/// A version is opaque: whatever is in it must stay one value of the query.
fn encode(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
