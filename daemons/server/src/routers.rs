//! Reading the status of routers that have not reported: a router that cannot reach the leader may still be reached by
//! it.

use crate::driver::{Handle, Input};
use dinp_common::api::router::RouterReport;
use dinp_common::client::ApiClient;
use dinp_common::error::ErrorChain;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use url::Url;

const PERIOD: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(1);

/// Reads what is due, each second, until `shutdown`.
pub async fn read(driver: Handle, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        // Without a leadership there is nobody to read for.
        let due = driver.view(|view| view.core.routers_to_read(view.now)).await.unwrap_or_default();
        for (name, url) in due {
            tokio::spawn(read_one(driver.clone(), name, url));
        }
    }
}

async fn read_one(driver: Handle, name: String, url: String) {
    let Ok(base) = url.parse::<Url>() else { return };
    let client = ApiClient::new(vec![base], None, "dinp-server");
    match client.get::<RouterReport>("/v1/status", ANSWER).await {
        Ok(report) if report.router == name => {
            driver.send(Input::Router(Box::new(report), None)).await.ok();
        }
        Ok(report) => debug!(router = name, answers_as = report.router, "another router answers at this address"),
        Err(error) => debug!(router = name, error = %ErrorChain(&error), "a router's status cannot be read"),
    }
}
