//! The highest revision of desired state that was carried out. A database that shows a lower one is older than what runs:
//! it was restored from a backup, or failed over to a replica that lagged. Then what runs is kept, replaced and routed, and
//! nothing is deployed, stopped or taken out of the table until a person has looked and said so.
//!
//! ```text
//!              a lower one is shown            the database still shows it
//!   Current -----------------------> Behind ----------------------------> Held
//!      ^                               |                                   |  a person resumes
//!      +--- at least the highest ------+--------- Resumed <----------------+
//! ```
//!
//! A new leader may have read desired state just before its predecessor carried out a change: such a one is *behind* until
//! the next look at the database, and nobody is told. Once it is *held*, changes that people make meanwhile do not count
//! the revision up past the highest: that is kept far ahead of it, so that a next leader knows as well.

use super::permission::{Cause, Freeze};
use super::{Desired, Reign, Tick};
use dinp_common::api::ProvedRevision;

/// What people read. Without numbers: it is written to deployments that wait, which raises the revision.
const OLDER: &str = "the database is older than what runs, as after a restore: nothing is deployed or stopped until you have \
                     looked and say dinp resume";

/// How far.
const AHEAD: u64 = 1_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Current,
    Behind {
        since: Tick,
    },
    Held,
    Resumed,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct HighestRevision {
    proved: ProvedRevision,
    standing: Standing,
    /// When the database was last seen to show the desired state that is known here.
    stood_at: Tick,
}

impl HighestRevision {
    /// Takes in the revision that desired state shows. Returns the highest one, where it is higher than before.
    fn compare(&mut self, shown: u64, now: Tick) -> Option<u64> {
        let highest = self.proved.number;
        match self.standing {
            Standing::Held if shown >= highest => return Some(shown.saturating_add(AHEAD)),
            _ if shown >= highest => self.standing = Standing::Current,
            Standing::Current => self.standing = Standing::Behind { since: now },
            Standing::Behind { since } if self.stood_at > since => self.standing = Standing::Held,
            Standing::Behind { .. } | Standing::Held | Standing::Resumed => {}
        }
        (shown > highest).then_some(shown)
    }

    /// Whether the database is known to be older than what runs.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.standing, Standing::Held | Standing::Resumed)
    }
}

impl Reign {
    /// The highest revision that was carried out, for orders and Redis' head.
    pub fn highest_revision(&self) -> &ProvedRevision {
        &self.revision.proved
    }

    /// The database still shows the desired state that is known here.
    pub fn desired_stands(&mut self, now: Tick) {
        self.revision.stood_at = now;
    }

    /// A person has looked, and wants desired state carried out though it is older than what runs. Returns the revision
    /// that it must be raised past; none where nothing is held.
    pub fn resume(&mut self) -> Option<u64> {
        if self.revision.standing == Standing::Current {
            return None;
        }
        self.revision.standing = Standing::Resumed;
        Some(self.revision.proved.number)
    }

    /// Takes in a revision that somebody names as carried out. What no server has proved is a mere claim.
    pub(super) fn heed_revision(&mut self, claimed: &ProvedRevision) {
        let is_higher = claimed.number > self.revision.proved.number;
        if is_higher && self.tickets.proves_revision(claimed, &self.leader.cluster) {
            self.revision.proved = claimed.clone();
        }
    }

    /// Freezes while desired state is older than what was carried out.
    pub(super) fn update_revision_freeze(&mut self, desired: &Desired, now: Tick) {
        let was_held = self.revision.is_held();
        if let Some(highest) = self.revision.compare(desired.revision, now) {
            self.revision.proved = self.tickets.proved_revision(&self.leader.cluster, highest);
        }
        let ground = || Freeze { reason: OLDER.to_owned(), is_blind: false, until: now };
        let is_behind = self.revision.standing != Standing::Current;
        self.permission.freeze(Cause::Revision, is_behind.then(ground), now);
        match (was_held, self.revision.is_held()) {
            (false, true) => {
                let (shown, highest) = (desired.revision, self.revision.proved.number);
                let detail = format!("{OLDER} (revision {shown}, and {highest} was carried out)");
                self.event(None, None, None, "freeze", detail);
            }
            (true, false) => self.event(None, None, None, "freeze_over", String::new()),
            _ => {}
        }
    }
}
