//! Environments of apps, as people see and change them. Values are sealed and can be read by nobody but the app.

use super::people::DeploymentView;
use crate::model::EnvName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Names of an app's environment variables. Values are sealed and can be read by nobody but the app.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EnvView {
    /// Version that the next release takes, and the next change starts from.
    pub version: u32,
    /// Names.
    pub names: Vec<EnvName>,
    /// Version that the release in force has; another one means "changed, not deployed".
    #[serde(default)]
    pub deployed_version: Option<u32>,
    /// A newer version that is not in force; in the answer to a change: the one that the change has left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<EnvLeftOut>,
    /// The deployment that carries the change, where one was asked for.
    #[serde(default)]
    pub deployment: Option<DeploymentView>,
}

/// The newest version of an environment, where a release has brought it that is neither in force nor on its way. Nothing
/// takes it along unless a person says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvLeftOut {
    /// The version.
    pub version: u32,
    /// Number of the release that brought it.
    pub release: u32,
    /// Whether that release has never come up.
    pub failed: bool,
    /// Variables that it sets or changes.
    #[serde(default)]
    pub set: Vec<EnvName>,
    /// Variables that it takes away.
    #[serde(default)]
    pub unset: Vec<EnvName>,
}

/// What is to change in an app's environment.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvChange {
    /// Variables to set.
    #[serde(default)]
    pub set: BTreeMap<EnvName, String>,
    /// Variables to take away.
    #[serde(default)]
    pub unset: Vec<EnvName>,
    /// Whether to start from the newest version even where it is not in force ([`EnvView::left_out`]).
    #[serde(default)]
    pub keep: bool,
}

impl EnvChange {
    /// Whether it asks for nothing.
    pub fn is_nothing(&self) -> bool {
        self.set.is_empty() && self.unset.is_empty() && !self.keep
    }
}

// Values may be secrets: nothing prints them.
impl std::fmt::Debug for EnvChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&EnvName> = self.set.keys().collect();
        f.debug_struct("EnvChange").field("set", &names).field("unset", &self.unset).field("keep", &self.keep).finish()
    }
}

/// A change of an app's environment by itself.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvPatch {
    /// Variables to set.
    #[serde(default)]
    pub set: BTreeMap<EnvName, String>,
    /// Variables to take away.
    #[serde(default)]
    pub unset: Vec<EnvName>,
    /// Whether to start from the newest version even where it is not in force ([`EnvView::left_out`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub keep: bool,
    /// Whether to deploy the change at once (by default yes); an app without a release has nothing to deploy.
    #[serde(default = "yes")]
    pub deploy: bool,
}

impl EnvPatch {
    /// What it changes.
    pub fn change(&self) -> EnvChange {
        EnvChange { set: self.set.clone(), unset: self.unset.clone(), keep: self.keep }
    }
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_no_debug_output() {
        let change: EnvChange = serde_json::from_str(r#"{"set": {"A": "s3cret"}}"#).unwrap();
        assert_eq!(format!("{change:?}"), r#"EnvChange { set: [EnvName("A")], unset: [], keep: false }"#);
    }
}
