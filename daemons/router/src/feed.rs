//! The table from Redis: read whole, then followed through its log; kept when Redis is gone, empty or behind.

use crate::applier::Applier;
use crate::settings::RedisAccess;
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use dinp_common::model::Version;
use dinp_common::routes::{Change, Entry, Reader, RouteError, Snapshot};
use std::time::Duration;

/// First wait after a failed connection.
const BACK_OFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait after a failed connection.
const BACK_OFF_MOST: Duration = Duration::from_secs(3);
/// Wait while Redis has no whole table.
const INCOMPLETE: Duration = Duration::from_millis(100);
/// How long the feed may go without a sign of life.
pub(crate) const MAX_SILENCE: Duration = Duration::from_secs(60);

/// What to do with a table that was read whole.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Apply,
    /// Redis has none, or one of the past.
    Keep,
}

fn judge(have: Option<Version>, snapshot: Option<Version>) -> Verdict {
    match (have, snapshot) {
        (_, None) => Verdict::Keep,
        // The same version is taken again: the one on disk may have been touched, and it costs nothing.
        (Some(have), Some(new)) if new < have => Verdict::Keep,
        (_, Some(_)) => Verdict::Apply,
    }
}

/// What entries of the log come to.
#[derive(Debug, PartialEq)]
enum Step {
    /// These changes lead to this version.
    Apply(Version, Vec<Change>),
    /// Something was missed.
    Reload,
    Nothing,
}

fn follow(have: Version, entries: Vec<Entry>) -> Step {
    let mut version = have;
    let mut changes = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.id > have) {
        if entry.prev != version {
            return Step::Reload;
        }
        version = entry.id;
        changes.extend(entry.changes);
    }
    if version == have { Step::Nothing } else { Step::Apply(version, changes) }
}

/// Reads for ever.
pub(crate) async fn run(access: RedisAccess, applier: Applier, routes: Condition, beat: Heartbeat) {
    let feed = Feed { access, applier, routes, beat };
    if feed.applier.version().is_some() {
        feed.routes.ok();
    }
    let mut back_off = BACK_OFF_FIRST;
    let mut told = false;
    loop {
        feed.beat.beat();
        let connected =
            Reader::connect(&feed.access.url, &feed.access.user, &feed.access.password, &feed.access.cluster).await;
        let error = match connected {
            Ok(reader) => {
                metrics::gauge!("dinp_router_redis_up").set(1.0);
                if std::mem::take(&mut told) {
                    tracing::info!("connected to Redis again");
                }
                back_off = BACK_OFF_FIRST;
                feed.read(reader).await
            }
            Err(error) => error,
        };
        metrics::gauge!("dinp_router_redis_up").set(0.0);
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(error = %ErrorChain(&error), "routes cannot be read from Redis, the table is kept");
        }
        if feed.applier.version().is_none() {
            feed.routes.missing(&ErrorChain(&error).to_string());
        }
        // Routers of one cluster must not all come back in the same instant.
        tokio::time::sleep(back_off.mul_f64(rand::random_range(0.5..1.0))).await;
        back_off = (back_off * 2).min(BACK_OFF_MOST);
    }
}

struct Feed {
    access: RedisAccess,
    applier: Applier,
    routes: Condition,
    beat: Heartbeat,
}

impl Feed {
    /// Reads over one connection until it fails.
    async fn read(&self, mut reader: Reader) -> RouteError {
        let mut behind = false;
        loop {
            let loaded = match reader.load().await {
                Ok(loaded) => loaded,
                Err(error) => return error,
            };
            self.beat.beat();
            let whole = loaded.is_some();
            self.take(loaded, &mut behind);
            let followed = match self.applier.version() {
                Some(_) if whole => self.follow(&mut reader).await,
                _ => {
                    if self.applier.version().is_none() {
                        self.routes.missing("Redis has no whole table yet");
                    }
                    tokio::time::sleep(INCOMPLETE).await;
                    Ok(())
                }
            };
            if let Err(error) = followed {
                return error;
            }
        }
    }

    fn take(&self, loaded: Option<Snapshot>, behind: &mut bool) {
        let have = self.applier.version();
        let version = loaded.as_ref().map(|snapshot| snapshot.version);
        match (judge(have, version), loaded) {
            (Verdict::Apply, Some(Snapshot { version, table })) => {
                *behind = false;
                if have != Some(version) {
                    tracing::info!(%version, apps = table.len(), "route table read from Redis");
                }
                self.applier.replace(version, table.into_values().collect());
                self.routes.ok();
            }
            (_, _) => {
                if !std::mem::replace(behind, true) {
                    let (have, redis) = (have.map(|v| v.to_string()), version.map(|v| v.to_string()));
                    tracing::warn!(have, redis, "Redis has no newer table, the one in force is kept");
                }
            }
        }
    }

    /// Follows the log until something was missed, or Redis has changed its mind.
    async fn follow(&self, reader: &mut Reader) -> Result<(), RouteError> {
        loop {
            let have = self.applier.version().unwrap_or_default();
            let entries = reader.next(have).await?;
            self.beat.beat();
            let idle = entries.is_empty();
            match follow(have, entries) {
                Step::Apply(version, changes) => self.applier.change(version, changes),
                Step::Reload => return Ok(()),
                Step::Nothing => {}
            }
            // A log that was lost with its Redis stays silent; the head tells.
            if idle && reader.head().await?.is_some_and(|head| head.version > have) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn whole_tables() {
        for (have, redis, expected) in [
            (None, None, Verdict::Keep),
            (None, Some("1-1"), Verdict::Apply),
            (Some("1-1"), None, Verdict::Keep),
            (Some("1-2"), Some("1-1"), Verdict::Keep),
            (Some("2-1"), Some("1-9"), Verdict::Keep),
            (Some("1-9"), Some("2-1"), Verdict::Apply),
            (Some("1-1"), Some("1-1"), Verdict::Apply),
        ] {
            assert_eq!(judge(have.map(version), redis.map(version)), expected, "{have:?} {redis:?}");
        }
    }

    #[test]
    fn logs() {
        let entry = |id: &str, prev: &str| {
            let changes = vec![Change { app: format!("a{id}").parse().unwrap(), routes: None }];
            Entry { id: version(id), prev: version(prev), changes }
        };
        let names = |step: Step| match step {
            Step::Apply(version, changes) => {
                format!("{version} {}", changes.iter().map(|c| c.app.as_str()).collect::<Vec<_>>().join(" "))
            }
            other => format!("{other:?}"),
        };
        let have = version("1-3");
        for (entries, expected) in [
            (vec![], "Nothing"),
            (vec![entry("1-4", "1-3")], "1-4 a1-4"),
            (vec![entry("1-4", "1-3"), entry("2-5", "1-4")], "2-5 a1-4 a2-5"),
            (vec![entry("1-3", "1-2"), entry("1-4", "1-3")], "1-4 a1-4"),
            (vec![entry("1-5", "1-4")], "Reload"),
            (vec![entry("1-4", "1-3"), entry("1-6", "1-5")], "Reload"),
            (vec![entry("2-1", "0-0")], "Reload"),
            (vec![entry("1-2", "1-1")], "Nothing"),
        ] {
            assert_eq!(names(follow(have, entries)), expected);
        }
    }
}
