//! The handle of an instance's task, and what it is told.

use super::calls::inspect;
use super::driver::Driver;
use super::fitness::Rules;
use super::life::Life;
use super::terms::{Goal, News, Now};
use crate::container::{Identity, Settings};
use crate::docker::EngineError;
use crate::shared::Shared;
use dinp_common::api::agent::{InstanceSpec, InstanceState, RegistryAccess, StopOrder};
use dinp_common::lifecycle::contained;
use dinp_common::model::{HealthCheck, InstanceId};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Pause after a panic in an instance's task, before it is begun again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// An instance to run, with all that its container needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// The order.
    pub spec: InstanceSpec,
    /// Epoch of the orders.
    pub epoch: u64,
    /// Whether the environment in `spec` is the whole one.
    pub env_known: bool,
    /// Account for pulling its image.
    pub registry: Option<RegistryAccess>,
}

/// What the orders in force say about an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No orders have been read since the agent started; those before did name it, or not.
    Undecided {
        /// Whether they did.
        claimed: bool,
    },
    /// Run it.
    Run(Arc<Ordered>),
    /// Nothing.
    Unnamed,
    /// Stop it.
    Stop(StopOrder),
}

impl Wanted {
    pub(super) fn goal(&self) -> Goal {
        match self {
            Self::Undecided { .. } => Goal::Undecided,
            Self::Run(ordered) => Goal::Run { can_create: ordered.env_known },
            Self::Unnamed => Goal::Unnamed,
            Self::Stop(_) => Goal::Stop,
        }
    }

    pub(super) fn claimed(&self) -> bool {
        match self {
            Self::Undecided { claimed } => *claimed,
            Self::Run(_) | Self::Stop(_) => true,
            Self::Unnamed => false,
        }
    }
}

/// A container of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub container: String,
    /// Which instance it is.
    pub identity: Identity,
    /// What it was made with.
    pub settings: Settings,
}

/// The handle of a running [`Driver`]; the task ends when it is dropped, the container runs on.
#[derive(Debug)]
pub struct Task {
    wanted: watch::Sender<Wanted>,
    sign: Arc<Sign>,
    abort: AbortHandle,
}

/// A sign of the engine that something happened to a container.
#[derive(Debug, Default)]
pub struct Sign {
    given: Notify,
    news: Mutex<Option<News>>,
    evicted: Mutex<Option<String>>,
}

impl Sign {
    fn give(&self, news: Option<News>) {
        let mut kept = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        // An end says more than all before it, and than what comes before anybody has heeded it.
        if !matches!(*kept, Some(News::Died(_))) || matches!(news, Some(News::Died(_))) {
            *kept = news.or(*kept);
        }
        drop(kept);
        self.given.notify_one();
    }

    fn evict(&self, reason: String) {
        *self.evicted.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.given.notify_one();
    }

    /// Why the instance is to be stopped, once.
    pub fn evicted(&self) -> Option<String> {
        self.evicted.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until one is given. None is lost: one that nobody waited for is there at once.
    pub async fn given(&self) -> Option<News> {
        self.given.notified().await;
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Task {
    /// Begins the task of an instance that was ordered and has no container.
    pub fn ordered(
        shared: &Arc<Shared>,
        ordered: Arc<Ordered>,
        ended: impl FnOnce(InstanceId) + Send + 'static,
    ) -> Self {
        let shared = shared.clone();
        let order = ordered.clone();
        let make = move |wanted, sign| {
            let spec = &order.spec;
            let rules = rules(spec.start_timeout_secs, spec.min_healthy_secs, spec.health.clone());
            Driver {
                shared,
                identity: Identity {
                    instance: spec.instance.clone(),
                    app: spec.app.clone(),
                    release: spec.release,
                    epoch: order.epoch,
                    ticket: spec.ticket.clone(),
                },
                port: None,
                memory_mb: spec.resources.memory_mb,
                cpu_millis: spec.resources.cpu_millis,
                inner_port: spec.port,
                host: spec.host.clone(),
                health: spec.health.clone(),
                container: None,
                wanted,
                sign,
                life: Life::ordered(rules, Now::read()),
                // That it was ordered has been logged.
                logged: Some(InstanceState::Accepted),
            }
        };
        Self::begin(Wanted::Run(ordered), make, ended)
    }

    /// Begins the task of an instance whose container was found.
    pub async fn found(
        shared: &Arc<Shared>,
        found: Found,
        wanted: Wanted,
        ended: impl FnOnce(InstanceId) + Send + 'static,
    ) -> Result<Self, EngineError> {
        let observed = inspect(shared, &found.container).await?;
        let shared = shared.clone();
        let make = move |wanted, sign| {
            let Found { container, identity, settings } = found;
            let remembered = shared.memory.read(|memory| memory.get(&identity.instance).cloned());
            let min_healthy = settings.min_healthy_secs.unwrap_or_default();
            let rules = rules(settings.start_timeout_secs, min_healthy, settings.health.clone());
            let life = Life::found(rules, observed, remembered.as_ref(), Now::read());
            Driver {
                shared,
                identity,
                port: Some(settings.port),
                memory_mb: settings.memory_mb,
                cpu_millis: settings.cpu_millis,
                inner_port: settings.container_port,
                host: settings.host,
                health: settings.health,
                container: Some(container),
                wanted,
                sign,
                life,
                logged: None,
            }
        };
        Ok(Self::begin(wanted, make, ended))
    }

    fn begin(
        wanted: Wanted,
        make: impl FnOnce(watch::Receiver<Wanted>, Arc<Sign>) -> Driver,
        ended: impl FnOnce(InstanceId) + Send + 'static,
    ) -> Self {
        let (wanted, orders) = watch::channel(wanted);
        let sign = Arc::new(Sign::default());
        let mut driver = make(orders, sign.clone());
        // The first report of an instance is there before the task has its turn.
        driver.publish();
        let task = tokio::spawn(async move {
            let instance = driver.identity.instance.clone();
            if !contained(&format!("the task of instance {instance}"), driver.run()).await {
                // Not at once again: what it met is still there.
                tokio::time::sleep(AFTER_PANIC).await;
            }
            ended(instance);
        });
        Self { wanted, sign, abort: task.abort_handle() }
    }

    /// The orders in force say this now.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }

    /// The instance harms the node: its container goes, with all that it has written.
    pub fn evict(&self, reason: String) {
        self.sign.evict(reason);
    }

    /// Something happened to the container, perhaps its end.
    pub fn nudge(&self, news: Option<News>) {
        self.sign.give(news);
    }
}

fn rules(start_timeout_secs: u32, min_healthy_secs: u32, check: Option<HealthCheck>) -> Rules {
    let secs = |secs: u32| Duration::from_secs(secs.into());
    Rules { start_timeout: secs(start_timeout_secs), min_healthy: secs(min_healthy_secs), check }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}
