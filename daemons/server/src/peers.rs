//! Asking the other servers, while this one cannot renew its lease, whether one of them leads: a leader that has lost the
//! database alone must not keep agents and routers from the one that has followed it.

use crate::leader::Leadership;
use dinp_common::api::leader::{LEADER_PATH, LeaderView};
use dinp_common::client::ApiClient;
use dinp_common::error::ErrorChain;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use url::Url;

const PERIOD: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(1);

/// Asks `others` in each holdover until `shutdown`; `seen` is told of who leads in a higher epoch.
pub async fn watch(
    others: Vec<Url>,
    mut leadership: watch::Receiver<Leadership>,
    seen: mpsc::Sender<u64>,
    shutdown: CancellationToken,
) {
    let asking = async {
        let clients: Vec<ApiClient> = others.into_iter().map(client).collect();
        while let Ok(own) =
            leadership.wait_for(|now| matches!(now, Leadership::Holdover { .. })).await.map(|now| now.epoch())
        {
            for client in &clients {
                if let Some(epoch) = leads_in(client).await.filter(|epoch| Some(*epoch) > own) {
                    warn!(epoch, "another server leads: giving up");
                    // A full queue holds a number already.
                    seen.try_send(epoch).ok();
                }
            }
            sleep(PERIOD).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = shutdown.cancelled() => {}
    }
}

fn client(url: Url) -> ApiClient {
    ApiClient::new(vec![url], None, concat!("dinp-server/", env!("CARGO_PKG_VERSION")))
}

/// The epoch in which a server leads; `None` if it does not, or does not answer.
async fn leads_in(client: &ApiClient) -> Option<u64> {
    match client.get::<LeaderView>(LEADER_PATH, ANSWER).await {
        Ok(view) => view.leading.then_some(view.epoch),
        Err(error) => {
            debug!(error = %ErrorChain(&error), "another server does not say who leads");
            None
        }
    }
}
