//! Reports to the leader: at once after a change, else every 2 s.

use crate::board::Batch;
use crate::shared::Shared;
use dinp_common::api::agent::{Capacity, Report, ReportReply};
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Time from one report to the next when nothing changes.
const BEAT: Duration = Duration::from_secs(2);

/// Changes that come within this go into one report.
const COALESCE: Duration = Duration::from_millis(20);

/// How long the first report waits for the engine's containers.
const FIRST: Duration = Duration::from_secs(1);

/// How long a server may take for an answer.
const LIMIT: Duration = Duration::from_millis(1500);

/// Where reports stand.
#[derive(Debug)]
struct Sequence {
    run_id: String,
    seq: u64,
    full: bool,
}

impl Sequence {
    fn next(&mut self, batch: Batch, shared: &Shared, capacity: Capacity) -> Report {
        self.seq += 1;
        Report {
            cluster: shared.bundle.cluster.clone(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
            run_id: self.run_id.clone(),
            seq: self.seq,
            full: batch.full,
            seen: batch.seen,
            capacity,
            faults: shared.faults.list(),
            docker_error: batch.docker_error,
            instances: batch.instances,
            removed: batch.removed,
            held_ports: shared.ledger.read(crate::ledger::Ledger::held),
            ended: batch.ended,
        }
    }

    /// Whether the next report must be full: until one has arrived, and after anything went wrong.
    fn answered(&mut self, was_full: bool, answer: Result<&ReportReply, ()>) {
        self.full = match answer {
            Ok(reply) => reply.resync || (self.full && !was_full),
            Err(()) => true,
        };
    }
}

/// Reports for ever. `moved` is told when another server has begun to answer.
pub async fn report(
    shared: Arc<Shared>,
    client: ApiClient,
    capacity: Capacity,
    moved: Arc<Notify>,
    condition: Condition,
    heartbeat: Heartbeat,
) {
    let mut sequence = Sequence { run_id: format!("{:016x}", rand::rng().random::<u64>()), seq: 0, full: true };
    wait_for_containers(&shared).await;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = shared.board.changed() => tokio::time::sleep(COALESCE).await,
            () = shared.faults.changed() => tokio::time::sleep(COALESCE).await,
        }
        heartbeat.beat();
        let batch = shared.board.take(sequence.full);
        let report = sequence.next(batch, &shared, capacity);
        let before = client.targets().into_iter().next();
        let sent = client.post::<_, ReportReply>("/v1/agent/report", &report, LIMIT).await;
        if client.targets().into_iter().next() != before {
            moved.notify_one();
        }
        next = Instant::now() + BEAT;
        match &sent {
            Ok(reply) => {
                condition.ok();
                sequence.answered(report.full, Ok(reply));
                if sequence.full && shared.board.is_complete() {
                    next = Instant::now();
                }
            }
            Err(error) => {
                metrics::counter!("dinp_agent_reports_failed_total").increment(1);
                condition.missing(&told(error));
                sequence.answered(report.full, Err(()));
                // Not all nodes at the same moment when a server comes back.
                let pause = Duration::from_millis(rand::rng().random_range(200..800));
                tokio::time::sleep(pause).await;
                next = Instant::now();
            }
        }
    }
}

/// The cause alone, so that the condition does not change with each attempt.
fn told(error: &ClientError) -> String {
    ErrorChain(error).to_string()
}

async fn wait_for_containers(shared: &Shared) {
    let known = async {
        while !shared.board.is_complete() {
            shared.board.changed().await;
        }
    };
    // Without them the first report only says that the node lives.
    tokio::time::timeout(FIRST, known).await.ok();
    shared.board.touch();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_until_one_has_arrived_and_after_every_failure() {
        let mut sequence = Sequence { run_id: String::new(), seq: 0, full: true };
        let reply = |resync| ReportReply { resync, epoch: 1 };
        sequence.answered(false, Ok(&reply(false)));
        assert!(sequence.full, "the engine was not read yet");
        sequence.answered(true, Ok(&reply(false)));
        assert!(!sequence.full);
        sequence.answered(false, Ok(&reply(true)));
        assert!(sequence.full);
        sequence.answered(true, Ok(&reply(false)));
        sequence.answered(false, Err(()));
        assert!(sequence.full);
    }
}
