//! What is counted of the releases.

use dinp_common::api::router::ReleaseCounters;
use dinp_common::model::AppName;
use http::StatusCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Times by which the answers of a release are counted, in microseconds, and in seconds as metrics have them: what takes
/// longer than the last is counted apart.
pub(crate) const BOUNDS: [(u64, &str); 8] = [
    (5_000, "0.005"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (10_000_000, "10"),
];

/// Answers of one release of one app, since the router's start.
#[derive(Debug)]
pub(crate) struct ReleaseStats {
    /// The app.
    pub(crate) app: AppName,
    /// Id of the release.
    pub(crate) release: u64,
    /// None before the first answer or failure: most releases of a large table are never asked.
    counts: OnceLock<Box<Counts>>,
    /// Whether it is among the [`News`].
    is_news: AtomicBool,
}

#[derive(Debug, Default)]
struct Counts {
    answers: [AtomicU64; 5],
    failed: AtomicU64,
    /// Time until the answers began, of all together, in microseconds.
    micros: AtomicU64,
    /// Answers by the first of the [`BOUNDS`] that they did not exceed.
    within: [AtomicU64; BOUNDS.len() + 1],
}

impl ReleaseStats {
    pub(crate) fn new(app: AppName, release: u64) -> Arc<Self> {
        Arc::new(Self { app, release, counts: OnceLock::new(), is_news: AtomicBool::new(false) })
    }

    fn counts(&self) -> &Counts {
        self.counts.get_or_init(Box::default)
    }

    /// All answers.
    pub(crate) fn answered(&self) -> u64 {
        self.counts.get().map_or(0, |counts| read(&counts.answers).iter().sum())
    }

    /// The answers by first digit, and the failed attempts; none where there were neither.
    pub(crate) fn read(&self) -> Option<ReleaseCounters> {
        let counts = self.counts.get()?;
        Some(ReleaseCounters {
            app: self.app.to_string(),
            release: self.release,
            answers: read(&counts.answers),
            failed: counts.failed.load(Ordering::Relaxed),
            micros: counts.micros.load(Ordering::Relaxed),
        })
    }

    /// Answers that took no longer than each of the [`BOUNDS`], and all.
    pub(crate) fn within(&self) -> [u64; BOUNDS.len() + 1] {
        let mut within = self.counts.get().map_or([0; _], |counts| read(&counts.within));
        for bound in 1..within.len() {
            within[bound] += within[bound - 1];
        }
        within
    }
}

fn read<const N: usize>(counts: &[AtomicU64; N]) -> [u64; N] {
    counts.each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// The releases whose counters have changed since the leader was told: so that telling it costs nothing for all others.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<Vec<Arc<ReleaseStats>>>);

impl News {
    /// Counts an answer that began after this time.
    pub(crate) fn answered(&self, stats: &Arc<ReleaseStats>, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bound = BOUNDS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BOUNDS.len());
        let counts = stats.counts();
        counts.answers[class].fetch_add(1, Ordering::SeqCst);
        counts.micros.fetch_add(micros, Ordering::Relaxed);
        counts.within[bound].fetch_add(1, Ordering::Relaxed);
        self.note(stats);
    }

    /// Counts an attempt without an answer.
    pub(crate) fn failed(&self, stats: &Arc<ReleaseStats>) {
        stats.counts().failed.fetch_add(1, Ordering::SeqCst);
        self.note(stats);
    }

    /// Those that have changed since the last [`News::take`].
    pub(crate) fn look(&self) -> Vec<Arc<ReleaseStats>> {
        self.lock().clone()
    }

    /// The same, and from now on they are no news.
    pub(crate) fn take(&self) -> Vec<Arc<ReleaseStats>> {
        let taken = std::mem::take(&mut *self.lock());
        // Before they are read: what is counted from now on is in the next news, if not in this one.
        for stats in &taken {
            stats.is_news.store(false, Ordering::SeqCst);
        }
        taken
    }

    /// What was taken did not reach anybody.
    pub(crate) fn put_back(&self, taken: &[Arc<ReleaseStats>]) {
        for stats in taken {
            self.note(stats);
        }
    }

    fn note(&self, stats: &Arc<ReleaseStats>) {
        if !stats.is_news.load(Ordering::SeqCst) && !stats.is_news.swap(true, Ordering::SeqCst) {
            self.lock().push(stats.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<ReleaseStats>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(all: &[Arc<ReleaseStats>]) -> Vec<(u64, [u64; 5], u64)> {
        all.iter().filter_map(|one| one.read()).map(|one| (one.release, one.answers, one.failed)).collect()
    }

    #[test]
    fn answers_are_counted_by_the_time_they_took() {
        let (news, stats) = (News::default(), ReleaseStats::new("a".parse().unwrap(), 1));
        for millis in [5, 6, 100, 20_000] {
            news.answered(&stats, StatusCode::OK, Duration::from_millis(millis));
        }
        assert_eq!(stats.within(), [1, 2, 3, 3, 3, 3, 3, 3, 4]);
    }

    #[test]
    fn news_are_what_has_changed_since_they_were_taken() {
        let news = News::default();
        let [one, two] = [1, 2].map(|release| ReleaseStats::new("a".parse().unwrap(), release));
        assert_eq!(two.read(), None, "what has no counts is not told of");
        news.answered(&one, StatusCode::NOT_FOUND, Duration::from_millis(1));
        news.answered(&one, StatusCode::OK, Duration::from_millis(1));
        news.failed(&two);
        let all = [(1, [0, 1, 0, 1, 0], 0), (2, [0; 5], 1)];
        assert_eq!(told(&news.look()), all);
        let taken = news.take();
        assert_eq!(told(&taken), all);
        assert!(news.look().is_empty());
        news.answered(&one, StatusCode::OK, Duration::from_millis(1));
        assert_eq!(told(&news.look()), [(1, [0, 2, 0, 1, 0], 0)]);
        news.put_back(&taken);
        assert_eq!(news.take().len(), 2, "nothing is told twice");
    }
}
