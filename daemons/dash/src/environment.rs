//! Environments: values are sealed here and cannot be read back by anybody but the app.

use crate::apps::{object, within};
use crate::{Caller, Dash, record, refuse};
use dinp_common::api::people::{EnvPatch, EnvView};
use dinp_common::model::EnvName;
use dinp_common::problem::Problem;
use dinp_common::seal::seal;
use dinp_common::store::app::{self, AppRow};
use dinp_common::store::{deployment, env, release};
use std::collections::BTreeSet;

/// Variables that the platform sets.
const PLATFORM: [&str; 5] = ["APP_NAME", "HOST_IP", "PORT", "SCRIBE_IP", "SCRIBE_PORT"];
/// Longest value, in bytes.
const MAX_VALUE: usize = 32 * 1024;
/// Most bytes of all values, sealed: they stand in the orders of a node once for each of its instances.
const MAX_TOTAL: u64 = 256 * 1024;
/// Most variables.
const MAX_COUNT: usize = 500;

fn check(patch: &EnvPatch) -> Result<(), Problem> {
    for (name, value) in &patch.set {
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
        if patch.unset.contains(name) {
            let detail = format!("the variable {name} is to be set and to be taken away; say one of both");
            return Err(refuse(&field, "invalid-value", detail));
        }
    }
    if patch.set.is_empty() && patch.unset.is_empty() {
        return Err(Problem::unprocessable("nothing-to-do", "name a variable to set or to take away"));
    }
    Ok(())
}

impl Dash {
    /// Names of an app's variables.
    pub(crate) async fn env_view(&self, row: &AppRow) -> Result<EnvView, Problem> {
        let mut conn = self.conn().await?;
        let names = env::names(&mut conn, &row.name, row.env_version).await?;
        let in_force = match row.release_id {
            Some(id) => release::by_ids(&mut conn, &[id]).await?.pop(),
            None => None,
        };
        let deployed_version = in_force.map(|release| release.env_version);
        Ok(EnvView { version: row.env_version, names, deployed_version, deployment: None })
    }

    /// Changes an app's environment as a new version, and deploys it unless told otherwise.
    pub(crate) async fn patch_env(&self, caller: &Caller, row: &AppRow, patch: &EnvPatch) -> Result<EnvView, Problem> {
        check(patch)?;
        let name = &row.name;
        let mut change = self.begin().await?;
        let row = within(&mut change, row).await?;
        let key = env::sealing_key(&mut change.tx).await?.ok_or_else(|| {
            let detail = "there is no key to seal values to yet; an operator makes one with `dinp setup`";
            Problem::unavailable("no-sealing-key", detail)
        })?;
        let present = env::names(&mut change.tx, name, row.env_version).await?;
        let after: BTreeSet<&EnvName> =
            present.iter().filter(|name| !patch.unset.contains(name)).chain(patch.set.keys()).collect();
        if after.len() > MAX_COUNT {
            let detail = format!("the app would have {} variables; at most {MAX_COUNT} are possible", after.len());
            return Err(refuse("set", "too-many", detail));
        }
        let version = row.env_version + 1;
        let changed: Vec<&EnvName> = patch.set.keys().chain(&patch.unset).collect();
        env::copy(&mut change, name, row.env_version, version, &changed).await?;
        for (variable, value) in &patch.set {
            let sealed = seal(&key.public_key, value).map_err(|error| Problem::internal(&error))?;
            env::insert(&mut change, name, version, variable, &sealed, key.id, caller.name()).await?;
        }
        if env::sealed_bytes(&mut change.tx, name, version).await? > MAX_TOTAL {
            let detail = format!("the app's environment would be too large; {MAX_TOTAL} bytes are possible in all");
            return Err(refuse("set", "too-large", detail));
        }
        app::set_env_version(&mut change, name, version).await?;
        let words: Vec<String> = patch
            .set
            .keys()
            .map(|name| format!("set {name}"))
            .chain(patch.unset.iter().map(|name| format!("unset {name}")))
            .collect();
        let words = words.join(", ");
        record(&mut change, caller, "app.env", &object(name), &words).await?;
        let row = AppRow { env_version: version, ..row };
        let note: String = format!("environment: {words}").chars().take(1000).collect();
        let deployment = match patch.deploy {
            true => self.redeploy(&mut change, caller, &row, &note).await?,
            false => None,
        };
        self.commit(change).await?;
        let view = self.env_view(&row).await?;
        let deployment = match deployment {
            Some(id) => deployment::find(&mut self.conn().await?, id).await?,
            None => None,
        };
        Ok(EnvView { deployment, ..view })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(set: &[(&str, &str)], unset: &[&str]) -> EnvPatch {
        EnvPatch {
            set: set.iter().map(|(name, value)| (name.parse().unwrap(), (*value).to_owned())).collect(),
            unset: unset.iter().map(|name| name.parse().unwrap()).collect(),
            deploy: true,
        }
    }

    #[test]
    fn what_no_environment_can_hold_is_refused_by_name() {
        assert!(check(&patch(&[("A", "1")], &["B"])).is_ok());
        for (bad, kind) in [
            (patch(&[("PORT", "1")], &[]), "name-reserved"),
            (patch(&[("A", "a\0b")], &[]), "invalid-value"),
            (patch(&[("A", &"x".repeat(MAX_VALUE + 1))], &[]), "too-large"),
            (patch(&[("A", "1")], &["A"]), "invalid-value"),
            (patch(&[], &[]), "nothing-to-do"),
        ] {
            assert_eq!(check(&bad).unwrap_err().kind, kind);
        }
    }
}
