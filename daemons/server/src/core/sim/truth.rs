//! What is true in the modelled cluster, whatever the leader thinks.

use super::world::{World, shorten};
use dinp_common::api::agent::InstanceState;
use dinp_common::model::{InstanceId, NodeName};
use std::collections::BTreeSet;

impl World {
    /// Instances of an app that serve, with node and release.
    pub fn serving(&self, name: &str) -> Vec<(InstanceId, NodeName, u64)> {
        let mut serving = Vec::new();
        for (node, agent) in &self.agents {
            let here = agent.containers.iter().filter(|(id, one)| one.app.as_str() == name && agent.is_serving(id));
            serving.extend(here.map(|(id, one)| (id.clone(), node.clone(), one.release)));
        }
        serving
    }

    /// All containers of an app.
    pub fn containers(&self, name: &str) -> Vec<(InstanceId, NodeName, InstanceState)> {
        let all = self.agents.iter().flat_map(|(node, agent)| agent.containers.iter().map(move |one| (node, one)));
        let of_app = all.filter(|(_, (_, one))| one.app.as_str() == name);
        of_app.map(|(node, (id, one))| (id.clone(), node.clone(), one.state)).collect()
    }

    pub fn per_node(&self, name: &str) -> Vec<usize> {
        let on = |node: &NodeName| self.serving(name).iter().filter(|(_, at, _)| at == node).count();
        self.agents.keys().map(on).collect()
    }

    /// Instances that the table in Redis names for an app.
    pub fn routed(&self, name: &str) -> BTreeSet<InstanceId> {
        let table = self.redis.as_ref().and_then(|(_, table)| table.get(name));
        table.into_iter().flat_map(|routes| &routes.endpoints).map(|one| one.instance.clone()).collect()
    }

    pub fn picture(&self) -> String {
        let tail = self.trace.len().saturating_sub(120);
        let mut text = self.trace[tail..].join("\n");
        text += &format!("\nnow {} status {:?}\n", self.now, self.leader.reign.status());
        for (name, agent) in &self.agents {
            text += &format!("{name} up {} cut off {} seen {:?}\n", agent.up, agent.cut_off, agent.seen);
            for (id, one) in &agent.containers {
                text += &format!("  {} {} r{} {:?} port {}\n", id.short(), one.app, one.release, one.state, one.port);
            }
        }
        for (name, router) in &self.routers {
            text += &format!(
                "{name} up {} cut off {:?} applied {} {:?}\n",
                router.up,
                router.cut_off_since,
                router.applied,
                shorten(&router.table)
            );
        }
        for (name, app) in &self.database.apps {
            text += &format!(
                "{name} {}x r{:?} started {} deleted {} {:?}\n",
                app.instances, app.release, app.started, app.deleted, app.deployment
            );
        }
        for one in self.leader.reign.instances(None) {
            text += &format!(
                "  known {} {} r{} {} {:?} routed {} {:?}\n",
                one.instance.short(),
                one.app,
                one.release,
                one.node,
                one.state,
                one.routed,
                one.node_condition
            );
        }
        text
    }
}
