//! Which app gets the requests of a host.

use super::{App, Host, Hosts};
use dinp_common::model::AppName;
use std::collections::HashMap;
use std::sync::Arc;

/// Hosts with the apps that name them. The first by name gets a host that several name.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// The app that gets a host.
    winners: Hosts,
    /// All apps that name it, sorted by name, where there are several.
    contested: HashMap<Host, Vec<Arc<App>>>,
}

impl Claims {
    /// The app that a host belongs to.
    pub(super) fn winner(&self, host: &str) -> Option<&Arc<App>> {
        self.winners.get(host)
    }

    /// The host as it is kept already, so that its text is not kept twice.
    pub(super) fn host(&self, key: &str) -> Host {
        self.winners.get_key_value(key).map_or_else(|| key.into(), |(host, _)| host.clone())
    }

    /// Notes that an app names a host.
    pub(super) fn add(&mut self, host: &Host, app: &Arc<App>) {
        let Some(winner) = self.winners.get(host) else {
            self.winners.insert(host.clone(), app.clone());
            return;
        };
        let all = self.contested.entry(host.clone()).or_insert_with(|| vec![winner.clone()]);
        all.push(app.clone());
        all.sort_by(|one, other| one.name.cmp(&other.name));
        let names: Vec<&str> = all.iter().map(|app| app.name.as_str()).collect();
        tracing::warn!(host = &**host, apps = ?names, "host {host} is claimed by several apps, the first gets it");
        self.winners.insert(host.clone(), all[0].clone());
    }

    /// Notes that an app names a host no more.
    pub(super) fn remove(&mut self, host: &Host, name: &AppName) {
        let Some(all) = self.contested.get_mut(host) else {
            self.winners.remove(host);
            return;
        };
        all.retain(|app| app.name != *name);
        if let Some(first) = all.first() {
            self.winners.insert(host.clone(), first.clone());
        }
        if all.len() < 2 {
            self.contested.remove(host);
        }
    }
}
