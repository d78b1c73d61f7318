//! Everybody and any server: who leads.
//!
//! * `GET /v1/leader` -> [`LeaderView`]; without a credential, for it names no more than what leads where
//!
//! A server that leads puts its epoch into [`EPOCH_HEADER`] of each answer. Of several servers that say that they lead, the
//! one with the highest epoch does: [`crate::client::ApiClient::of_servers`] follows it.

use serde::{Deserialize, Serialize};

/// Where every server answers.
pub const LEADER_PATH: &str = "/v1/leader";

/// Header of a leader's answers: its epoch, in decimal digits.
pub const EPOCH_HEADER: &str = "dinp-epoch";

/// What a server knows of who leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderView {
    /// Whether the server that answers leads, be it in holdover.
    pub leading: bool,
    /// Its epoch, or that of the leader which the lease names; 0 if neither is known.
    pub epoch: u64,
    /// URL of who leads, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    /// URLs of all servers of the cluster, as the one that answers has been told.
    #[serde(default)]
    pub servers: Vec<String>,
}
