//! Environments: values are sealed here and cannot be read back by anybody but the app.

use crate::apps::{object, within};
use crate::{Caller, Dash, inherit, record, refuse};
use dinp_common::api::people::{EnvChange, EnvLeftOut, EnvPatch, EnvView};
use dinp_common::model::EnvName;
use dinp_common::problem::Problem;
use dinp_common::seal::seal;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::{Change, deployment, env, release};
use mysql_async::prelude::Queryable;
use std::collections::BTreeSet;

/// Variables that the platform sets.
const PLATFORM: [&str; 6] = ["APP_NAME", "HOST_IP", "PORT", "SCRIBE_IP", "SCRIBE_PORT", "TINI_KILL_PROCESS_GROUP"];
/// Longest value, in bytes.
const MAX_VALUE: usize = 32 * 1024;
/// Most bytes of all values, sealed: they stand in the orders of a node once for each of its instances.
const MAX_TOTAL: u64 = 256 * 1024;
/// Most variables.
const MAX_COUNT: usize = 500;

/// Checks what needs no database.
pub(crate) fn check(change: &EnvChange) -> Result<(), Problem> {
    for (name, value) in &change.set {
        let field = format!("set.{name}");
        if PLATFORM.contains(&name.as_str()) {
            return Err(refuse(&field, "name-reserved", format!("the variable {name} is set by the platform")));
        }
        if value.len() > MAX_VALUE {
            let detail = format!("the value of {name} has {} bytes; at most {MAX_VALUE} are possible", value.len());
            return Err(refuse(&field, "too-large", detail));
        }
        if value.contains('\0') {
            let detail = format!("the value of {name} holds a NUL character, which no environment can hold");
            return Err(refuse(&field, "invalid-value", detail));
        }
        if change.unset.contains(name) {
            let detail = format!("the variable {name} is to be set and to be taken away; say one of both");
            return Err(refuse(&field, "invalid-value", detail));
        }
    }
    Ok(())
}

/// The version of an app's environment that the next release takes.
pub(crate) struct Standing {
    /// The version.
    pub version: u32,
    /// A newer one that it does not take.
    pub left_out: Option<EnvLeftOut>,
}

/// Which version counts: the newest one, where it has not been deployed yet or runs. What a release has brought that is
/// neither in force nor on its way is not tried again by itself: then it is the version of what runs.
pub(crate) async fn standing<Q: Queryable>(conn: &mut Q, row: &AppRow) -> Result<Standing, Problem> {
    let newest = Standing { version: row.env_version, left_out: None };
    let Some(bearer) = release::newest_of_env(conn, &row.name, row.env_version).await? else { return Ok(newest) };
    let on_its_way = inherit::running_id(conn, row).await?;
    let ids: Vec<u64> = on_its_way.into_iter().chain(row.release_id).collect();
    let alive = release::by_ids(conn, &ids).await?;
    let Some(running) = alive.iter().find(|release| Some(release.id) == on_its_way) else { return Ok(newest) };
    if alive.iter().any(|release| release.env_version == row.env_version) {
        return Ok(newest);
    }
    let version = running.env_version;
    let (set, unset) = env::difference(conn, &row.name, version, row.env_version).await?;
    let left_out = EnvLeftOut { version: row.env_version, release: bearer.number, failed: !bearer.came_up, set, unset };
    Ok(Standing { version, left_out: Some(left_out) })
}

/// Applies a change to the version that counts, as a new one, and returns the version that the next release takes: without
/// a change, the one that counts.
pub(crate) async fn apply(
    change: &mut Change,
    caller: &Caller,
    row: &AppRow,
    wish: &EnvChange,
    standing: &Standing,
) -> Result<u32, Problem> {
    let name = &row.name;
    let from = if wish.keep { row.env_version } else { standing.version };
    if wish.set.is_empty() && wish.unset.is_empty() {
        return Ok(from);
    }
    let present = env::names(&mut change.tx, name, from).await?;
    if let Some(unknown) = wish.unset.iter().find(|variable| !present.contains(variable)) {
        let detail = format!("app {name} has no variable {unknown} that could be taken away");
        return Err(refuse("unset", "no-such-variable", detail));
    }
    let after: BTreeSet<&EnvName> =
        present.iter().filter(|name| !wish.unset.contains(name)).chain(wish.set.keys()).collect();
    if after.len() > MAX_COUNT {
        let detail = format!("the app would have {} variables; at most {MAX_COUNT} are possible", after.len());
        return Err(refuse("set", "too-many", detail));
    }
    let key = env::sealing_key(&mut change.tx).await?.ok_or_else(|| {
        let detail = "there is no key to seal values to yet; an operator makes one with `dinp setup`";
        Problem::unavailable("no-sealing-key", detail)
    })?;
    let version = row.env_version + 1;
    let changed: Vec<&EnvName> = wish.set.keys().chain(&wish.unset).collect();
    env::copy(change, name, from, version, &changed).await?;
    for (variable, value) in &wish.set {
        let sealed = seal(&key.public_key, value).map_err(|error| Problem::internal(&error))?;
        env::insert(change, name, version, variable, &sealed, key.id, caller.name()).await?;
    }
    if env::sealed_bytes(&mut change.tx, name, version).await? > MAX_TOTAL {
        let detail = format!("the app's environment would be too large; {MAX_TOTAL} bytes are possible in all");
        return Err(refuse("set", "too-large", detail));
    }
    app::set_env_version(change, name, version).await?;
    record(change, caller, "app.env", &object(name), &told(wish)).await?;
    Ok(version)
}

/// A change in words, without values.
fn told(wish: &EnvChange) -> String {
    let set = wish.set.keys().map(|name| format!("set {name}"));
    let unset = wish.unset.iter().map(|name| format!("unset {name}"));
    set.chain(unset).collect::<Vec<_>>().join(", ")
}

/// The note of a release that is made for a change of the environment alone.
fn note(wish: &EnvChange, version: u32) -> String {
    let words = if wish.set.is_empty() && wish.unset.is_empty() { format!("version {version}") } else { told(wish) };
    format!("environment: {words}").chars().take(1000).collect()
}

impl Dash {
    /// Names of an app's variables.
    pub(crate) async fn env_view(&self, row: &AppRow) -> Result<EnvView, Problem> {
        let mut conn = self.conn().await?;
        let Standing { version, left_out } = standing(&mut conn, row).await?;
        let names = env::names(&mut conn, &row.name, version).await?;
        let in_force = match row.release_id {
            Some(id) => release::by_ids(&mut conn, &[id]).await?.pop(),
            None => None,
        };
        let deployed_version = in_force.map(|release| release.env_version);
        Ok(EnvView { version, names, deployed_version, left_out, deployment: None })
    }

    /// The version of an app's environment that its next release does not take along.
    pub(crate) async fn env_left_out(&self, row: &AppRow) -> Result<Option<EnvLeftOut>, Problem> {
        Ok(standing(&mut self.conn().await?, row).await?.left_out)
    }

    /// Changes an app's environment as a new version, and deploys it unless told otherwise.
    pub(crate) async fn patch_env(&self, caller: &Caller, row: &AppRow, patch: &EnvPatch) -> Result<EnvView, Problem> {
        let wish = patch.change();
        check(&wish)?;
        let mut change = self.begin().await?;
        let row = within(&mut change, row).await?;
        let standing = standing(&mut change.tx, &row).await?;
        if wish.set.is_empty() && wish.unset.is_empty() && !(wish.keep && standing.left_out.is_some()) {
            return Err(Problem::unprocessable("nothing-to-do", "name a variable to set or to take away"));
        }
        let env_version = apply(&mut change, caller, &row, &wish, &standing).await?;
        let left_out = standing.left_out.filter(|_| !wish.keep);
        let row = AppRow { env_version, ..row };
        let deployment = match patch.deploy {
            true => self.redeploy(&mut change, caller, &row, &note(&wish, env_version)).await?,
            false => None,
        };
        self.commit(change).await?;
        let view = self.env_view(&row).await?;
        let deployment = match deployment {
            Some(id) => deployment::find(&mut self.conn().await?, id).await?,
            None => None,
        };
        Ok(EnvView { deployment, left_out, ..view })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(set: &[(&str, &str)], unset: &[&str]) -> EnvChange {
        EnvChange {
            set: set.iter().map(|(name, value)| (name.parse().unwrap(), (*value).to_owned())).collect(),
            unset: unset.iter().map(|name| name.parse().unwrap()).collect(),
            keep: false,
        }
    }

    #[test]
    fn what_no_environment_can_hold_is_refused_by_name() {
        assert!(check(&wish(&[("A", "1")], &["B"])).is_ok());
        for (bad, kind) in [
            (wish(&[("PORT", "1")], &[]), "name-reserved"),
            (wish(&[("TINI_KILL_PROCESS_GROUP", "")], &[]), "name-reserved"),
            (wish(&[("A", "a\0b")], &[]), "invalid-value"),
            (wish(&[("A", &"x".repeat(MAX_VALUE + 1))], &[]), "too-large"),
            (wish(&[("A", "1")], &["A"]), "invalid-value"),
        ] {
            assert_eq!(check(&bad).unwrap_err().kind, kind);
        }
    }

    #[test]
    fn values_are_in_no_note() {
        let wish = wish(&[("A", "s3cret")], &["B"]);
        assert_eq!(note(&wish, 4), "environment: set A, unset B");
    }
}
