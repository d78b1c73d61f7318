//! The choice of an instance for one attempt.

use super::pages::Refusal;
use super::{Proxy, balance};
use crate::table::{Endpoint, InFlight};
use dinp_common::model::InstanceId;
use dinp_common::routes::RouteState;
use std::io;
use std::time::Instant;

/// Looks the host up and chooses an endpoint; from here on the request counts as in flight to it.
pub(crate) fn choose(
    proxy: &Proxy,
    host: &str,
    tried: &[InstanceId],
    again: Option<&InstanceId>,
    now: Instant,
) -> Result<(Endpoint, InFlight), Refusal> {
    if !proxy.has_table.is_cancelled() {
        return Err(Refusal::NoTable);
    }
    let hosts = proxy.hosts.borrow();
    let app = hosts.get(host).ok_or(Refusal::UnknownHost)?;
    let same = again.and_then(|id| app.endpoints.iter().find(|endpoint| endpoint.instance.id == *id));
    let chosen = same.or_else(|| balance::choose(&app.endpoints, tried, now, |below| rand::random_range(0..below)));
    let Some(endpoint) = chosen else {
        return Err(match app.state {
            RouteState::Stopped => Refusal::Stopped,
            RouteState::Started => Refusal::NoInstances,
        });
    };
    Ok((endpoint.clone(), InFlight::new(&endpoint.instance)))
}

/// Notes that no connection could be made.
pub(crate) fn unreachable(proxy: &Proxy, endpoint: &Endpoint, error: &io::Error) {
    // A router without descriptors or ports must not take that for the instance's fault.
    let ours = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
        || matches!(
            error.raw_os_error().map(nix::errno::Errno::from_raw),
            Some(nix::errno::Errno::EMFILE | nix::errno::Errno::ENFILE)
        );
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
