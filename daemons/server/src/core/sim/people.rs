//! What people do in the modelled cluster.

use super::world::{World, app};
use crate::core::{DesiredApp, DesiredDeployment};
use dinp_common::api::people::DeploymentState;
use dinp_common::model::{ReleaseSpec, Resources, Timing};
use std::collections::BTreeMap;

impl World {
    pub fn create_app(&mut self, name: &str, instances: u32) {
        let wanted = DesiredApp {
            name: app(name),
            started: true,
            deleted: false,
            instances,
            release: None,
            domains: Vec::new(),
            releases: BTreeMap::new(),
            deployment: None,
            older_deployments: Vec::new(),
        };
        self.database.apps.insert(app(name), wanted);
        self.commit();
    }

    /// Begins a deployment; ids of deployments are those of releases.
    pub fn deploy(&mut self, name: &str, release: u64, memory_mb: u32) {
        let wanted = self.database.apps.get_mut(&app(name)).unwrap();
        let spec = ReleaseSpec {
            id: release,
            number: u32::try_from(release).unwrap(),
            image: format!("registry.example:5000/{name}:v{release}").parse().unwrap(),
            command: None,
            resources: Resources { memory_mb, cpu_millis: 100, cpu_limit_millis: None },
            health: None,
            timing: Timing::default(),
            env_version: 0,
        };
        wanted.releases.insert(release, spec);
        if let Some(before) = wanted.deployment.take() {
            wanted.older_deployments.push(before.id);
        }
        let state = DeploymentState::Pending;
        wanted.deployment = Some(DesiredDeployment { id: release, release, cancel: false, state, previous: None });
        self.note(|| format!("deploy {name} {release}"));
        self.commit();
    }

    pub fn change(&mut self, name: &str, how: impl FnOnce(&mut DesiredApp)) {
        how(self.database.apps.get_mut(&app(name)).unwrap());
        self.note(|| format!("change {name}"));
        self.commit();
    }

    /// An app that runs: release 1, so many instances.
    pub fn with_app(mut self, name: &str, instances: u32, memory_mb: u32) -> Self {
        self.create_app(name, instances);
        self.deploy(name, 1, memory_mb);
        self.until(30_000, "the app is deployed", |world| world.database.apps[&app(name)].deployment.is_none());
        self
    }
}
