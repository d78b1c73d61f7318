//! What the API shows of the core.

use super::fleet::{Condition, Instance, Node};
use super::{Reign, Status, Tick};
use dinp_common::api::UnixMillis;
use dinp_common::api::agent::{InstanceState, NodeFault, NodeFaultKind, Registered};
use dinp_common::api::control::{InstanceView, NodeCondition, NodeView, RouterView, StrangerView, UpkeepView};
use dinp_common::api::hm::{Target, Targets};
use dinp_common::model::{AppName, NodeName, Version};
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Time from one probe of a monitor to the next while an instance's agent finds nothing wrong.
const REST_SECS: u32 = 30;

impl Reign {
    /// How the cluster is.
    pub fn status(&self) -> Status {
        let desired = self.desired.as_deref();
        let nodes = || desired.into_iter().flat_map(|desired| desired.nodes.keys());
        let ready = nodes().filter(|name| self.fleet.condition(name) == Condition::Ready).count();
        let apps = || desired.into_iter().flat_map(|desired| desired.apps.values());
        let serving = self.fleet.instances().filter(|one| {
            one.is_wanted()
                && one.state() == InstanceState::Ready
                && self.fleet.node(&one.node).is_some_and(|node| node.is_heard())
        });
        Status {
            epoch: self.leader.epoch,
            holdover: self.permission.holds_over(),
            settled: self.permission.is_settled(),
            frozen: self.permission.frozen(),
            revision: desired.map_or(0, |desired| desired.revision),
            routes: self.table.published().map_or(Version::ZERO, |(version, _)| version),
            nodes_ready: count(ready),
            nodes_missing: count(nodes().count() - ready),
            instances_ready: count(serving.count()),
            instances_wanted: apps().map(|app| self.count(app)).sum(),
            problems: self.problems(),
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.desired.is_none() {
            problems.push("desired state has not been read yet".to_owned());
        }
        if !self.permission.is_settled() && !self.permission.waits_for().is_empty() {
            let names: Vec<&str> = self.permission.waits_for().iter().map(|name| name.as_str()).collect();
            problems.push(format!("waiting for nodes to accept this leader: {}", names.join(", ")));
        }
        for (name, node) in self.fleet.nodes() {
            let faults = self.faults_of(node).into_iter();
            problems.extend(faults.map(|fault| format!("node {name}: {} ({})", fault.detail, fault.kind.as_str())));
        }
        for (name, count) in self.strangers.per_node() {
            problems.push(format!("node {name}: {count} instances without a valid ticket, which are not routed"));
        }
        problems.extend(self.refusals.iter().map(|(app, text)| format!("app {app}: {text}")));
        if let (Some((version, at)), Some(now)) = (self.table.published(), self.decided_at)
            && now.saturating_sub(at) >= self.settings.router_read_ms
        {
            let lagging = self.lagging(version, now);
            problems.extend(lagging.iter().map(|name| format!("router {name} has not taken table {version} over")));
        }
        let desired = self.desired.as_deref();
        for app in desired.into_iter().flat_map(|desired| desired.apps.values()) {
            let is_idle = app.release.is_none() && app.deployment.is_none() && self.count(app) > 0;
            if is_idle && self.fleet.has_any_of(&app.name) {
                problems.push(format!("app {}: instances run, and no release is in force", app.name));
            }
        }
        let orphans = self.orphans.iter().len();
        if orphans > 0 {
            problems.push(format!("{orphans} orphans: instances whose app has no row"));
        }
        problems
    }

    /// What images are needed for, and why none may be deleted now: what is not known may be needed.
    pub fn upkeep(&self) -> UpkeepView {
        let waits_for = if self.desired.is_none() {
            Some("desired state has not been read yet".to_owned())
        } else if let Some(frozen) = self.permission.frozen() {
            Some(frozen)
        } else if !self.permission.is_settled() {
            Some("the leader has not heard of all nodes yet".to_owned())
        } else if self.orphans.iter().len() > 0 || !self.strangers.views().is_empty() {
            Some("there are instances that no row knows (`dinp orphan ls`, `dinp ticket ls`)".to_owned())
        } else {
            None
        };
        let releases: BTreeSet<u64> = self.fleet.instances().map(|one| one.release).collect();
        UpkeepView { waits_for, releases: releases.into_iter().collect() }
    }

    /// Instances of all apps, or of one.
    pub fn instances(&self, app: Option<&AppName>) -> Vec<InstanceView> {
        let all = self.fleet.instances();
        all.filter(|one| app.is_none_or(|app| *app == one.app)).map(|one| self.instance_view(one)).collect()
    }

    /// Instances that nodes name without a ticket that proves them.
    pub fn strangers(&self) -> Vec<StrangerView> {
        self.strangers.views()
    }

    /// Instances whose app has no row at all.
    pub fn orphans(&self) -> Vec<InstanceView> {
        let all = self.orphans.iter().filter_map(|id| self.fleet.get(id));
        all.map(|one| self.instance_view(one)).collect()
    }

    fn instance_view(&self, one: &Instance) -> InstanceView {
        let report = one.report.as_ref();
        InstanceView {
            instance: one.id.clone(),
            app: one.app.clone(),
            release: one.release,
            node: one.node.clone(),
            address: self.address(&one.node).map(str::to_owned),
            port: one.port(),
            state: if one.is_ending() { InstanceState::Stopping } else { one.state() },
            routed: self.table.holds(&one.id),
            since: report.map_or_else(|| self.wall(one.known_since), |report| report.since),
            restarts: report.map_or(0, |report| report.restarts),
            exit_code: report.and_then(|report| report.exit_code),
            reason: report.map_or_else(String::new, |report| report.reason.clone()),
            node_condition: self.node_condition(&one.node),
        }
    }

    /// All nodes that desired state or reports name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let desired = self.desired.as_deref();
        let view = |(name, node): (&NodeName, &Node)| {
            let wanted = desired.and_then(|desired| desired.nodes.get(name));
            NodeView {
                name: name.clone(),
                address: wanted.map_or_else(String::new, |wanted| wanted.address.clone()),
                zone: wanted.map_or_else(String::new, |wanted| wanted.zone.clone()),
                condition: self.node_condition(name),
                cordoned: wanted.is_some_and(|wanted| wanted.cordoned),
                last_report: node.last_report,
                capacity: self.bookable(name, node),
                registered: wanted.map_or_else(Registered::default, |wanted| wanted.registered),
                booked: self.fleet.booked(name),
                instances: count(self.fleet.of_node(name).count()),
                agent_version: node.agent_version.clone(),
                docker_error: node.docker_error.clone(),
                faults: self.faults_of(node),
            }
        };
        self.fleet.nodes().map(view).collect()
    }

    /// What is wrong with a node itself: what it says, and what it does not do.
    fn faults_of(&self, node: &Node) -> Vec<NodeFault> {
        let is_deaf = self.decided_at.is_some_and(|now| self.is_deaf(node, now)) && node.is_heard();
        let deaf = is_deaf
            .then(|| NodeFault { kind: NodeFaultKind::Deaf, detail: "it reports, and accepts no orders".to_owned() });
        node.faults.iter().cloned().chain(deaf).collect()
    }

    fn node_condition(&self, name: &NodeName) -> NodeCondition {
        match self.fleet.node(name).map(|node| (node.condition, node.docker_error.is_some())) {
            Some((Condition::Ready, true)) => NodeCondition::DockerDown,
            Some((Condition::Ready, false)) => NodeCondition::Ready,
            Some((Condition::Suspect | Condition::Restarting, _)) => NodeCondition::Suspect,
            Some((Condition::Lost, _)) => NodeCondition::Lost,
            Some((Condition::Unknown, _)) | None => NodeCondition::Unknown,
        }
    }

    /// All routers that are not forgotten.
    pub fn routers(&self) -> Vec<RouterView> {
        let now = self.decided_at.unwrap_or(self.leader.since);
        let all = self.routers.all.iter();
        all.map(|(name, router)| RouterView {
            name: name.clone(),
            status_url: router.status_url.clone(),
            version: router.version.clone(),
            applied: router.applied,
            last_seen: router.last_heard.map(|at| self.wall(at)),
            live: router.is_live(now, self.settings.router_timeout_ms),
        })
        .collect()
    }

    /// What health monitors are to probe: instances of apps with a check that have been ready.
    pub fn targets(&self) -> Targets {
        let mut targets = Vec::new();
        let desired = self.desired.as_deref();
        for app in desired.into_iter().flat_map(|desired| desired.apps.values()).filter(|app| self.count(app) > 0) {
            for one in self.fleet.of_app(&app.name).filter(|one| one.was_ready && one.is_wanted()) {
                let check = app.releases.get(&one.release).and_then(|release| release.health.clone());
                if let (Some(check), Some(port), Some(address)) = (check, one.port(), self.address(&one.node)) {
                    targets.push(Target {
                        instance: one.id.clone(),
                        app: app.name.clone(),
                        address: address.to_owned(),
                        port,
                        host: format!("{}.{}", app.name, self.settings.domain),
                        check,
                        rest_secs: self.is_at_rest(one).then_some(REST_SECS),
                    });
                }
            }
        }
        let mut hasher = DefaultHasher::new();
        serde_json::to_vec(&targets).expect("targets have no failing serializer").hash(&mut hasher);
        Targets { version: format!("{:016x}", hasher.finish()), targets }
    }

    /// Whether its agent asks it, and finds nothing wrong: one prober is enough then.
    fn is_at_rest(&self, one: &Instance) -> bool {
        one.state() == InstanceState::Ready && self.fleet.node(&one.node).is_some_and(Node::is_heard)
    }

    fn address(&self, node: &NodeName) -> Option<&str> {
        self.desired.as_deref()?.nodes.get(node).map(|node| node.address.as_str())
    }

    fn wall(&self, at: Tick) -> UnixMillis {
        self.wall_offset.saturating_add(UnixMillis::try_from(at).unwrap_or(UnixMillis::MAX))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
