//! Whether the packet filter is in force. Without it no container is started.
//!
//! The agent may not look at it itself. It asks at the socket of `dinp-agent-firewall.service`, which looks, mends
//! what is missing, and answers: regularly, before a container is started, and when the orders name other machines.

use crate::faults::Faults;
use crate::firewall::Verdict;
use dinp_common::api::agent::NodeFaultKind;
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Notify};

/// Time from one question to the next.
const PERIOD: Duration = Duration::from_secs(30);

/// The same while it is not in force.
const RETRY: Duration = Duration::from_secs(3);

/// An answer holds for so long, so that many starts at once ask once: systemd closes a socket that is asked too often.
const FRESH: Duration = Duration::from_secs(2);

/// How long an answer may take: names are looked up, and Docker may hold the lock of the tables.
const LIMIT: Duration = Duration::from_secs(20);

/// Why no container may be started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the packet filter is not in force: {0}")]
pub struct NotInForce(String);

/// See the module.
#[derive(Debug)]
pub struct Filter {
    socket: PathBuf,
    faults: Arc<Faults>,
    last: Mutex<Last>,
    /// Whether the last answer is about other machines than the orders name.
    stale: AtomicBool,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Last {
    answer: Option<(Instant, Result<(), NotInForce>)>,
    unknown: BTreeSet<String>,
}

impl Filter {
    /// A filter of which nothing is known yet.
    pub fn new(socket: PathBuf, faults: Arc<Faults>) -> Self {
        Self { socket, faults, last: Mutex::default(), stale: false.into(), wake: Notify::new() }
    }

    /// Whether it is in force now.
    pub async fn check(&self) -> Result<(), NotInForce> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &last.answer
            && at.elapsed() < FRESH
            && !self.stale.load(Ordering::Relaxed)
        {
            return answer.clone();
        }
        self.stale.store(false, Ordering::Relaxed);
        let verdict = match tokio::time::timeout(LIMIT, self.ask()).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(error)) => Verdict::failed(format!("ask at {}: {error}", self.socket.display())),
            Err(_) => Verdict::failed(format!("no answer within {} s", LIMIT.as_secs())),
        };
        last.take(verdict, &self.faults)
    }

    /// The orders name other machines than before.
    pub fn renew(&self) {
        self.stale.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Asks for ever.
    pub async fn watch(&self) {
        loop {
            let pause = if self.check().await.is_ok() { PERIOD } else { RETRY };
            // An early end is a reason to ask, a late one too.
            tokio::time::timeout(pause, self.wake.notified()).await.ok();
        }
    }

    async fn ask(&self) -> io::Result<Verdict> {
        let mut answer = String::new();
        UnixStream::connect(&self.socket).await?.read_to_string(&mut answer).await?;
        if answer.is_empty() {
            return Err(io::Error::other("no answer: see the journal of dinp-agent-firewall.service"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Last {
    fn take(&mut self, verdict: Verdict, faults: &Faults) -> Result<(), NotInForce> {
        let result = match verdict.fault {
            Some(fault) => Err(NotInForce(fault)),
            None => Ok(()),
        };
        self.answer = Some((Instant::now(), result.clone()));
        let detail = result.as_ref().err().map(ToString::to_string);
        faults.set(NodeFaultKind::Firewall, "packet filter", detail);
        for name in verdict.unknown.difference(&self.unknown) {
            tracing::warn!(name, "no address is known for {name}: no rule of the packet filter names it");
        }
        self.unknown = verdict.unknown;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixListener;

    /// Answers each question with the next line.
    async fn answer_with(listener: UnixListener, lines: Vec<&'static str>) {
        for line in lines {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(line.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_filter_that_nobody_vouches_for_is_a_fault() {
        let dir = TestDir::new("agent-filter");
        let faults = Arc::<Faults>::default();
        let filter = Filter::new(dir.path().join("socket"), faults.clone());
        let error = filter.check().await.unwrap_err().to_string();
        assert!(error.starts_with("the packet filter is not in force: ask at "), "{error}");
        assert_eq!(
            (faults.list()[0].kind, faults.list()[0].detail.as_str()),
            (NodeFaultKind::Firewall, error.as_str())
        );

        assert_eq!(filter.check().await.unwrap_err().to_string(), error, "an answer holds for a moment");
        let again = async || {
            filter.renew();
            filter.check().await
        };
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let lines = vec!["{\"fault\": \"iptables failed: no\"}\n", "", "{\"fault\": null, \"unknown\": [\"db\"]}\n"];
        let answers = tokio::spawn(answer_with(listener, lines));
        let error = again().await.unwrap_err().to_string();
        assert_eq!(error, "the packet filter is not in force: iptables failed: no");
        assert!(again().await.unwrap_err().to_string().contains("no answer"));
        again().await.unwrap();
        answers.await.unwrap();
        assert_eq!(faults.list(), []);
        filter.check().await.expect("nobody is asked again");
        again().await.expect_err("until other machines are named");
    }
}
