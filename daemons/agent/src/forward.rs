//! Output of instances, handed on into the journal.
//!
//! Containers write to the engine's own bounded files. From there each line goes into the journal with the fields of its
//! instance, so that `journalctl DINP_APP=web` finds it; but only so many bytes a second of each instance, so that one that
//! writes without end silences no other and does not push the rest of the journal out. What is left out is counted and said,
//! and so is what the journal has not taken.

use crate::container;
use crate::docker::EngineError;
use crate::instance::{container_of, inspect_raw};
use crate::output::{Lines, ReadFrom};
use crate::shared::Shared;
use dinp_common::api::agent::{InstanceReport, InstanceState, Limit, LogLine, LogStream};
use dinp_common::error::ErrorChain;
use dinp_common::journal::{Entry, Socket};
use dinp_common::model::{AppName, InstanceId};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

/// Time between two looks at which instances there are, and at whether one that has ended runs again.
const LOOK: Duration = Duration::from_secs(1);

/// Time between two words on what was left out of an instance's output.
const TELL: Duration = Duration::from_secs(30);

/// Time from the first line that is left out to the first word on it: where one is left out, more are.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// How often, and how long after each other, an entry is offered to a journal that is busy.
const OFFERS: (u32, Duration) = (100, Duration::from_millis(10));

/// What an entry costs in the journal besides its text, in bytes.
const ENTRY: usize = 256;

/// Most that is read of an instance's output in a second, in bytes: the engine pays for every line that is read.
const READ: u32 = 1 << 20;

/// Up to where the output of each instance has been handed on.
#[derive(Debug, Default)]
struct Positions(Mutex<BTreeMap<InstanceId, i64>>);

impl Positions {
    fn get(&self, instance: &InstanceId) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(instance).copied()
    }

    fn set(&self, instance: &InstanceId, at: i64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(instance.clone(), at);
    }

    /// Forgets who is gone.
    fn retain(&self, is_here: impl Fn(&InstanceId) -> bool) -> BTreeMap<InstanceId, i64> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|instance, _| is_here(instance));
        all.clone()
    }
}

/// A stock of bytes that fills up again.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: u32, most: u32, now: Instant) -> Self {
        Self { rate: rate.into(), most: most.into(), left: most.into(), at: now }
    }

    /// Takes that much if it is there.
    fn take(&mut self, bytes: usize, now: Instant) -> bool {
        self.fill(now);
        let is_there = self.left >= bytes as f64;
        if is_there {
            self.left -= bytes as f64;
        }
        is_there
    }

    /// Takes that much, and says how long to wait until it has filled up again.
    fn borrow(&mut self, bytes: usize, now: Instant) -> Duration {
        self.fill(now);
        self.left -= bytes as f64;
        Duration::from_secs_f64((-self.left / self.rate).max(0.0))
    }

    fn fill(&mut self, now: Instant) {
        self.left = (self.left + self.rate * now.saturating_duration_since(self.at).as_secs_f64()).min(self.most);
        self.at = now;
    }
}

/// Lines that are not in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Missing {
    /// Left out because there were too many.
    over_rate: u64,
    /// Offered to the journal, which did not take them.
    not_taken: u64,
}

impl Missing {
    fn is_none(self) -> bool {
        self == Self::default()
    }

    /// In words. `rate`: bytes of a second.
    fn told(self, app: &AppName, instance: &InstanceId, rate: u32) -> String {
        let lines = |count| if count == 1 { "1 line was".to_owned() } else { format!("{count} lines were") };
        let over_rate = (self.over_rate > 0)
            .then(|| format!("{} left out, more than {rate} bytes a second", lines(self.over_rate)));
        let not_taken =
            (self.not_taken > 0).then(|| format!("{} not taken by the journal at the time", lines(self.not_taken)));
        let both: Vec<String> = over_rate.into_iter().chain(not_taken).collect();
        format!("of what instance {instance} writes {}: `dinp logs {app}` has the last of it", both.join(", "))
    }
}

/// What of an instance's output goes on, and what does not.
#[derive(Debug)]
struct Gate {
    bucket: Bucket,
    missing: Missing,
    /// When there is something to say at the earliest.
    tell_at: Instant,
}

impl Gate {
    fn new(bucket: Bucket) -> Self {
        let tell_at = bucket.at;
        Self { bucket, missing: Missing::default(), tell_at }
    }

    fn admits(&mut self, line: &LogLine, now: Instant) -> bool {
        let admits = self.bucket.take(line.text.len() + ENTRY, now);
        if !admits {
            self.miss(Missing { over_rate: 1, not_taken: 0 }, now);
        }
        admits
    }

    fn miss(&mut self, lines: Missing, now: Instant) {
        if self.missing.is_none() {
            self.tell_at = self.tell_at.max(now + FIRST_WORD);
        }
        self.missing.over_rate += lines.over_rate;
        self.missing.not_taken += lines.not_taken;
    }

    /// Which lines are missing, if that is to be said now.
    fn word(&mut self, now: Instant) -> Option<Missing> {
        if self.missing.is_none() || now < self.tell_at {
            return None;
        }
        self.tell_at = now + TELL;
        Some(std::mem::take(&mut self.missing))
    }
}

/// Hands on the output of all instances to the journal at that socket, for ever.
pub async fn forward(shared: Arc<Shared>, journal: PathBuf) {
    let path = shared.config.state_dir.join("forwarded.json");
    let positions = Arc::new(Positions::default());
    let mut tasks: HashMap<InstanceId, AbortOnDropHandle<()>> = HashMap::new();
    // Without a file nobody knows what the journal has of instances that run already.
    let known = read_positions(&path);
    let mut written = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (begin, mut is_first) = (dinp_common::api::unix_millis(), known.is_none());
    loop {
        ticks.tick().await;
        if !shared.board.is_complete() {
            continue;
        }
        let (batch, _) = shared.board.look();
        tasks.retain(|instance, _| batch.instances.iter().any(|report| report.instance == *instance));
        for report in batch.instances {
            let instance = report.instance.clone();
            if tasks.contains_key(&instance) {
                continue;
            }
            let at = known.as_ref().and_then(|known| known.get(&instance).copied());
            positions.set(&instance, at.unwrap_or(if is_first { begin } else { 0 }));
            let source = Source::new(shared.clone(), report, &journal, positions.clone());
            tasks.insert(instance, AbortOnDropHandle::new(tokio::spawn(source.run())));
        }
        is_first = false;
        let now = positions.retain(|instance| tasks.contains_key(instance));
        if now != written {
            write_positions(&path, &now).await;
            written = now;
        }
    }
}

fn read_positions(path: &Path) -> Option<BTreeMap<InstanceId, i64>> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Not synced: after a power cut some lines may come twice.
async fn write_positions(path: &Path, positions: &BTreeMap<InstanceId, i64>) {
    let written = async {
        let beside = path.with_extension("new");
        tokio::fs::write(&beside, serde_json::to_vec(positions)?).await?;
        tokio::fs::rename(&beside, path).await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "what the journal has of instances cannot be written down");
    }
}

/// One instance whose output is handed on.
struct Source {
    shared: Arc<Shared>,
    report: InstanceReport,
    journal: Journal,
    positions: Arc<Positions>,
    gate: Gate,
    reading: Bucket,
}

impl Source {
    fn new(shared: Arc<Shared>, report: InstanceReport, journal: &Path, positions: Arc<Positions>) -> Self {
        let now = Instant::now();
        let logs = &shared.config.logs;
        let gate = Gate::new(Bucket::new(logs.journal_bytes_per_sec, logs.journal_burst_bytes, now));
        let reading = Bucket::new(READ, READ, now);
        Self { journal: Journal::at(journal), shared, report, positions, gate, reading }
    }

    async fn run(mut self) {
        // The end up to which it has been read.
        let mut read = None;
        loop {
            let now = self.shared.board.get(&self.report.instance).map(|report| (report.state, report.restarts));
            if now != read && now.is_some_and(|(state, _)| has_container(state)) {
                match self.pass().await {
                    Ok(()) => read = now.filter(|(state, _)| *state == InstanceState::BackOff),
                    Err(error) => {
                        let InstanceReport { app, instance, .. } = &self.report;
                        tracing::debug!(%app, %instance, error = %ErrorChain(&error), "output cannot be read");
                    }
                }
            }
            self.tell().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Hands on what comes until the container ends.
    async fn pass(&mut self) -> Result<(), EngineError> {
        let instance = self.report.instance.clone();
        let Some(container) = container_of(&self.shared, &instance).await? else { return Ok(()) };
        if self.is_handed_on_by_the_engine(&container).await? {
            // That does not change for as long as it is there.
            return std::future::pending().await;
        }
        let from = ReadFrom::After(self.positions.get(&instance).unwrap_or_default());
        let mut lines = Lines::open(&self.shared.engine, &container, &instance, from, true).await?;
        let mut words = tokio::time::interval(FIRST_WORD);
        loop {
            tokio::select! {
                line = lines.next() => match line.transpose()? {
                    Some(line) => self.take(&line).await,
                    None => return Ok(()),
                },
                _ = words.tick() => self.tell().await,
            }
        }
    }

    async fn is_handed_on_by_the_engine(&self, container: &str) -> Result<bool, EngineError> {
        let found = inspect_raw(&self.shared, container).await?;
        let driver = found.and_then(|found| found.host_config).and_then(|host| host.log_config).and_then(|log| log.typ);
        Ok(driver.as_deref() == Some(container::JOURNALD))
    }

    async fn take(&mut self, line: &LogLine) {
        let now = Instant::now();
        if self.gate.admits(line, now) {
            let way = match line.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let entry = self.entry("6").field("DINP_STREAM", way).field("MESSAGE", &line.text);
            if !self.journal.takes(&entry).await {
                self.gate.miss(Missing { over_rate: 0, not_taken: 1 }, now);
            }
        }
        self.positions.set(&line.instance, line.at);
        let pause = self.reading.borrow(line.text.len() + ENTRY, now);
        if pause > Duration::from_millis(50) {
            tokio::time::sleep(pause).await;
        }
    }

    async fn tell(&mut self) {
        let Some(lines) = self.gate.word(Instant::now()) else { return };
        let InstanceReport { app, instance, .. } = &self.report;
        let text = lines.told(app, instance, self.shared.config.logs.journal_bytes_per_sec);
        let entry = self.entry("4").field("MESSAGE", &text);
        if !self.journal.takes(&entry).await {
            return self.gate.miss(lines, Instant::now());
        }
        self.shared.board.reached(instance, Limit::Output, text);
        metrics::counter!("dinp_agent_log_lines_left_out_total").increment(lines.over_rate + lines.not_taken);
    }

    /// An entry with the fields of the instance.
    fn entry(&self, priority: &str) -> Entry {
        let InstanceReport { app, instance, release, .. } = &self.report;
        Entry::new(priority, app.as_str())
            .field("DINP_APP", app.as_str())
            .field("DINP_INSTANCE", instance.as_str())
            .field("DINP_RELEASE", &release.to_string())
            .field("DINP_NODE", self.shared.bundle.node.as_str())
    }
}

/// The journal, which may be away, or busy.
struct Journal {
    path: PathBuf,
    /// None where there was no descriptor for one yet.
    socket: Option<Socket>,
    /// Whether it took the last entry.
    takes: bool,
}

impl Journal {
    fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: None, takes: true }
    }

    /// Whether it has taken an entry within a moment. Why not is told when that begins.
    async fn takes(&mut self, entry: &Entry) -> bool {
        let sent = self.send(entry).await;
        let took = std::mem::replace(&mut self.takes, sent.is_ok());
        if let Err(error) = &sent
            && took
        {
            tracing::warn!(journal = %self.path.display(), %error, "the journal takes no lines of an instance");
        }
        sent.is_ok()
    }

    async fn send(&mut self, entry: &Entry) -> io::Result<()> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Socket::at(&self.path)?,
        };
        let socket = self.socket.insert(socket);
        for _ in 0..OFFERS.0 {
            match socket.send(entry) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(OFFERS.1).await,
                sent => return sent,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn has_container(state: InstanceState) -> bool {
    !matches!(state, InstanceState::Accepted | InstanceState::Pulling)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        LogLine { at: 1, instance: InstanceId::from_bits(1), stream: LogStream::Stdout, text: text.into() }
    }

    #[test]
    fn a_flood_is_cut_to_its_rate_and_what_is_left_out_is_counted_and_said_once_in_a_while() {
        let begin = Instant::now();
        let mut gate = Gate::new(Bucket::new(1000, 3000, begin));
        let text = line(&"x".repeat(1000 - ENTRY));
        let admitted = (0..100).filter(|_| gate.admits(&text, begin)).count();
        assert_eq!(admitted, 3);
        assert_eq!(gate.word(begin), None, "not one by one");
        let later = begin + FIRST_WORD;
        assert_eq!(gate.word(later), Some(Missing { over_rate: 97, not_taken: 0 }));
        assert!(gate.admits(&text, later) && !gate.admits(&text, later));
        assert_eq!(gate.word(later + FIRST_WORD), None, "not each second");
        assert_eq!(gate.word(later + TELL), Some(Missing { over_rate: 1, not_taken: 0 }));
        assert_eq!(gate.word(later + TELL * 2), None, "there is nothing to say");
    }

    #[tokio::test]
    async fn lines_that_no_journal_takes_are_not_called_too_many_and_come_again_with_it() {
        let dir = dinp_common::testing::TestDir::new("forward");
        let path = dir.path().join("journal");
        let mut journal = Journal::at(&path);
        let entry = Entry::new("6", "web").field("MESSAGE", "hello");
        assert!(!journal.takes(&entry).await && !journal.takes, "nobody listens there");
        let heard = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(journal.takes(&entry).await && journal.takes);
        assert!(heard.recv(&mut [0; 1024]).unwrap() > 0);

        let (app, instance) = ("web".parse().unwrap(), InstanceId::from_bits(7));
        let told = |over_rate, not_taken| Missing { over_rate, not_taken }.told(&app, &instance, 1000);
        let begin = "of what instance 0000000000000007 writes";
        let end = "`dinp logs web` has the last of it";
        assert_eq!(told(0, 1), format!("{begin} 1 line was not taken by the journal at the time: {end}"));
        assert_eq!(
            told(97, 2),
            format!(
                "{begin} 97 lines were left out, more than 1000 bytes a second, 2 lines were not taken by the journal at the time: {end}"
            )
        );
    }

    #[test]
    fn who_is_quiet_for_a_while_may_say_more_at_once_again_but_not_without_end() {
        let begin = Instant::now();
        let mut bucket = Bucket::new(1000, 3000, begin);
        assert!(bucket.take(3000, begin) && !bucket.take(1, begin));
        let later = begin + Duration::from_secs(3600);
        assert!(bucket.take(3000, later) && !bucket.take(1, later));
        assert_eq!(bucket.borrow(500, later), Duration::from_millis(500));
    }
}
