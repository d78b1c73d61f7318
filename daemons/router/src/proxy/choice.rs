//! The choice of an instance for one attempt.

use super::Proxy;
use super::balance::{self, Nothing, Wish};
use super::pages::Refusal;
use super::pool::is_out_of_descriptors;
use crate::config::Balance;
use crate::table::{App, Endpoint};
use dinp_common::model::{AppName, InstanceId};
use dinp_common::routes::RouteState;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// The endpoint of one attempt; as long as this lives a request is in flight to it.
pub(crate) struct Choice {
    proxy: Rc<Proxy>,
    app: Arc<App>,
    index: usize,
}

impl Choice {
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.app.endpoints[self.index]
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.endpoint().instance.end();
        self.proxy.totals.queues.ended(&self.app.name);
    }
}

/// What a request is to find an instance by.
#[derive(Clone, Copy)]
pub(crate) struct Search<'a> {
    pub(crate) host: &'a str,
    pub(crate) tried: &'a [InstanceId],
    /// It takes what others still wait for.
    pub(crate) has_waited: bool,
}

/// Why no instance was found.
pub(crate) enum NotFound {
    /// There is none.
    Refused(Refusal),
    /// All of this app have as much to do as they may, or others wait for that already.
    Busy(AppName),
}

impl From<Refusal> for NotFound {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Looks the host up and chooses an endpoint. The instance that is to be asked `again` is kept, if it is still there.
pub(crate) fn choose(
    proxy: &Rc<Proxy>,
    search: Search<'_>,
    again: Option<Choice>,
    now: Instant,
) -> Result<Choice, NotFound> {
    if !proxy.has_table.is_cancelled() {
        return Err(Refusal::NoTable.into());
    }
    let hosts = proxy.hosts.borrow();
    let app = hosts.get(search.host).ok_or(Refusal::UnknownHost)?;
    let is_there = |kept: &Choice| {
        let instance = &kept.endpoint().instance;
        !instance.is_dispossessed() && app.instances().any(|id| *id == instance.id)
    };
    if let Some(kept) = again.filter(is_there) {
        return Ok(kept);
    }
    if !search.has_waited && proxy.totals.queues.is_before(&app.name) {
        return Err(NotFound::Busy(app.name.clone()));
    }
    let limits = proxy.limits.now();
    let wish = Wish {
        balance: limits.balance,
        turn: if limits.balance == Balance::RoundRobin { app.turn() } else { 0 },
        zone: &limits.zone,
        tried: search.tried,
        most: limits.in_flight,
        now,
    };
    loop {
        match balance::choose(&app.endpoints, &wish, |below| rand::random_range(0..below)) {
            Ok(index) => {
                if app.endpoints[index].instance.begin(limits.in_flight) {
                    return Ok(Choice { proxy: proxy.clone(), app: app.clone(), index });
                }
                // Another worker was quicker: then this one is full, and not chosen again.
            }
            Err(Nothing::Free) => return Err(NotFound::Busy(app.name.clone())),
            Err(Nothing::Left) if app.state == RouteState::Stopped => return Err(Refusal::Stopped.into()),
            Err(Nothing::Left) => return Err(Refusal::NoInstances.into()),
        }
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
