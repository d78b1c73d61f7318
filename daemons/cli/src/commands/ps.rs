//! `dinp ps` and `dinp events`: what runs, and what happened.

use clap::Args;
use dinp_common::api::Page;
use dinp_common::api::control::{InstanceView, NodeCondition};
use dinp_common::api::people::{AppInstance, AppView, EventView};
use dinp_common::model::AppName;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::app;
use crate::api::Api;
use crate::error::CliError;
use crate::output::{Output, age, dash, time};

/// Apps that are asked about at the same time.
const AT_ONCE: usize = 8;

/// Arguments of `dinp ps`.
#[derive(Args, Debug)]
pub struct Ps {
    /// The app [default: all that you can see]
    app: Option<AppName>,
}

/// Arguments of `dinp events`.
#[derive(Args, Debug)]
pub struct Events {
    /// The app
    app: AppName,
}

/// Runs `dinp ps`.
pub async fn run(ps: &Ps, api: &Api, out: &Output) -> Result<(), CliError> {
    let apps = match &ps.app {
        Some(app) => vec![app.clone()],
        None => api.list::<AppView>("/v1/apps").await?.items.into_iter().map(|app| app.name).collect(),
    };
    let lists: Vec<Page<AppInstance>> =
        stream::iter(apps.iter().map(|app| instances(app, api))).buffered(AT_ONCE).try_collect().await?;
    let page = Page { items: lists.into_iter().flat_map(|page| page.items).collect(), next: None };
    if out.is_json() {
        return out.json(&page);
    }
    let empty = match &ps.app {
        Some(app) => format!("{app} has no instances; `dinp app show {app}` tells why"),
        None => "no instances".into(),
    };
    table(&page.items, &empty, out)
}

/// Instances of an app.
pub async fn instances(app: &AppName, api: &Api) -> Result<Page<AppInstance>, CliError> {
    api.list(&format!("{}/instances", app::path(app))).await
}

/// A table of instances.
pub fn table(instances: &[AppInstance], empty: &str, out: &Output) -> Result<(), CliError> {
    let row = |AppInstance { view: instance, release_number }: &AppInstance| {
        let address = match (&instance.address, instance.port) {
            (Some(address), Some(port)) => format!("{address}:{port}"),
            _ => String::new(),
        };
        let node = match instance.node_condition {
            NodeCondition::Ready => instance.node.to_string(),
            condition => format!("{} ({})", instance.node, super::node::condition(condition)),
        };
        vec![
            instance.instance.short().to_owned(),
            instance.app.to_string(),
            dash(release_number.map(|number| number.to_string()).unwrap_or_default()),
            node,
            dash(address),
            instance.state.as_str().to_owned(),
            if instance.routed { "yes" } else { "no" }.to_owned(),
            age(instance.since),
            instance.restarts.to_string(),
            why(instance),
        ]
    };
    let headers = ["INSTANCE", "APP", "RELEASE", "NODE", "ADDRESS", "STATE", "ROUTED", "SINCE", "RESTARTS", "REASON"];
    out.table(&headers, instances.iter().map(row).collect(), empty)
}

fn why(instance: &InstanceView) -> String {
    match instance.exit_code {
        Some(code) if instance.restarts > 0 && !instance.reason.contains("exit") => {
            format!("{} (last exit code {code})", instance.reason).trim_start().to_owned()
        }
        _ => instance.reason.clone(),
    }
}

/// Runs `dinp events`.
pub async fn events(events: &Events, api: &Api, out: &Output) -> Result<(), CliError> {
    let page = api.list::<EventView>(&format!("{}/events", app::path(&events.app))).await?;
    out.show(&page, || {
        let row = |event: &EventView| {
            let instance = event.instance.as_deref().unwrap_or_default();
            vec![
                time(event.at),
                event.kind.clone(),
                dash(instance.get(..8).unwrap_or(instance)),
                dash(event.node.clone().unwrap_or_default()),
                event.detail.clone(),
            ]
        };
        out.table(
            &["TIME", "EVENT", "INSTANCE", "NODE", "DETAIL"],
            page.items.iter().map(row).collect(),
            "no events yet",
        )
    })
}
