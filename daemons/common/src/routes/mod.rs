//! The route table in Redis: what the leader publishes and routers read.
//!
//! Three keys per cluster:
//!
//! * hash `dinp:<cluster>:apps`, app -> [`AppRoutes`] in JSON,
//! * hash `dinp:<cluster>:head` with `epoch`, `seq`, `complete`: the table's version, and whether the hash is whole; and
//!   with `holder` and `proof` (who published it, proved), `revision` and `revision_proof` ([`ProvedRevision`]),
//! * stream `dinp:<cluster>:log` with ids `<epoch>-<seq>` and the fields `prev` and `changes`
//!   ([`Change`]s in JSON). Redis refuses an id that is not higher than the last: that is the fence against a
//!   leader of the past.
//!
//! A reader whose version is not an entry's `prev` has missed something and reads the whole table again. No head,
//! an incomplete or a lower one mean "keep the table you have".

mod publisher;
mod reader;

pub use publisher::{Publisher, difference};
pub use reader::{Entry, Reader, Snapshot, apply};

use crate::api::ProvedRevision;
use crate::credentials::Secret;
use crate::model::{AppName, InstanceId, Version};
use redis::{IntoConnectionInfo, RedisError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How routers reach an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRoutes {
    /// The app.
    pub app: AppName,
    /// Whether it is meant to run; one that is stopped stays in the table with no endpoint (503, not 404).
    pub state: RouteState,
    /// Host names that it answers to, in lower case; the platform's own comes first.
    pub domains: Vec<String>,
    /// What the app asks of routers.
    #[serde(default)]
    pub options: RouteOptions,
    /// Where to send.
    pub endpoints: Vec<Endpoint>,
}

/// Whether an app is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// It is.
    Started,
    /// It was stopped by a person.
    Stopped,
}

/// What an app asks of routers. Grows with the router; absent fields are the router's defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteOptions {}

/// One instance that routers may send to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The instance: an address without it could be anybody's.
    pub instance: InstanceId,
    /// Id of its release.
    pub release: u64,
    /// `address:port`, the address being the node's registered one.
    pub addr: String,
    /// Zone of its node, or empty.
    #[serde(default)]
    pub zone: String,
    /// Share of the app's requests relative to the other endpoints; 0 sends nothing new.
    pub weight: u32,
    /// Whether to try it last.
    pub state: EndpointState,
}

/// How sure the leader is of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It serves.
    Ready,
    /// Its node is silent: tried after all others.
    Suspect,
}

/// One app's new routes, or its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The app.
    pub app: AppName,
    /// Its routes; none when the app was deleted.
    pub routes: Option<AppRoutes>,
}

/// The whole table.
pub type Table = BTreeMap<AppName, AppRoutes>;

/// What stands in the head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Version of the table.
    pub version: Version,
    /// Whether the hash of apps is whole.
    pub complete: bool,
    /// Who published it.
    pub signature: Signature,
}

/// Who publishes, and from what: it goes into the head with each table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Who leads in the table's epoch.
    pub holder: String,
    /// Proof that the servers gave this epoch to this holder.
    pub proof: String,
    /// The highest revision of desired state that was carried out.
    pub highest_revision: ProvedRevision,
}

/// Failure to read or write the table.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// Redis could not be reached or refused.
    #[error("{act} in Redis")]
    Redis {
        /// What was tried.
        act: &'static str,
        /// The driver's error.
        #[source]
        source: RedisError,
    },
    /// The address of Redis cannot be used.
    #[error("use the Redis address \"{url}\"")]
    Address {
        /// The address.
        url: String,
        /// Why not.
        #[source]
        source: RedisError,
    },
    /// Somebody has published a higher version: this leader's time is over, or Redis remembers another life.
    #[error("publish routes: Redis already holds version {highest}")]
    Fenced {
        /// The highest version in Redis.
        highest: Version,
        /// The head that Redis holds; only its signature proves that a server has published in its epoch.
        head: Option<Box<Head>>,
    },
    /// Redis did not answer in time.
    #[error("use Redis: no answer within {millis} ms")]
    Timeout {
        /// How long it was waited for.
        millis: u64,
    },
    /// Redis does not hold the whole table that the changes apply to.
    #[error("publish routes: Redis does not hold the table that they follow")]
    Gap,
    /// A record cannot be understood.
    #[error("read the routes of \"{key}\" in Redis")]
    Corrupt {
        /// Which record.
        key: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl RouteError {
    fn doing(act: &'static str) -> impl Fn(RedisError) -> RouteError {
        move |source| RouteError::Redis { act, source }
    }
}

/// Names of the keys of one cluster.
#[derive(Debug, Clone)]
struct Keys {
    apps: String,
    head: String,
    log: String,
}

impl Keys {
    fn new(cluster: &str) -> Self {
        Self {
            apps: format!("dinp:{cluster}:apps"),
            head: format!("dinp:{cluster}:head"),
            log: format!("dinp:{cluster}:log"),
        }
    }
}

/// A client for the account; does not connect yet.
fn client(url: &str, user: &str, password: &Secret) -> Result<redis::Client, RouteError> {
    let wrong = |source| RouteError::Address { url: url.to_owned(), source };
    let info = url.into_connection_info().map_err(wrong)?;
    let settings = info.redis_settings().clone().set_username(user).set_password(password.expose());
    redis::Client::open(info.set_redis_settings(settings)).map_err(wrong)
}

fn parse_head(fields: &std::collections::HashMap<String, String>) -> Option<Head> {
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
    let highest_revision = ProvedRevision { number: number("revision").unwrap_or(0), proof: text("revision_proof") };
    Some(Head {
        version: Version::new(number("epoch")?, number("seq")?),
        complete: text("complete") == "1",
        signature: Signature { holder: text("holder"), proof: text("proof"), highest_revision },
    })
}
