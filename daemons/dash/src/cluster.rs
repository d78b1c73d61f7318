//! What only the leader knows: instances, nodes, routers, status.

use crate::backend::{LIMIT, SERVER, problem};
use crate::{Caller, Dash};
use axum::response::Response;
use dinp_common::api::Page;
use dinp_common::api::agent::InstanceState;
use dinp_common::api::control::{ClusterStatus, InstanceView, LogQuery, NodeView};
use dinp_common::api::people::AppInstance;
use dinp_common::model::AppName;
use dinp_common::problem::Problem;
use dinp_common::store::app::AppRow;
use dinp_common::store::audit::{self, AuditEvent};
use dinp_common::store::release;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for what a page can do without.
const GLANCE: Duration = Duration::from_millis(1500);
/// Most pages of a list that are read.
const MAX_PAGES: usize = 50;

impl Dash {
    /// All entries of one of the leader's lists; `path` has a query already.
    async fn whole_list<T: serde::de::DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<Vec<T>, Problem> {
        let mut items = Vec::new();
        let mut after = String::new();
        for _ in 0..MAX_PAGES {
            let page: Page<T> = self.ask_server(&format!("{path}&limit=1000{after}"), limit).await?;
            items.extend(page.items);
            let Some(next) = page.next else { break };
            let next: String = url::form_urlencoded::byte_serialize(next.as_bytes()).collect();
            after = format!("&after={next}");
        }
        Ok(items)
    }

    /// The instances of an app.
    pub(crate) async fn instances(&self, app: &AppName) -> Result<Vec<InstanceView>, Problem> {
        self.whole_list(&format!("/v1/instances?app={app}"), LIMIT).await
    }

    /// The instances of an app, with the numbers of their releases.
    pub(crate) async fn numbered_instances(&self, app: &AppName) -> Result<Vec<AppInstance>, Problem> {
        let views = self.instances(app).await?;
        let ids: BTreeSet<u64> = views.iter().map(|view| view.release).collect();
        let ids: Vec<u64> = ids.into_iter().collect();
        let releases = release::by_ids(&mut self.conn().await?, &ids).await?;
        let number = |id| releases.iter().find(|release| release.id == id).map(|release| release.number);
        Ok(views.into_iter().map(|view| AppInstance { release_number: number(view.release), view }).collect())
    }

    /// How many instances of each app serve; none if the leader does not say so at once.
    pub(crate) async fn ready_counts(&self, app: Option<&AppName>) -> Option<HashMap<String, u32>> {
        let path = app.map_or("/v1/instances?".to_owned(), |app| format!("/v1/instances?app={app}"));
        let instances: Vec<InstanceView> = self.whole_list(&path, GLANCE).await.ok()?;
        let mut counts = HashMap::new();
        for instance in instances.iter().filter(|instance| instance.state == InstanceState::Ready) {
            *counts.entry(instance.app.to_string()).or_insert(0) += 1;
        }
        Some(counts)
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeView>, Problem> {
        self.whole_list("/v1/nodes?", LIMIT).await
    }

    /// How the cluster is, for the line at the top of each page.
    pub(crate) async fn glance(&self) -> Result<ClusterStatus, Problem> {
        self.ask_server("/v1/status", GLANCE).await
    }

    /// How the cluster is.
    pub(crate) async fn status(&self) -> Result<ClusterStatus, Problem> {
        self.ask_server("/v1/status", LIMIT).await
    }

    /// Asks the leader to remove something, and writes down who did.
    pub(crate) async fn remove_at_server(
        &self,
        caller: &Caller,
        path: &str,
        action: &str,
        object: &str,
    ) -> Result<(), Problem> {
        self.server.delete::<()>(path, LIMIT).await.map_err(|error| problem(error, &SERVER))?;
        self.record_done(caller, action, object).await;
        Ok(())
    }

    /// Writes down what another daemon has done for the caller. It is done: a failure to write is logged, and no answer.
    pub(crate) async fn record_done(&self, caller: &Caller, action: &str, object: &str) {
        let event = AuditEvent { actor: caller.name(), address: &caller.address, action, object, detail: "" };
        let written = async {
            let mut conn = self.conn().await?;
            audit::write(&mut conn, &event).await.map_err(Problem::from)
        };
        if let Err(problem) = written.await {
            tracing::error!(actor = caller.name(), action, object, %problem, "audit event not written");
        }
    }

    /// The output of an app's instances, as the leader has it.
    pub(crate) async fn app_log(
        self: &Arc<Self>,
        caller: &Caller,
        app: &AppRow,
        query: &LogQuery,
    ) -> Result<Response, Problem> {
        let share = self.log_reader(caller)?;
        let end = self.clone().until_hidden(caller.clone(), app.name.clone());
        self.stream_server(&Self::log_path(app, query), share, end).await
    }

    fn log_path(app: &AppRow, query: &LogQuery) -> String {
        let (name, since) = (&app.name, app.created_at);
        let mut path = format!("/v1/apps/{name}/logs?follow={}&since={since}", query.follow);
        if query.previous {
            path.push_str("&previous=true");
        }
        if let Some(instance) = &query.instance {
            path.push_str(&format!("&instance={instance}"));
        }
        if let Some(tail) = query.tail {
            path.push_str(&format!("&tail={}", tail.min(10_000)));
        }
        path
    }
}
