//! Follows desired state: the revision row is looked at five times a second (and at once after a hint); when it has
//! moved, or a minute has gone, all of desired state is read anew.

use crate::ended::Ended;
use crate::input::{Handle, Input};
use crate::snapshot::{Environments, Snapshot, snapshot};
use dinp_common::auth::SecretHash;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::Lifecycle;
use dinp_common::model::NodeName;
use dinp_common::seal::OpeningKey;
use dinp_common::store::{self, StoreError};
use mysql_async::Pool;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Time between two looks at the revision.
const POLL: Duration = Duration::from_millis(200);
/// Time between two full reads though nothing seems to have changed.
const RESYNC: Duration = Duration::from_secs(60);
/// Longest wait for the database.
const ANSWER: Duration = Duration::from_secs(10);

/// Keeps the driver supplied with desired state.
pub struct Sync {
    /// The database.
    pub pool: Pool,
    /// Opens environment values.
    pub key: OpeningKey,
    /// Wakes the poll.
    pub hint: Arc<Notify>,
    /// Who is told.
    pub handle: Handle,
    /// Hashes of the nodes' secrets, for the API.
    pub secrets: NodeSecrets,
    /// Where to say when the database still showed what was handed over last.
    pub stood_at: watch::Sender<Option<Instant>>,
    /// What nodes keep of ended instances, for the API.
    pub ended: Ended,
}

/// Hashes of the nodes' secrets as they were last read.
pub type NodeSecrets = Arc<std::sync::RwLock<HashMap<NodeName, SecretHash>>>;

impl Sync {
    /// Follows desired state until shutdown.
    pub async fn run(self, lifecycle: Lifecycle) {
        let condition = lifecycle.condition("desired state");
        let heartbeat = lifecycle.heartbeat("desired state", ANSWER * 3);
        let shutdown = lifecycle.shutdown();
        let mut read: Option<(u64, Instant)> = None;
        let mut environments = Environments::new();
        loop {
            let asked = Instant::now();
            let next = self.poll(read, &environments);
            match tokio::time::timeout(ANSWER, next).await {
                Ok(Ok(None)) => {
                    self.stood_at.send_replace(Some(asked));
                    condition.ok();
                }
                Ok(Ok(Some(snapshot))) => {
                    read = Some((snapshot.desired.revision, Instant::now()));
                    environments = snapshot.environments.clone();
                    self.know_nodes(&snapshot);
                    condition.ok();
                    if self.handle.send(Input::Snapshot(Box::new(snapshot))).await.is_err() {
                        return;
                    }
                }
                Ok(Err(error)) => condition.missing(&ErrorChain(&error).to_string()),
                Err(_) => condition.missing("no answer from MySQL in time"),
            }
            heartbeat.beat();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
                () = self.hint.notified() => {}
            }
        }
    }

    /// A node that has lost its row stays known until it is deleted: a missing row is no order.
    fn know_nodes(&self, snapshot: &Snapshot) {
        let mut secrets = self.secrets.write().unwrap_or_else(PoisonError::into_inner);
        secrets.retain(|node, _| !snapshot.desired.deleted_nodes.contains(node));
        secrets.extend(snapshot.secrets.clone());
        self.ended.forget(&snapshot.desired.deleted_nodes);
    }

    async fn poll(&self, read: Option<(u64, Instant)>, known: &Environments) -> Result<Option<Snapshot>, StoreError> {
        let mut conn = store::connect(&self.pool, ANSWER).await?;
        if let Some((revision, at)) = read
            && at.elapsed() < RESYNC
            && store::current_revision(&mut conn).await? == revision
        {
            return Ok(None);
        }
        snapshot(&mut conn, &self.key, known).await.map(Some)
    }
}
