//! Health monitor and server.
//!
//! * `GET /v1/hm/targets?have=<version>&wait_secs=20` -> [`Targets`], or 204
//! * `POST /v1/hm/report` [`HmReport`] -> 204, every 2 s and at once after a change
//!
//! Authorization: a service credential of role hm.

use super::UnixMillis;
use crate::model::{AppName, HealthCheck, InstanceId};
use serde::{Deserialize, Serialize};

/// What to probe: instances of apps with a health check that have been ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// Version of the list, opaque.
    pub version: String,
    /// The list.
    pub targets: Vec<Target>,
}

/// One instance to probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its identity.
    pub instance: InstanceId,
    /// Its app.
    pub app: AppName,
    /// Host part of its address.
    pub address: String,
    /// Port of its address.
    pub port: u16,
    /// Value of the Host header.
    pub host: String,
    /// How to ask.
    pub check: HealthCheck,
    /// Seconds from one probe to the next while nothing is wrong, where that is longer than the check says: the agent asks
    /// as often as the check says, and the monitor only for what the network alone shows. From the first failure on the
    /// check's own interval counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest_secs: Option<u32>,
}

/// All that a monitor finds unfit now. An instance that is not named is fit or not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HmReport {
    /// Name of the monitor.
    pub monitor: String,
    /// Version of the targets that it probes.
    pub targets: String,
    /// Instances whose check has failed as often in a row as the threshold says.
    pub unfit: Vec<Unfit>,
}

/// An instance that does not answer as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    /// The instance.
    pub instance: InstanceId,
    /// Since when.
    pub since: UnixMillis,
    /// What the last probe saw, for people.
    pub detail: String,
}
