//! What the leader does about routers by itself: it learns of those that a leader before has heard, writes down those
//! that it hears, and reads the status of those that have not reported (a router that cannot reach the leader may still
//! be reached by it).

use crate::claims::Bounded;
use crate::input::{Handle, Input};
use dinp_common::api::router::RouterReport;
use dinp_common::api::unix_millis;
use dinp_common::client::ApiClient;
use dinp_common::error::ErrorChain;
use dinp_common::store::{self, StoreError};
use mysql_async::Pool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use url::Url;

const PERIOD: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(1);

/// Name and status URL of a router.
type Known = (String, String);

/// What a look at the reign shows.
struct Look {
    epoch: u64,
    knows_routers: bool,
    to_write: Vec<Known>,
    to_read: Vec<Known>,
}

/// Works each second, until `shutdown`.
pub async fn follow(driver: Handle, pool: Pool, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let look = driver.view(|view| Look {
            epoch: view.reign.epoch(),
            knows_routers: view.reign.knows_routers(),
            to_write: view.reign.routers_to_write(),
            to_read: view.reign.routers_to_read(view.now),
        });
        // Without a reign there is nobody to work for.
        let Ok(look) = look.await else { continue };
        if !look.knows_routers {
            learn(&driver, &pool, look.epoch).await;
        }
        write_down(&driver, &pool, look.to_write).await;
        for (name, url) in look.to_read {
            tokio::spawn(read_one(driver.clone(), name, url));
        }
    }
}

async fn learn(driver: &Handle, pool: &Pool, epoch: u64) {
    let read = async {
        let mut conn = store::connect(pool, ANSWER).await?;
        store::router::all(&mut conn).await
    };
    match in_time(read).await {
        Ok(routers) => {
            // A driver that has ended needs none.
            driver.send(Input::KnownRouters(epoch, routers)).await.ok();
        }
        Err(error) => warn!(error = %ErrorChain(&error), "the known routers cannot be read: nothing is confirmed yet"),
    }
}

/// Writes routers down for the leader after this one. What fails is tried again with the next look.
async fn write_down(driver: &Handle, pool: &Pool, routers: Vec<Known>) {
    for (name, url) in routers {
        let write = async {
            let mut conn = store::connect(pool, ANSWER).await?;
            store::router::put(&mut conn, &name, &url).await
        };
        match in_time(write).await {
            Ok(()) => {
                driver.send(Input::RouterWritten(name)).await.ok();
            }
            Err(error) => {
                warn!(error = %ErrorChain(&error), router = name, "a router cannot be written down yet");
                return;
            }
        }
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match tokio::time::timeout(ANSWER, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Timeout { act: "read or write routers", secs: ANSWER.as_secs() }),
    }
}

async fn read_one(driver: Handle, name: String, url: String) {
    let Ok(base) = url.parse::<Url>() else { return };
    let client = ApiClient::new(vec![base], None, "dinp-server");
    match client.get::<RouterReport>("/v1/status", ANSWER).await {
        Ok(report) if report.router == name => match Bounded::of(report, unix_millis()) {
            Ok(report) => {
                driver.send(Input::Router(Box::new(report), None)).await.ok();
            }
            Err(excess) => debug!(router = name, error = %excess, "a router's status is not taken"),
        },
        Ok(report) => debug!(router = name, answers_as = report.router, "another router answers at this address"),
        Err(error) => debug!(router = name, error = %ErrorChain(&error), "a router's status cannot be read"),
    }
}
