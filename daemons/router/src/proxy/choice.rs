//! The choice of an instance for one attempt.

use super::pages::Refusal;
use super::pool::is_out_of_descriptors;
use super::{Proxy, balance};
use crate::table::{App, Endpoint};
use dinp_common::model::InstanceId;
use dinp_common::routes::RouteState;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// The endpoint of one attempt; as long as this lives a request is in flight to it.
pub(crate) struct Choice {
    app: Arc<App>,
    index: usize,
}

impl Choice {
    fn new(app: Arc<App>, index: usize) -> Self {
        app.endpoints[index].instance.begin();
        Self { app, index }
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.app.endpoints[self.index]
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.endpoint().instance.end();
    }
}

/// Looks the host up and chooses an endpoint. `again` is the instance that is asked once more, if it is still there.
pub(crate) fn choose(
    proxy: &Proxy,
    host: &str,
    tried: &[InstanceId],
    again: Option<&InstanceId>,
    now: Instant,
) -> Result<Choice, Refusal> {
    if !proxy.has_table.is_cancelled() {
        return Err(Refusal::NoTable);
    }
    let hosts = proxy.hosts.borrow();
    let app = hosts.get(host).ok_or(Refusal::UnknownHost)?;
    let is_same = |one: &Endpoint, id: &InstanceId| one.instance.id == *id && !one.instance.is_dispossessed();
    let same = again.and_then(|id| app.endpoints.iter().position(|endpoint| is_same(endpoint, id)));
    let zone = &proxy.limits.now().zone;
    let random = |below| rand::random_range(0..below);
    let chosen = same.or_else(|| balance::choose(&app.endpoints, zone, tried, now, random));
    match (chosen, app.state) {
        (Some(index), _) => Ok(Choice::new(app.clone(), index)),
        (None, RouteState::Stopped) => Err(Refusal::Stopped),
        (None, RouteState::Started) => Err(Refusal::NoInstances),
    }
}

/// Notes that no connection could be made.
pub(crate) fn unreachable(proxy: &Proxy, endpoint: &Endpoint, error: &io::Error) {
    // A router without descriptors or ports must not take that for the instance's fault.
    let ours = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
        || is_out_of_descriptors(error);
    if ours {
        tracing::error!(%error, "connections to instances cannot be made: {error}");
        return;
    }
    endpoint.instance.refused(Instant::now());
    // One that is slow to take new connections still has its old ones.
    if error.kind() != io::ErrorKind::TimedOut {
        proxy.pool.close(&endpoint.instance.id);
    }
    let (app, instance) = (&endpoint.stats.app, &endpoint.instance.id);
    tracing::debug!(%app, %instance, address = ?endpoint.address, %error, "no connection to an instance");
}
