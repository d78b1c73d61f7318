//! What one owner, a user or a team, may have in all, and how often one person may ask.
//!
//! Where a change takes more, it is checked within the change, so that two at once cannot pass together. Who has too much
//! already, because a quota was lowered, keeps it and can take less. Operators and administrators are not held to quotas;
//! what they give to an owner's apps counts for that owner.

use crate::{Caller, Dash};
use dinp_common::api::people::{QuotaUse, QuotaView};
use dinp_common::api::uic::PlatformRole;
use dinp_common::config::ConfigError;
use dinp_common::model::AppName;
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::usage::{self, AppUsage};
use http::StatusCode;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};
use std::ops::Add;
use std::time::{Duration, Instant};

const MIB: u64 = 1024 * 1024;

/// The limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quotas {
    /// Most apps of one owner.
    pub apps: u64,
    /// Most instances of all apps of one owner.
    pub instances: u64,
    /// Most memory of all these instances.
    pub memory_mb: u64,
    /// Most domains of all apps of one owner.
    pub domains: u64,
    /// Most that is built from for one owner within a day.
    pub build_mb_per_day: u64,
    /// Most builds for one owner that run at once.
    pub concurrent_builds: u64,
    /// Most builds for one owner that begin within an hour.
    pub builds_per_hour: u64,
    /// Requests of one person to pages and API.
    pub requests_per_minute: u32,
    /// Requests that somebody who has paused may make at once.
    pub requests_burst: u32,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            apps: 50,
            instances: 200,
            memory_mb: 65_536,
            domains: 200,
            build_mb_per_day: 20_480,
            concurrent_builds: 10,
            builds_per_hour: 120,
            requests_per_minute: 600,
            requests_burst: 200,
        }
    }
}

impl Quotas {
    /// Checks what types cannot say.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        for (key, value) in
            [("quota.requests_per_minute", self.requests_per_minute), ("quota.requests_burst", self.requests_burst)]
        {
            if !(1..=1_000_000).contains(&value) {
                return Err(ConfigError::invalid(key, "must be from 1 to 1000000"));
            }
        }
        Ok(())
    }
}

/// Who owns an app.
pub(crate) fn owner_of(row: &AppRow) -> &str {
    row.team.as_deref().unwrap_or(&row.owner)
}

fn is_bound(caller: &Caller) -> bool {
    caller.user.role < PlatformRole::Operator
}

/// What an app takes, or is to take.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    instances: u64,
    memory_mb: u64,
}

impl Taken {
    fn new(instances: u32, memory_mb: u32) -> Self {
        Self { instances: instances.into(), memory_mb: u64::from(instances) * u64::from(memory_mb) }
    }
}

/// One quota of an owner, and what counts for it.
struct Rule<'a> {
    owner: &'a str,
    what: &'static str,
    used: u64,
    allowed: u64,
}

impl Rule<'_> {
    /// Refuses that what is used grows to more than is allowed.
    fn check(&self, wanted: u64) -> Result<(), Problem> {
        if wanted <= self.used || wanted <= self.allowed { Ok(()) } else { Err(self.exceeded(wanted)) }
    }

    fn exceeded(&self, wanted: u64) -> Problem {
        let Self { owner, what, used, allowed } = self;
        let detail = format!("{owner} has {used} {what} in all and may have {allowed}; this would make it {wanted}");
        Problem::new(StatusCode::FORBIDDEN, "quota-exceeded", detail)
            .with("quota", *what)
            .with("owner", *owner)
            .with("used", *used)
            .with("allowed", *allowed)
    }
}

impl Add for Taken {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { instances: self.instances + other.instances, memory_mb: self.memory_mb + other.memory_mb }
    }
}

/// What all apps of an owner take but this one.
fn taken(apps: &[AppUsage], but: &AppName) -> Taken {
    sum(apps.iter().filter(|app| app.name != but.as_str()))
}

fn sum<'a>(apps: impl Iterator<Item = &'a AppUsage>) -> Taken {
    apps.map(|app| Taken::new(app.instances, app.memory_mb)).fold(Taken::default(), Add::add)
}

impl Dash {
    /// Refuses a further app of an owner that has as many as it may have. Within the change.
    pub(crate) async fn check_new_app<Q: Queryable>(
        &self,
        conn: &mut Q,
        caller: &Caller,
        owner: &str,
        name: &AppName,
        instances: u32,
    ) -> Result<(), Problem> {
        if !is_bound(caller) {
            return Ok(());
        }
        let apps = usage::apps(conn, owner).await?;
        let others = apps.iter().filter(|app| app.name != name.as_str()).count() as u64;
        let rule = Rule { owner, what: "apps", used: others, allowed: self.config.quota.apps };
        rule.check(others + 1)?;
        self.check_taken(owner, taken(&apps, name), Taken::default(), Taken::new(instances, 0))
    }

    /// Refuses that an app takes more than its owner may have: so many instances instead of those of `row`, each with so
    /// much memory, or with as much as now. Within the change.
    pub(crate) async fn check_quota<Q: Queryable>(
        &self,
        conn: &mut Q,
        caller: &Caller,
        row: &AppRow,
        instances: u32,
        memory_mb: Option<u32>,
    ) -> Result<(), Problem> {
        if !is_bound(caller) {
            return Ok(());
        }
        let owner = owner_of(row);
        let apps = usage::apps(conn, owner).await?;
        let now = apps.iter().find(|app| app.name == row.name.as_str()).map_or(0, |app| app.memory_mb);
        let wanted = Taken::new(instances, memory_mb.unwrap_or(now));
        self.check_taken(owner, taken(&apps, &row.name), Taken::new(row.instances, now), wanted)
    }

    /// Whether an owner may have what one app wants instead of what it has, beside all others.
    fn check_taken(&self, owner: &str, others: Taken, has: Taken, wants: Taken) -> Result<(), Problem> {
        let quota = &self.config.quota;
        let (used, wanted) = (others + has, others + wants);
        let instances = Rule { owner, what: "instances", used: used.instances, allowed: quota.instances };
        instances.check(wanted.instances)?;
        let memory = Rule { owner, what: "MiB of memory", used: used.memory_mb, allowed: quota.memory_mb };
        memory.check(wanted.memory_mb)
    }

    /// Refuses a further domain of an owner that has as many as it may have. Within the change.
    pub(crate) async fn check_new_domain<Q: Queryable>(
        &self,
        conn: &mut Q,
        caller: &Caller,
        row: &AppRow,
    ) -> Result<(), Problem> {
        if !is_bound(caller) {
            return Ok(());
        }
        let owner = owner_of(row);
        let used = usage::domains(conn, owner).await?;
        Rule { owner, what: "domains", used, allowed: self.config.quota.domains }.check(used + 1)
    }

    /// The bytes that the owner of an app may still upload today; an error if there are none. What is under way counts
    /// when it has arrived: the builder takes few packages at a time.
    pub(crate) async fn upload_left(&self, caller: &Caller, row: &AppRow) -> Result<u64, Problem> {
        if !is_bound(caller) {
            return Ok(u64::MAX);
        }
        let used = usage::build_bytes(&mut self.conn().await?, owner_of(row)).await?;
        match (self.config.quota.build_mb_per_day * MIB).saturating_sub(used) {
            0 => Err(self.uploads_exceeded(row)),
            left => Ok(left),
        }
    }

    /// Refuses a further build for an owner that has as many as it may have.
    pub(crate) async fn check_new_build(&self, caller: &Caller, row: &AppRow) -> Result<(), Problem> {
        if !is_bound(caller) {
            return Ok(());
        }
        let (owner, quota) = (owner_of(row), &self.config.quota);
        let (running, within_hour) = usage::builds(&mut self.conn().await?, owner).await?;
        let refused = |what: &'static str, allowed: u64, detail: String| {
            Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", detail)
                .with("quota", what)
                .with("owner", owner)
                .with("allowed", allowed))
        };
        if running >= quota.concurrent_builds {
            let detail =
                format!("{owner} may have {running} builds that run at a time and has: wait until one has ended");
            return refused("concurrent_builds", quota.concurrent_builds, detail);
        }
        if within_hour >= quota.builds_per_hour {
            let allowed = quota.builds_per_hour;
            let detail = format!("{owner} may begin {allowed} builds within an hour and has: wait for a while");
            return refused("builds_per_hour", allowed, detail);
        }
        Ok(())
    }

    /// What is said of a package that is more than may still be uploaded today.
    pub(crate) fn uploads_exceeded(&self, row: &AppRow) -> Problem {
        let (owner, allowed) = (owner_of(row), self.config.quota.build_mb_per_day);
        let detail = format!("{owner} may upload {allowed} MiB within 24 hours, and this package would be more");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota-exceeded", detail)
            .with("quota", "build_mb_per_day")
            .with("owner", owner)
            .with("allowed", allowed)
            .with("field", "package")
    }

    /// Counts a request; refuses one of somebody who asks too often.
    pub(crate) fn check_rate(&self, caller: &Caller) -> Result<(), Problem> {
        if !is_bound(caller) {
            return Ok(());
        }
        let most = self.config.quota.requests_per_minute;
        self.rate.take(&caller.user.name, Instant::now()).map_err(|wait: Duration| {
            let secs = wait.as_secs() + 1;
            let detail = format!("you ask more often than {most} times a minute; wait {secs} s and try again");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail)
                .with("allowed", most)
                .with("retry_after_secs", secs)
        })
    }

    /// What the caller and the caller's teams have, and what they may have.
    pub(crate) async fn quota_views(&self, caller: &Caller) -> Result<Vec<QuotaView>, Problem> {
        let mut conn = self.conn().await?;
        let teams = caller.user.teams.iter().map(|membership| membership.team.as_str());
        let mut views = Vec::new();
        for owner in std::iter::once(caller.name()).chain(teams) {
            views.push(self.quota_view(&mut conn, owner).await?);
        }
        Ok(views)
    }

    async fn quota_view<Q: Queryable>(&self, conn: &mut Q, owner: &str) -> Result<QuotaView, Problem> {
        let quota = &self.config.quota;
        let apps = usage::apps(conn, owner).await?;
        let taken = sum(apps.iter());
        let (running, within_hour) = usage::builds(conn, owner).await?;
        Ok(QuotaView {
            owner: owner.to_owned(),
            apps: QuotaUse { used: apps.len() as u64, allowed: quota.apps },
            instances: QuotaUse { used: taken.instances, allowed: quota.instances },
            memory_mb: QuotaUse { used: taken.memory_mb, allowed: quota.memory_mb },
            domains: QuotaUse { used: usage::domains(conn, owner).await?, allowed: quota.domains },
            build_mb_per_day: QuotaUse {
                used: usage::build_bytes(conn, owner).await?.div_ceil(MIB),
                allowed: quota.build_mb_per_day,
            },
            concurrent_builds: QuotaUse { used: running, allowed: quota.concurrent_builds },
            builds_per_hour: QuotaUse { used: within_hour, allowed: quota.builds_per_hour },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_too_much_may_take_less() {
        let rule = Rule { owner: "anna", what: "instances", used: 12, allowed: 10 };
        assert!(rule.check(11).is_ok() && rule.check(12).is_ok());
        let problem = rule.check(13).unwrap_err();
        assert_eq!(problem.detail, "anna has 12 instances in all and may have 10; this would make it 13");
        assert_eq!((problem.status, problem.text("quota")), (403, Some("instances")));
    }
}
