//! What is counted of the releases.

use dinp_common::api::router::ReleaseCounters;
use dinp_common::model::AppName;
use http::StatusCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Answers of one release of one app, since the router's start.
#[derive(Debug)]
pub(crate) struct ReleaseStats {
    /// The app.
    pub(crate) app: AppName,
    /// Id of the release.
    pub(crate) release: u64,
    answers: [AtomicU64; 5],
    failed: AtomicU64,
    /// Time until the answers began, of all together, in microseconds.
    micros: AtomicU64,
    /// Whether it is among the [`News`].
    is_news: AtomicBool,
}

impl ReleaseStats {
    pub(crate) fn new(app: AppName, release: u64) -> Arc<Self> {
        Arc::new(Self {
            app,
            release,
            answers: Default::default(),
            failed: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            is_news: AtomicBool::new(false),
        })
    }

    /// All answers.
    pub(crate) fn answered(&self) -> u64 {
        self.answers.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The answers by first digit, and the failed attempts; none where there were neither.
    pub(crate) fn read(&self) -> Option<ReleaseCounters> {
        let answers: [u64; 5] = std::array::from_fn(|class| self.answers[class].load(Ordering::Relaxed));
        let failed = self.failed.load(Ordering::Relaxed);
        let has_any = failed > 0 || answers.iter().any(|count| *count > 0);
        let micros = self.micros.load(Ordering::Relaxed);
        has_any.then(|| ReleaseCounters { app: self.app.to_string(), release: self.release, answers, failed, micros })
    }
}

/// The releases whose counters have changed since the leader was told: so that telling it costs nothing for all others.
#[derive(Debug, Default)]
pub(crate) struct News(Mutex<Vec<Arc<ReleaseStats>>>);

impl News {
    /// Counts an answer that began after this time.
    pub(crate) fn answered(&self, stats: &Arc<ReleaseStats>, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        stats.answers[class].fetch_add(1, Ordering::SeqCst);
        stats.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.note(stats);
    }

    /// Counts an attempt without an answer.
    pub(crate) fn failed(&self, stats: &Arc<ReleaseStats>) {
        stats.failed.fetch_add(1, Ordering::SeqCst);
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

    fn read(all: &[Arc<ReleaseStats>]) -> Vec<(u64, [u64; 5], u64)> {
        all.iter().filter_map(|one| one.read()).map(|one| (one.release, one.answers, one.failed)).collect()
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
        assert_eq!(read(&news.look()), all);
        let taken = news.take();
        assert_eq!(read(&taken), all);
        assert!(news.look().is_empty());
        news.answered(&one, StatusCode::OK, Duration::from_millis(1));
        assert_eq!(read(&news.look()), [(1, [0, 2, 0, 1, 0], 0)]);
        news.put_back(&taken);
        assert_eq!(news.take().len(), 2, "nothing is told twice");
    }
}
