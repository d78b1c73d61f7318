//! Builds of other builders that are silent: their host may have died with their packages.

use dinp_common::api::UnixMillis;
use dinp_common::store::build::Silent;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What is silent, since when this builder knows that.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<u64, (UnixMillis, Instant)>);

impl Neighbours {
    /// Those of the builds that are silent now whose silence this builder has seen itself for `long` and longer: while the
    /// database was away, nobody could speak.
    pub fn given_up(&mut self, silent: Vec<Silent>, long: Duration, now: Instant) -> Vec<Silent> {
        let seen = std::mem::take(&mut self.0);
        self.0 = silent
            .iter()
            .map(|build| match seen.get(&build.id) {
                Some((beat, since)) if *beat == build.beat_at => (build.id, (*beat, *since)),
                _ => (build.id, (build.beat_at, now)),
            })
            .collect();
        let is_long = |build: &Silent| self.0.get(&build.id).is_some_and(|(_, since)| now - *since >= long);
        silent.into_iter().filter(is_long).collect()
    }

    /// Whether there is anything to go on looking at.
    pub fn is_watching(&self) -> bool {
        !self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(id: u64, beat_at: UnixMillis) -> Silent {
        Silent { id, builder: "other".into(), beat_at, cancel_asked: false, attempt: 1, url: None }
    }

    #[test]
    fn a_build_is_given_up_only_after_a_silence_that_this_builder_has_seen_itself() {
        let (mut neighbours, start) = (Neighbours::default(), Instant::now());
        let mut look = |secs, builds: &[Silent]| {
            let given_up =
                neighbours.given_up(builds.to_vec(), Duration::from_secs(60), start + Duration::from_secs(secs));
            (given_up.iter().map(|build| build.id).collect::<Vec<_>>(), neighbours.is_watching())
        };
        assert_eq!(look(0, &[silent(1, 5), silent(2, 5)]), (vec![], true));
        assert_eq!(look(59, &[silent(1, 5), silent(2, 6)]), (vec![], true));
        assert_eq!(look(60, &[silent(1, 5), silent(2, 6)]), (vec![1], true), "the other has spoken at 59");
        assert_eq!(look(61, &[silent(2, 6)]), (vec![], true));
        assert_eq!(look(100, &[]), (vec![], false));
        assert_eq!(look(119, &[silent(2, 6)]), (vec![], true), "it was not silent in between");
    }
}
