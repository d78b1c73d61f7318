//! The steady client: requests at a fixed rate, whatever the answers take, and every answer counted.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::error::{Error, Result};

/// No scenario needs more, and none may run for ever.
const LONGEST: Duration = Duration::from_secs(600);

/// A steady client, not started yet.
#[derive(Clone, Debug)]
pub struct Steady {
    client: reqwest::Client,
    /// One request goes to each in turn, as a balancer in front of them does it.
    routers: Vec<Ipv4Addr>,
    path: String,
    host: String,
    per_second: u32,
}

/// A steady client at work.
#[derive(Debug)]
pub struct Running {
    driver: JoinHandle<Report>,
    stop: watch::Sender<bool>,
    began: Instant,
}

/// What a steady client has seen.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Requests sent; each was answered or has failed.
    pub requests: usize,
    /// The longest time that one took.
    pub longest: Duration,
    /// Those without a 2xx answer.
    pub failures: Vec<Failed>,
    answers: Vec<(Duration, String)>,
}

/// A request that did not get its answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// When it was sent, from the start of the client.
    pub at: Duration,
    /// How long it took to fail.
    pub took: Duration,
    /// The router, and its status with body, or what went wrong with the connection.
    pub what: String,
}

impl Steady {
    pub(super) fn new(client: reqwest::Client, routers: Vec<Ipv4Addr>, host: &str) -> Self {
        Self { client, routers, path: "/".to_owned(), host: host.to_owned(), per_second: 50 }
    }

    /// Requests per second.
    #[must_use]
    pub fn rate(mut self, per_second: u32) -> Self {
        self.per_second = per_second;
        self
    }

    /// What is asked for; `/` when nothing is said.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Runs for a time and reports.
    pub async fn for_secs(self, seconds: u64) -> Result<Report> {
        let running = self.start();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        running.stop().await
    }

    /// Runs until [`Running::stop`].
    #[must_use]
    pub fn start(self) -> Running {
        let (stop, stopped) = watch::channel(false);
        let began = Instant::now();
        let driver = tokio::spawn(self.drive(began, stopped));
        Running { driver, stop, began }
    }

    async fn drive(self, began: Instant, mut stopped: watch::Receiver<bool>) -> Report {
        let report = Arc::new(Mutex::new(Report::default()));
        let mut requests = tokio::task::JoinSet::new();
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / self.per_second);
        // A stall of this process must not turn into a burst that no steady client sends.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut routers = self.routers.iter().copied().cycle();
        while let Some(router) = routers.next().filter(|_| began.elapsed() < LONGEST) {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stopped.changed() => break,
            }
            while requests.try_join_next().is_some() {}
            let at = began.elapsed();
            let request =
                self.client.get(format!("http://{router}{}", self.path)).header(reqwest::header::HOST, &self.host);
            let report = Arc::clone(&report);
            requests.spawn(async move {
                let outcome = answer(request).await.map_err(|what| format!("{router}: {what}"));
                report.lock().await.add(at, began.elapsed() - at, outcome);
            });
        }
        requests.join_all().await;
        let mut report = std::mem::take(&mut *report.lock().await);
        report.answers.sort_by_key(|(at, _)| *at);
        report.failures.sort_by_key(|failed| failed.at);
        report
    }
}

async fn answer(request: reqwest::RequestBuilder) -> Result<String, String> {
    let response = request.send().await.map_err(|error| causes(&error))?;
    let status = response.status();
    let body = response.text().await.map_err(|error| causes(&error))?;
    let first = body.lines().next().unwrap_or_default().trim().to_owned();
    if status.is_success() { Ok(first) } else { Err(format!("{status}: {first}")) }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl Running {
    /// Time since the client started: the clock of its report.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Stops sending, waits for the answers that are due, and reports.
    pub async fn stop(self) -> Result<Report> {
        self.stop.send_replace(true);
        self.driver.await.map_err(|error| Error::other(format!("the steady client ended early: {error}")))
    }
}

impl Report {
    fn add(&mut self, at: Duration, took: Duration, outcome: Result<String, String>) {
        self.requests += 1;
        self.longest = self.longest.max(took);
        match outcome {
            Ok(body) => self.answers.push((at, body)),
            Err(what) => self.failures.push(Failed { at, took, what }),
        }
    }

    /// How often each body (its first line) was answered.
    #[must_use]
    pub fn answers(&self) -> BTreeMap<&str, usize> {
        self.answers_after(Duration::ZERO)
    }

    /// The same for requests that were sent at or after a time of the client's clock.
    #[must_use]
    pub fn answers_after(&self, time: Duration) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for (_, body) in self.answers.iter().filter(|(at, _)| *at >= time) {
            *counts.entry(body.as_str()).or_default() += 1;
        }
        counts
    }

    /// An error that lists the first failures, unless every request was answered.
    pub fn none_failed(&self) -> Result<()> {
        if self.requests == 0 {
            return Err(Error::other("the steady client sent no request"));
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = self.failures.iter().take(10).map(ToString::to_string).collect();
        Err(Error::other(format!(
            "{} of {} requests failed:\n  {}",
            self.failures.len(),
            self.requests,
            list.join("\n  ")
        )))
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "sent at {:.2?}, failed after {:.2?}: {}", self.at, self.took, self.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_versions_apart_by_time() {
        let mut report = Report::default();
        report.add(Duration::from_secs(1), Duration::ZERO, Ok("v1".to_owned()));
        report.add(Duration::from_secs(2), Duration::ZERO, Ok("v2".to_owned()));
        assert_eq!(report.answers(), BTreeMap::from([("v1", 1), ("v2", 1)]));
        assert_eq!(report.answers_after(Duration::from_secs(2)), BTreeMap::from([("v2", 1)]));
        assert!(report.none_failed().is_ok());
    }

    #[test]
    fn failures_are_told_with_their_time() {
        let mut report = Report::default();
        report.add(Duration::from_secs(3), Duration::from_secs(1), Err("502: bad".to_owned()));
        let text = report.none_failed().expect_err("one failed").to_string();
        assert!(text.contains("sent at 3.00s, failed after 1.00s: 502: bad"), "{text}");
    }

    #[test]
    fn a_client_that_sent_nothing_proves_nothing() {
        assert!(Report::default().none_failed().is_err());
    }
}
