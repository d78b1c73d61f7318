//! What happens to the driver, and the way to it: everything that is to be decided on comes in as an [`Input`], through a
//! [`Handle`] that those who know of it hold.

use crate::claims::Bounded;
use crate::core::{Reign, Tick};
use crate::snapshot::Snapshot;
use dinp_common::api::agent::{Goodbye, Report, ReportReply};
use dinp_common::api::hm::HmReport;
use dinp_common::api::router::{RouterReply, RouterReport};
use dinp_common::api::{ProvedRevision, UnixMillis};
use dinp_common::model::{InstanceId, NodeName, Version};
use dinp_common::problem::Problem;
use dinp_common::routes::Table;
use tokio::sync::{mpsc, oneshot};

/// Something that happened.
pub enum Input {
    /// A node has reported.
    Report(NodeName, Box<Bounded<Report>>, oneshot::Sender<ReportReply>),
    /// An agent stops.
    Goodbye(NodeName, Goodbye),
    /// A router has reported, or its status was read.
    Router(Box<Bounded<RouterReport>>, Option<oneshot::Sender<RouterReply>>),
    /// A router has stopped on purpose; ports that its table on disk names stay held.
    RouterGoodbye(String),
    /// A router is to be forgotten: nothing waits for it any more.
    RouterForget(String),
    /// A health monitor has reported.
    Hm(Bounded<HmReport>),
    /// An orphan is to be stopped.
    RemoveOrphan(InstanceId, oneshot::Sender<Result<(), Problem>>),
    /// What carries tickets of a key that is not known is to be taken over.
    AdoptTickets(oneshot::Sender<usize>),
    /// Desired state is to be carried out though it is older than what runs; answered with the revision that it must be
    /// raised past, if it is.
    Resume(oneshot::Sender<Option<u64>>),
    /// Desired state has been read.
    Snapshot(Box<Snapshot>),
    /// The routers that a leader before has heard were read for the reign of this epoch: names and status URLs.
    KnownRouters(u64, Vec<(String, String)>),
    /// A router that was heard is written down, for leaders to come.
    RouterWritten(String),
    /// What came of a table, in the reign of this epoch.
    Routes(u64, Outcome),
    /// Somebody wants to look.
    View(Box<dyn FnOnce(&View<'_>) + Send>),
}

/// What came of a table that was to be in Redis.
#[derive(Debug)]
pub enum Outcome {
    /// The table that the leader before has left, and the highest revision that it names; empty where there is none.
    Adopted(Table, ProvedRevision),
    /// The table is in Redis under this version.
    Published(Version),
    /// It is not, or nobody knows.
    Failed,
    /// Somebody has published in this higher epoch, and a server has proved it.
    Fenced(u64),
}

/// What can be looked at.
pub struct View<'a> {
    /// The decisions.
    pub reign: &'a Reign,
    /// Id of the cluster.
    pub cluster: &'a str,
    /// When desired state was last read whole.
    pub synced_at: UnixMillis,
    /// Now, on the reign's clock.
    pub now: Tick,
}

/// Longest queue of inputs; beyond it callers wait.
const QUEUE: usize = 4096;
/// The way to a driver that is yet to be made, and the inputs that it will take.
pub fn channel() -> (Handle, mpsc::Receiver<Input>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Handle(sender), receiver)
}

/// The way to the driver.
#[derive(Clone)]
pub struct Handle(mpsc::Sender<Input>);

impl Handle {
    /// Hands an input over; a driver that has ended takes none.
    pub async fn send(&self, input: Input) -> Result<(), Problem> {
        self.0.send(input).await.map_err(|_| Problem::not_leader(None))
    }

    /// Hands an input over and waits for its answer.
    pub async fn ask<T>(&self, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Problem> {
        let (sender, receiver) = oneshot::channel();
        self.send(input(sender)).await?;
        receiver.await.map_err(|_| Problem::not_leader(None))
    }

    /// Looks at the core.
    pub async fn view<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Problem> {
        self.ask(|reply| {
            Input::View(Box::new(move |view| {
                // Nobody waits for the answer any more: the caller has hung up.
                reply.send(look(view)).ok();
            }))
        })
        .await
    }
}
