//! What everybody asks any server. See [`dinp_common::api::leader`].
//!
//! * `GET /v1/leader`: nobody's credential; it asks neither the database nor the driver

use super::Api;
use crate::leader::{Leader, Leadership};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use dinp_common::api::leader::{LEADER_PATH, LeaderView};
use dinp_common::problem::ApiJson;

pub fn router() -> Router<Api> {
    Router::new().route(LEADER_PATH, get(leader))
}

async fn leader(State(api): State<Api>) -> ApiJson<LeaderView> {
    let leadership = api.leadership.borrow().clone();
    let (leading, leader) = match leadership {
        Leadership::Leading { epoch, .. } | Leadership::Holdover { epoch } => {
            (true, Some(Leader { url: api.url.to_string(), epoch }))
        }
        Leadership::Standby { leader } => (false, leader),
    };
    ApiJson(LeaderView {
        leading,
        epoch: leader.as_ref().map_or(0, |leader| leader.epoch),
        leader: leader.map(|leader| leader.url),
        servers: api.servers.iter().map(ToString::to_string).collect(),
    })
}
