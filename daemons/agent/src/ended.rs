//! Output of instances that are gone: kept on the disk for a while, for people who ask what happened.
//!
//! One file for each instance, `<directory>/<app>/<instance>`: what is known of it as a line of JSON, then the last
//! [`LONGEST`] bytes that it wrote, a line each with its time and its way. It stays for [`YOUNG`], and for longer while it is
//! among the last [`OF_APP`] of its app, as far as there is room.

use crate::docker::EngineError;
use crate::output::{Lines, ReadFrom};
use crate::shared::Shared;
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{ENDED_INSTANCES, EndedInstance, LogLine, LogStream};
use dinp_common::model::InstanceId;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most that is kept of an instance, in bytes.
const LONGEST: usize = 1 << 20;

/// Longest line of JSON at the beginning of a file.
const HEAD: u64 = 4096;

/// Most lines that are asked of the engine for that.
const LINES: u32 = 50_000;

/// Time that reading an instance's output may take: its container waits for it.
const LIMIT: Duration = Duration::from_secs(10);

/// Ended instances of an app that are kept however old they are.
const OF_APP: usize = 10;

/// Time for which every ended instance is kept.
const YOUNG: UnixMillis = 24 * 3600 * 1000;

/// All that is kept.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    /// Most that all files hold together, in bytes.
    limit: u64,
    /// The newest first.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    ended: EndedInstance,
    bytes: u64,
}

impl Archive {
    /// What an agent before this one has kept. A file that cannot be read is left alone.
    pub fn open(directory: PathBuf, limit: u64) -> Self {
        let mut kept: Vec<Kept> = files(&directory).into_iter().filter_map(|path| known(&path)).collect();
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.ended.at));
        Self { directory, limit, kept: Mutex::new(kept) }
    }

    /// What is kept, the newest first.
    pub fn list(&self) -> Vec<EndedInstance> {
        self.kept().iter().map(|kept| kept.ended.clone()).collect()
    }

    /// The output that is kept of an instance, if any.
    pub fn read(&self, instance: &InstanceId) -> Option<Vec<LogLine>> {
        let ended = self.kept().iter().find(|kept| kept.ended.instance == *instance)?.ended.clone();
        let text = fs::read(self.path(&ended)).ok()?;
        let lines = text.split(|byte| *byte == b'\n').skip(1);
        Some(lines.filter_map(|line| decode(&String::from_utf8_lossy(line), instance)).collect())
    }

    /// Keeps the output of an instance, and removes what there is no room or no time for any more.
    pub fn keep(&self, ended: EndedInstance, lines: &VecDeque<LogLine>, now: UnixMillis) -> io::Result<()> {
        let path = self.path(&ended);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let mut text = serde_json::to_string(&ended)?;
        text.push('\n');
        for line in lines {
            text.push_str(&encode(line));
        }
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if written.is_err() {
            fs::remove_file(&path).ok();
        }
        written?;
        let mut kept = self.kept();
        kept.retain(|other| other.ended.instance != ended.instance);
        kept.insert(0, Kept { ended, bytes: text.len() as u64 });
        kept.sort_by_key(|kept| std::cmp::Reverse(kept.ended.at));
        for gone in surplus(&mut kept, self.limit, now) {
            fs::remove_file(self.path(&gone)).ok();
            // Only once nothing is in it any more.
            fs::remove_dir(self.directory.join(gone.app.as_str())).ok();
        }
        Ok(())
    }

    fn path(&self, ended: &EndedInstance) -> PathBuf {
        self.directory.join(ended.app.as_str()).join(ended.instance.as_str())
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes out what is not to be kept any longer: what is old and not among the last of its app; then, for room, the oldest of
/// those that are not among the last of their app, and of all.
fn surplus(kept: &mut Vec<Kept>, limit: u64, now: UnixMillis) -> Vec<EndedInstance> {
    let mut of_app = HashMap::new();
    let mut ranked: Vec<(bool, Kept)> = Vec::new();
    for one in kept.drain(..) {
        let newer: &mut usize = of_app.entry(one.ended.app.clone()).or_default();
        let is_last = *newer < OF_APP;
        *newer += 1;
        ranked.push((is_last, one));
    }
    let is_young = |kept: &Kept| now.saturating_sub(kept.ended.at) < YOUNG;
    let (mut stays, mut gone): (Vec<_>, Vec<_>) =
        ranked.into_iter().partition(|(is_last, kept)| *is_last || is_young(kept));
    while stays.len() > ENDED_INSTANCES || stays.iter().map(|(_, kept)| kept.bytes).sum::<u64>() > limit {
        let oldest = stays.iter().rposition(|(is_last, _)| !is_last).unwrap_or(stays.len() - 1);
        gone.push(stays.remove(oldest));
    }
    kept.extend(stays.into_iter().map(|(_, kept)| kept));
    gone.into_iter().map(|(_, kept)| kept.ended).collect()
}

/// All files of all apps.
fn files(directory: &Path) -> Vec<PathBuf> {
    let list = |path: &Path| fs::read_dir(path).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    list(directory).flat_map(|app| list(&app).collect::<Vec<_>>()).collect()
}

fn known(path: &Path) -> Option<Kept> {
    let file = File::open(path).ok()?;
    let bytes = file.metadata().ok()?.len();
    let mut head = String::new();
    BufReader::new(file.take(HEAD)).read_line(&mut head).ok()?;
    let ended: EndedInstance = serde_json::from_str(&head).ok()?;
    path.ends_with(Path::new(ended.app.as_str()).join(ended.instance.as_str())).then_some(Kept { ended, bytes })
}

fn encode(line: &LogLine) -> String {
    let way = match line.stream {
        LogStream::Stdout => 'o',
        LogStream::Stderr => 'e',
    };
    format!("{} {way} {}\n", line.at, line.text.replace('\n', " "))
}

fn decode(line: &str, instance: &InstanceId) -> Option<LogLine> {
    let mut parts = line.splitn(3, ' ');
    let at = parts.next()?.parse().ok()?;
    let stream = if parts.next()? == "e" { LogStream::Stderr } else { LogStream::Stdout };
    Some(LogLine { at, instance: instance.clone(), stream, text: parts.next()?.to_owned() })
}

/// Keeps the output of a container that is about to be removed. Whatever goes wrong is no reason to keep the container.
pub async fn keep(shared: &std::sync::Arc<Shared>, container: &str, ended: EndedInstance) {
    let reading = tokio::time::timeout(LIMIT, last_lines(shared, container, &ended.instance));
    let lines = match reading.await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => {
            let error = dinp_common::error::ErrorChain(&error);
            tracing::warn!(app = %ended.app, instance = %ended.instance, %error, "the output of an instance is not kept, it cannot be read");
            return;
        }
        Err(_) => {
            tracing::warn!(app = %ended.app, instance = %ended.instance, "the output of an instance is not kept, reading it takes too long");
            return;
        }
    };
    let (owner, app, instance) = (shared.clone(), ended.app.clone(), ended.instance.clone());
    let keeping = tokio::task::spawn_blocking(move || {
        let now = dinp_common::api::unix_millis();
        let kept = owner.ended.keep(ended, &lines, now);
        owner.board.set_ended(owner.ended.list());
        kept
    });
    if let Ok(Err(error)) = keeping.await {
        tracing::warn!(%app, %instance, %error, "the output of an instance is not kept, it cannot be written");
    }
}

async fn last_lines(shared: &Shared, container: &str, instance: &InstanceId) -> Result<VecDeque<LogLine>, EngineError> {
    let mut lines = Lines::open(&shared.engine, container, instance, ReadFrom::Last(LINES), false).await?;
    let (mut last, mut bytes) = (VecDeque::new(), 0);
    let size = |line: &LogLine| encode(line).len();
    while let Some(line) = lines.next().await.transpose()? {
        bytes += size(&line);
        last.push_back(line);
        while bytes > LONGEST
            && let Some(first) = last.pop_front()
        {
            bytes -= size(&first);
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::TestDir;
    use std::os::unix::fs::PermissionsExt;

    const HOUR: UnixMillis = 3600 * 1000;

    fn ended(bits: u64, app: &str, at: UnixMillis) -> EndedInstance {
        EndedInstance {
            instance: InstanceId::from_bits(bits),
            app: app.parse().unwrap(),
            release: 7,
            at,
            exit_code: Some(3),
            ticket: "k1.abc".into(),
        }
    }

    fn lines(bits: u64, texts: &[&str]) -> VecDeque<LogLine> {
        let line = |text: &&str| LogLine {
            at: 1500,
            instance: InstanceId::from_bits(bits),
            stream: LogStream::Stderr,
            text: (*text).to_owned(),
        };
        texts.iter().map(line).collect()
    }

    #[test]
    fn what_is_kept_outlives_the_agent_for_its_user_only() {
        let dir = TestDir::new("agent-ended");
        let path = dir.path().join("ended");
        let archive = Archive::open(path.clone(), 1 << 20);
        assert!(archive.list().is_empty());
        let text = lines(1, &["Traceback", "", "  ImportError: a b"]);
        archive.keep(ended(1, "web", 10), &text, 20).unwrap();
        archive.keep(ended(2, "web", 15), &lines(2, &[]), 20).unwrap();

        let archive = Archive::open(path.clone(), 1 << 20);
        assert_eq!(archive.list(), [ended(2, "web", 15), ended(1, "web", 10)], "the newest first");
        assert_eq!(text, archive.read(&InstanceId::from_bits(1)).unwrap());
        assert_eq!(archive.read(&InstanceId::from_bits(2)).unwrap(), []);
        assert_eq!(archive.read(&InstanceId::from_bits(3)), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = path.join("web").join(InstanceId::from_bits(1).as_str());
        assert_eq!((mode(&path.join("web")), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn the_last_ten_of_an_app_stay_and_everything_stays_for_a_day() {
        let now = 100 * HOUR;
        let entry = |bits, app, age: UnixMillis| Kept { ended: ended(bits, app, now - age * HOUR), bytes: 1 };
        let mut kept: Vec<Kept> =
            (0..15).map(|bits| entry(bits, "web", 20 + UnixMillis::try_from(bits).unwrap())).collect();
        kept.push(entry(99, "rare", 90));
        let gone = surplus(&mut kept, 1 << 20, now);
        // 10 are the last of their app, and whatever is younger than 24 h is among them.
        assert_eq!(
            gone.iter().map(|ended| ended.at).collect::<Vec<_>>(),
            (10..15).map(|age| now - (20 + age) * HOUR).collect::<Vec<_>>()
        );
        assert!(kept.iter().any(|kept| kept.ended.app.as_str() == "rare"));
        let mut young: Vec<Kept> = (0..15).map(|bits| entry(bits, "web", 1)).collect();
        assert_eq!(surplus(&mut young, 1 << 20, now), []);
    }

    #[test]
    fn an_app_with_many_ends_gives_way_first_when_there_is_no_room() {
        let entry = |bits, app, at| Kept { ended: ended(bits, app, at), bytes: 10 };
        let mut kept: Vec<Kept> =
            (0..12).map(|bits| entry(bits, "noisy", 1000 - UnixMillis::try_from(bits).unwrap())).collect();
        kept.push(entry(50, "quiet", 1));
        let gone = surplus(&mut kept, 115, 1000);
        assert_eq!(gone.iter().map(|ended| ended.app.as_str()).collect::<Vec<_>>(), ["noisy", "noisy"]);
        let gone = surplus(&mut kept, 15, 1000);
        assert_eq!(gone.len(), 10);
        assert_eq!(kept.len(), 1, "the newest of all stays");
    }

    #[test]
    fn a_full_disk_keeps_nothing_half() {
        let dir = TestDir::new("agent-ended");
        let path = dir.path().join("ended");
        fs::write(&path, "not a directory").unwrap();
        let archive = Archive::open(path, 1 << 20);
        assert!(archive.keep(ended(1, "web", 10), &lines(1, &["a"]), 20).is_err());
        assert!(archive.list().is_empty());
    }
}
