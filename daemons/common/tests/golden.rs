//! The documents between daemons, held still: versions N and N-1 of any two components work together, so a field may be
//! added with a default and nothing else may change. Each file is what version 0.1 sends; it must be readable for
//! ever, and what is written today must say the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use dinp_common::api::agent::{Goodbye, NodeBundle, Orders, Report, ReportReply};
use dinp_common::api::control::{ClusterStatus, InstanceView, NodeView};
use dinp_common::api::hm::{HmReport, Targets};
use dinp_common::api::leader::LeaderView;
use dinp_common::api::router::{RouterBundle, RouterReply, RouterReport};
use dinp_common::routes::{AppRoutes, Change};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// Reads a golden document, writes it again, and compares: everything that was there must still be there.
fn held<T: Serialize + DeserializeOwned>(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let golden: Value = serde_json::from_str(&text).unwrap();
    let document: T = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name} cannot be read: {error}"));
    let written = serde_json::to_value(&document).unwrap();
    assert!(contains(&written, &golden), "{name} changed:\n{written:#}\nis no longer\n{golden:#}");
    // A later version may send more: that must not stop this one.
    let mut later = golden;
    later.as_object_mut().unwrap().insert("field_of_a_later_version".into(), Value::from(1));
    serde_json::from_value::<T>(later).unwrap_or_else(|error| panic!("{name} of a later version is refused: {error}"));
}

fn contains(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => {
            part.iter().all(|(key, value)| all.get(key).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(all), Value::Array(part)) => {
            all.len() == part.len() && all.iter().zip(part).all(|(all, part)| contains(all, part))
        }
        _ => all == part,
    }
}

#[test]
fn what_agents_and_servers_say() {
    held::<Orders>("orders.json");
    held::<Report>("report.json");
    held::<ReportReply>("report_reply.json");
    held::<Goodbye>("goodbye.json");
    held::<NodeBundle>("node_bundle.json");
}

#[test]
fn what_servers_say_of_who_leads() {
    held::<LeaderView>("leader_view.json");
}

#[test]
fn what_routers_and_servers_say() {
    held::<RouterReport>("router_report.json");
    held::<RouterReply>("router_reply.json");
    held::<RouterBundle>("router_bundle.json");
    held::<AppRoutes>("app_routes.json");
    held::<Change>("route_change.json");
}

#[test]
fn what_monitors_and_servers_say() {
    held::<Targets>("targets.json");
    held::<HmReport>("hm_report.json");
}

#[test]
fn what_dash_and_servers_say() {
    held::<ClusterStatus>("cluster_status.json");
    held::<InstanceView>("instance_view.json");
    held::<NodeView>("node_view.json");
}
