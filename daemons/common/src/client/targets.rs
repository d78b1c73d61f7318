//! Which address is asked first: the one that worked last; of several servers, the one that leads in the highest epoch.

use std::time::{Duration, Instant};

use url::Url;

use crate::api::leader::LeaderView;

/// Time between two questions to the other servers who leads.
const SURVEY: Duration = Duration::from_secs(2);
/// The same where no other is known: for the names of further ones.
const SURVEY_ALONE: Duration = Duration::from_secs(30);
/// Most servers that are learned of.
const LEARNED_MOST: usize = 16;

/// The addresses of one kind of daemon, and what is known of them.
#[derive(Debug)]
pub(super) struct Targets {
    configured: Vec<Url>,
    /// Those that servers have named besides.
    learned: Vec<Url>,
    current: Option<Url>,
    /// The epoch that the current one has shown; 0 while it has shown none.
    epoch: u64,
    surveyed: Option<Instant>,
}

impl Targets {
    pub(super) fn new(configured: Vec<Url>) -> Self {
        Self { configured, learned: Vec::new(), current: None, epoch: 0, surveyed: None }
    }

    /// All of them, in the order in which they are to be tried now.
    pub(super) fn in_order(&self) -> Vec<Url> {
        let mut targets: Vec<Url> = self.current.iter().cloned().collect();
        for url in self.configured.iter().chain(&self.learned) {
            if !targets.contains(url) {
                targets.push(url.clone());
            }
        }
        targets
    }

    /// `base` has answered, and has shown this epoch. One that was left for a higher epoch is not gone back to.
    pub(super) fn worked(&mut self, base: &Url, shown: Option<u64>) {
        if self.current.as_ref() == Some(base) {
            self.epoch = shown.unwrap_or(self.epoch);
        } else if shown.is_none_or(|epoch| epoch >= self.epoch) {
            self.follow(base, shown.unwrap_or(0));
        }
    }

    /// `base` has not answered, or not as a leader: what it has shown counts no longer.
    pub(super) fn failed(&mut self, base: &Url) {
        if self.current.as_ref() != Some(base) {
            return;
        }
        self.epoch = 0;
        if !self.configured.contains(base) {
            self.current = None;
        }
    }

    /// The servers that are to be asked now who leads, if it is time to.
    pub(super) fn survey_due(&mut self, now: Instant) -> Option<Vec<Url>> {
        let all = self.in_order();
        let current = self.current.as_ref();
        let mut asked: Vec<Url> = all.iter().filter(|url| Some(*url) != current).cloned().collect();
        let mut period = SURVEY;
        if all.len() <= 1 {
            (asked, period) = (all, SURVEY_ALONE);
        }
        if self.surveyed.is_some_and(|at| now < at + period) {
            return None;
        }
        self.surveyed = Some(now);
        Some(asked)
    }

    /// What `from` says of who leads. True if another server is followed from now on.
    pub(super) fn heard(&mut self, from: &Url, view: &LeaderView) -> bool {
        for name in view.servers.iter().chain(&view.leader) {
            self.learn(name);
        }
        let leads_above = view.leading && view.epoch > self.epoch && self.current.as_ref() != Some(from);
        if leads_above {
            self.follow(from, view.epoch);
        }
        leads_above
    }

    fn follow(&mut self, base: &Url, epoch: u64) {
        self.current = Some(base.clone());
        self.epoch = epoch;
    }

    fn learn(&mut self, name: &str) {
        let Ok(url) = name.parse::<Url>() else { return };
        if self.learned.len() < LEARNED_MOST && !self.configured.contains(&url) && !self.learned.contains(&url) {
            self.learned.push(url);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(name: &str) -> Url {
        format!("http://{name}:1980").parse().unwrap()
    }

    fn leads(epoch: u64) -> LeaderView {
        LeaderView { leading: true, epoch, ..LeaderView::default() }
    }

    fn following(name: &str, epoch: u64) -> Targets {
        let mut targets = Targets::new(vec![url("a"), url("b")]);
        targets.worked(&url(name), Some(epoch));
        targets
    }

    #[test]
    fn the_highest_epoch_that_a_server_leads_in_is_followed() {
        let mut targets = following("a", 7);
        assert!(!targets.heard(&url("b"), &leads(7)));
        assert!(!targets.heard(&url("b"), &LeaderView { leading: false, ..leads(9) }), "it does not lead");
        assert!(targets.heard(&url("b"), &leads(8)));
        assert_eq!(targets.in_order(), [url("b"), url("a")]);
    }

    #[test]
    fn an_answer_that_was_under_way_does_not_lead_back_to_the_lower_epoch() {
        let mut targets = following("a", 7);
        targets.heard(&url("b"), &leads(8));
        targets.worked(&url("a"), Some(7));
        assert_eq!(targets.in_order()[0], url("b"));
    }

    #[test]
    fn a_leader_that_is_gone_is_left_for_a_lower_epoch_too() {
        let mut targets = following("b", 8);
        targets.failed(&url("b"));
        targets.worked(&url("a"), Some(7));
        assert_eq!(targets.in_order()[0], url("a"), "as after a restored backup");
    }

    #[test]
    fn servers_that_others_name_are_asked_too() {
        let mut targets = Targets::new(vec![url("a")]);
        let begin = Instant::now();
        assert_eq!(targets.survey_due(begin), Some(vec![url("a")]));
        let view = LeaderView { servers: vec!["http://a:1980".into(), "http://b:1980".into()], ..leads(7) };
        assert!(targets.heard(&url("a"), &view));
        assert_eq!(targets.survey_due(begin + SURVEY), Some(vec![url("b")]));
        assert_eq!(targets.survey_due(begin + SURVEY), None, "only each few seconds");
        assert_eq!(targets.in_order(), [url("a"), url("b")]);
    }

    #[test]
    fn no_server_can_name_servers_without_end() {
        let mut targets = Targets::new(vec![url("a")]);
        let servers = (0..1000).map(|number| format!("http://host{number}:1980")).collect();
        targets.heard(&url("a"), &LeaderView { servers, ..LeaderView::default() });
        assert_eq!(targets.in_order().len(), 1 + LEARNED_MOST);
    }
}
