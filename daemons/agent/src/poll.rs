//! Asks for orders: a long poll that is answered as soon as they change.

use crate::node::Message;
use dinp_common::api::agent::Orders;
use dinp_common::client::ApiClient;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Heartbeat;
use dinp_common::model::Version;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

/// How long a server holds the question back.
const WAIT_SECS: u64 = 20;

/// How long it may take beyond that.
const LIMIT: Duration = Duration::from_secs(WAIT_SECS + 5);

/// Answers without orders come no faster than this, whatever the server does.
const PAUSE: Duration = Duration::from_millis(200);

/// Polls for ever. `moved` says that another server answers now.
pub async fn poll(client: ApiClient, node: mpsc::Sender<Message>, moved: Arc<Notify>, heartbeat: Heartbeat) {
    // Unknown at first, even if orders are on the disk: those lack the environment.
    let mut have: Option<Version> = None;
    loop {
        heartbeat.beat();
        let begin = Instant::now();
        let path = path(have);
        let answer = tokio::select! {
            answer = client.get::<Option<Orders>>(&path, LIMIT) => answer,
            () = moved.notified() => continue,
        };
        let accepted = match answer {
            Ok(None) => false,
            Ok(Some(orders)) => match pass_on(&node, orders).await {
                Some(version) => {
                    have = Some(version);
                    true
                }
                None => false,
            },
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "orders cannot be asked for");
                let pause = Duration::from_millis(rand::rng().random_range(200..1000));
                tokio::time::sleep(pause).await;
                false
            }
        };
        if !accepted && begin.elapsed() < PAUSE {
            let pause = Duration::from_millis(rand::rng().random_range(500..1000));
            tokio::time::sleep(pause).await;
        }
    }
}

async fn pass_on(node: &mpsc::Sender<Message>, orders: Orders) -> Option<Version> {
    let (answer, accepted) = oneshot::channel();
    node.send(Message::Orders(Box::new(orders), answer)).await.ok()?;
    accepted.await.ok()?
}

fn path(have: Option<Version>) -> String {
    match have {
        Some(version) => format!("/v1/agent/orders?have={version}&wait_secs={WAIT_SECS}"),
        None => format!("/v1/agent/orders?wait_secs={WAIT_SECS}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path(None), "/v1/agent/orders?wait_secs=20");
        assert_eq!(path(Some(Version::new(3, 4))), "/v1/agent/orders?have=3-4&wait_secs=20");
    }
}
