//! Router and server.
//!
//! * `POST /v1/router/report` [`RouterReport`] -> [`RouterReply`], each second and after every change
//! * `POST /v1/router/goodbye` [`RouterGoodbye`] -> 204
//!
//! Authorization: a service credential of role router; its name is the router's name. The same [`RouterReport`] is what
//! the router's own status listener answers to `GET /v1/status`, so that the leader can read it.

use crate::model::{InstanceId, Version};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a router has and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouterReport {
    /// The router's name.
    pub router: String,
    /// Version of its program.
    pub version: String,
    /// URL of its status listener.
    pub status_url: String,
    /// The table in force in every worker.
    pub applied: Version,
    /// Requests in flight to instances that are no longer in the table; one that is not named has none.
    #[serde(default)]
    pub in_flight: BTreeMap<InstanceId, u64>,
    /// Counters since the router's start, of the releases that have answered something since the last report that was
    /// taken.
    #[serde(default)]
    pub counters: Vec<ReleaseCounters>,
}

/// Answers of one release of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseCounters {
    /// The app.
    pub app: String,
    /// Id of the release.
    pub release: u64,
    /// Answers by first digit of the status, from 1xx to 5xx.
    pub answers: [u64; 5],
    /// Attempts that got no answer.
    pub failed: u64,
    /// Time from a request's way to the app until its answer began, of all answers together, in microseconds.
    #[serde(default)]
    pub micros: u64,
}

/// Answer to a router's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterReply {
    /// Epoch of the leader.
    pub epoch: u64,
    /// The table that the leader has published last.
    pub published: Version,
}

/// A router that stops on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterGoodbye {
    /// Its name.
    pub router: String,
}

/// What `dinp setup router-bundle` prints and a router host is set up with.
#[derive(Clone, Serialize, Deserialize)]
pub struct RouterBundle {
    /// Name of the cluster: the prefix of its keys in Redis.
    pub cluster: String,
    /// The router's name.
    pub router: String,
    /// Address of the router's host as the leader reaches it.
    pub address: String,
    /// Domain of the apps.
    pub domain: String,
    /// URLs of the servers.
    pub servers: Vec<String>,
    /// URL of Redis, without an account.
    pub redis_url: String,
    /// Password of the Redis account `dinp_router`.
    pub redis_password: String,
    /// The router's service credential.
    pub secret: String,
}
