//! The task of one instance: asks its [`Life`] for the next step, does it, and tells the life what came of it.

use super::life::{Exit, Goal, Life, Now, Observed, Step};
use crate::container::{self, Identity, Settings};
use crate::disk::DiskError;
use crate::docker::{EngineError, failed};
use crate::ledger;
use crate::probe::probe;
use crate::shared::{Remembered, Shared};
use bollard::auth::DockerCredentials;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, InspectContainerOptions, RemoveContainerOptions, StartContainerOptions,
    StopContainerOptions,
};
use dinp_common::api::agent::{InstanceReport, InstanceSpec, RegistryAccess, StopOrder};
use dinp_common::error::ErrorChain;
use dinp_common::model::InstanceId;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Grace of an instance that was not ready in time.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// A pull that shows no progress for so long has failed.
const PULL_SILENCE: Duration = Duration::from_secs(60);

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
    fn goal(&self) -> Goal {
        match self {
            Self::Undecided { .. } => Goal::Undecided,
            Self::Run(ordered) => Goal::Run { can_create: ordered.env_known },
            Self::Unnamed => Goal::Unnamed,
            Self::Stop(_) => Goal::Stop,
        }
    }

    fn claimed(&self) -> bool {
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

/// A running [`Driver`].
#[derive(Debug)]
pub struct Task {
    wanted: watch::Sender<Wanted>,
    nudge: Arc<Notify>,
    abort: AbortHandle,
}

impl Task {
    /// The orders in force say this now.
    pub fn set(&self, wanted: Wanted) {
        self.wanted.send_if_modified(|now| {
            let differs = *now != wanted;
            *now = wanted;
            differs
        });
    }

    /// Something may have happened to the container.
    pub fn nudge(&self) {
        self.nudge.notify_one();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// See the module.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    identity: Identity,
    port: Option<u16>,
    memory_mb: u32,
    cpu_millis: u32,
    health: Option<dinp_common::model::HealthCheck>,
    container: Option<String>,
    wanted: watch::Receiver<Wanted>,
    nudge: Arc<Notify>,
    life: Life,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("no port of the range is free on this node")]
    NoPort,
    #[error("container name {0} is taken by a container that is not of this cluster")]
    NameTaken(String),
    #[error("{0}")]
    Pull(String),
}

impl Driver {
    /// Begins the task of an instance that was ordered and has no container.
    pub fn ordered(shared: &Arc<Shared>, ordered: Arc<Ordered>, ended: impl FnOnce(InstanceId) + Send + 'static) -> Task {
        let spec = &ordered.spec;
        let identity = Identity {
            instance: spec.instance.clone(),
            app: spec.app.clone(),
            release: spec.release,
            epoch: ordered.epoch,
        };
        let start_timeout = Duration::from_secs(spec.start_timeout_secs.into());
        let driver = Parts {
            port: None,
            memory_mb: spec.resources.memory_mb,
            cpu_millis: spec.resources.cpu_millis,
            health: spec.health.clone(),
            container: None,
            life: Life::ordered(start_timeout, spec.health.clone(), Now::read()),
            identity,
        };
        driver.spawn(shared, Wanted::Run(ordered), ended)
    }

    /// Begins the task of an instance whose container was found.
    pub async fn found(
        shared: &Arc<Shared>,
        found: Found,
        wanted: Wanted,
        ended: impl FnOnce(InstanceId) + Send + 'static,
    ) -> Result<Task, EngineError> {
        let observed = inspect(shared, &found.container).await?;
        let Found { container, identity, settings } = found;
        let remembered = shared.memory.read(|memory| memory.get(&identity.instance).cloned());
        let life = Life::found(
            Duration::from_secs(settings.start_timeout_secs.into()),
            settings.health.clone(),
            observed,
            remembered.as_ref().map(|remembered| remembered.started_at.as_str()),
            remembered.as_ref().map_or(0, |remembered| remembered.restarts),
            Now::read(),
        );
        let driver = Parts {
            port: Some(settings.port),
            memory_mb: settings.memory_mb,
            cpu_millis: settings.cpu_millis,
            health: settings.health,
            container: Some(container),
            life,
            identity,
        };
        Ok(driver.spawn(shared, wanted, ended))
    }

    async fn run(mut self) {
        loop {
            self.take_orders();
            self.publish();
            self.remember().await;
            match self.life.step(Instant::now()) {
                Step::Wait(until) => {
                    if !self.wait(until).await {
                        return;
                    }
                }
                Step::Gone => match self.leave().await {
                    Ok(()) => return,
                    Err(error) => self.trouble(&error.into()),
                },
                step => {
                    if let Err(error) = self.perform(step).await {
                        self.trouble(&error);
                    }
                }
            }
        }
    }

    fn take_orders(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        let reason = match &wanted {
            Wanted::Stop(order) => order.reason.as_str(),
            _ => "",
        };
        self.life.set_goal(wanted.goal(), reason, Now::read());
    }

    /// Waits for the moment, new orders or a sign of the engine; false when nobody is left to give orders.
    async fn wait(&mut self, until: Option<Instant>) -> bool {
        let moment = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.wanted.changed() => changed.is_ok(),
            () = self.nudge.notified() => { self.life.nudge(); true }
            () = moment => true,
        }
    }

    async fn perform(&mut self, step: Step) -> Result<(), StepError> {
        match step {
            Step::Look => self.look().await,
            Step::Pull => self.pull().await,
            Step::Create => self.create().await,
            Step::Start => self.start().await,
            Step::Probe => self.probe().await,
            Step::Abort => {
                self.life.aborting();
                self.stop(ABORT_GRACE).await
            }
            Step::End => {
                let grace = match &*self.wanted.borrow() {
                    Wanted::Stop(order) => Duration::from_secs(order.grace_secs.into()),
                    _ => return Ok(()),
                };
                tracing::info!(app = %self.identity.app, instance = %self.identity.instance, reason = self.life.shown().reason, "stopping an instance");
                self.stop(grace).await
            }
            Step::Remove => self.remove().await,
            Step::Wait(_) | Step::Gone => Ok(()),
        }
    }

    /// The name that the engine knows the container by.
    fn container(&self) -> String {
        self.container.clone().unwrap_or_else(|| container::name(&self.identity.app, &self.identity.instance))
    }

    async fn look(&mut self) -> Result<(), StepError> {
        let observed = inspect(&self.shared, &self.container()).await?;
        self.observe(observed);
        Ok(())
    }

    fn observe(&mut self, observed: Observed) {
        let before = self.life.shown().state;
        self.life.observe(observed, Now::read());
        let shown = self.life.shown();
        if shown.state != before {
            let Identity { app, instance, .. } = &self.identity;
            tracing::info!(%app, %instance, state = shown.state.as_str(), reason = shown.reason, "instance changed");
        }
    }

    /// Pulls, unless the image is here; new orders interrupt it.
    async fn pull(&mut self) -> Result<(), StepError> {
        let Wanted::Run(ordered) = self.wanted.borrow().clone() else { return Ok(()) };
        let image = container::image_name(&ordered.spec);
        if !self.has_image(&image).await? {
            self.life.pulling(Now::read());
            self.publish();
            let shared = self.shared.clone();
            let pulled = async {
                // Closed never: the semaphore lives as long as the agent.
                let _turn = shared.pulls.acquire().await;
                if self.has_image(&image).await? {
                    return Ok(());
                }
                pull_image(&shared, &image, ordered.registry.as_ref()).await
            };
            let mut orders = self.wanted.clone();
            tokio::select! {
                result = pulled => result?,
                _ = orders.changed() => return Ok(()),
            }
        }
        self.life.pulled();
        Ok(())
    }

    async fn has_image(&self, image: &str) -> Result<bool, EngineError> {
        let look = self.shared.engine.call(format!("inspect image {image}"), |d| async move { d.inspect_image(image).await });
        match look.await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&mut self) -> Result<(), StepError> {
        let Wanted::Run(ordered) = self.wanted.borrow().clone() else { return Ok(()) };
        let spec = &ordered.spec;
        let (instance, range) = (spec.instance.clone(), self.shared.range.clone());
        let take = move |ledger: &mut ledger::Ledger| ledger.take(&instance, &range, ledger::nobody_listens);
        let port = self.shared.ledger.change(take).await?.ok_or(StepError::NoPort)?;
        self.port = Some(port);
        let body = container::body(spec, self.identity.epoch, port, &self.shared.surroundings());
        for name in [container::name(&spec.app, &spec.instance), container::long_name(&spec.app, &spec.instance)] {
            let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
            let body = body.clone();
            let create = self
                .shared
                .engine
                .call(format!("create container {name}"), |d| async move { d.create_container(Some(options), body).await });
            match create.await {
                Ok(made) => {
                    self.container = Some(made.id);
                    self.life.created();
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {
                    if self.is_ours(&name).await? {
                        // Made by a call whose answer was lost, or by the agent before this one.
                        self.container = Some(name);
                        self.life.created();
                        self.life.nudge();
                        return Ok(());
                    }
                }
                Err(error) => {
                    if error.is_not_found() {
                        self.life.image_is_missing();
                    }
                    return Err(error.into());
                }
            }
        }
        Err(StepError::NameTaken(container::name(&spec.app, &spec.instance)))
    }

    /// Whether the container of that name is this instance's.
    async fn is_ours(&self, name: &str) -> Result<bool, EngineError> {
        let found = inspect_raw(&self.shared, name).await?;
        let labels = found.and_then(|found| found.config?.labels).unwrap_or_default();
        let known = container::recognise(&labels, &self.shared.bundle.cluster);
        Ok(known.is_some_and(|(identity, _)| identity.instance == self.identity.instance))
    }

    async fn start(&mut self) -> Result<(), StepError> {
        let name = self.container();
        if self.life.starting() {
            tracing::info!(app = %self.identity.app, instance = %self.identity.instance, "starting an instance again");
            metrics::counter!("dinp_agent_restarts_total").increment(1);
        }
        let start = self.shared.engine.call_within(
            self.shared.engine.limit() * 3,
            format!("start container {name}"),
            |d| async move { d.start_container(&name, None::<StartContainerOptions>).await },
        );
        match start.await {
            Err(error) if error.is_port_taken() => self.change_port(&error).await,
            Err(error) if error.is_of_the_engine() => Err(error.into()),
            Err(error) if error.is_not_found() => self.look().await,
            Err(EngineError::Refused { status: 304, .. }) | Ok(()) => self.look().await,
            Err(error) => {
                self.life.not_started(&ErrorChain(&error).to_string(), Now::read());
                Ok(())
            }
        }
    }

    /// Somebody else took the port: the container is made anew with another one.
    async fn change_port(&mut self, error: &EngineError) -> Result<(), StepError> {
        let reason = format!("port {} is taken by another program", self.port.unwrap_or_default());
        tracing::warn!(error = %ErrorChain(error), instance = %self.identity.instance, "port is taken, another one is chosen");
        if !matches!(&*self.wanted.borrow(), Wanted::Run(ordered) if ordered.env_known) {
            // It could not be made anew.
            self.life.not_started(&reason, Now::read());
            return Ok(());
        }
        self.remove_container().await?;
        let instance = self.identity.instance.clone();
        let now = Now::read().millis;
        self.shared.ledger.change(move |ledger| ledger.give_back(&instance, now)).await?;
        self.port = None;
        self.life.discarded();
        self.life.not_prepared(&reason, Now::read());
        Ok(())
    }

    /// Asks once; new orders and signs of the engine interrupt it.
    async fn probe(&mut self) -> Result<(), StepError> {
        let Some(port) = self.port else { return Ok(()) };
        let shared = self.shared.clone();
        let mut orders = self.wanted.clone();
        tokio::select! {
            result = probe(&shared.probes, &shared.bundle.address, port, self.health.as_ref()) => {
                self.life.probed(result, Now::read());
            }
            () = self.nudge.notified() => self.life.nudge(),
            _ = orders.changed() => {}
        }
        Ok(())
    }

    async fn stop(&mut self, grace: Duration) -> Result<(), StepError> {
        let name = self.container();
        let secs = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let options = StopContainerOptions { t: Some(secs), ..StopContainerOptions::default() };
        let limit = grace + self.shared.engine.limit() * 2;
        let stop = self.shared.engine.call_within(limit, format!("stop container {name}"), |d| async move {
            d.stop_container(&name, Some(options)).await
        });
        match stop.await {
            // 304: it had ended before.
            Ok(()) | Err(EngineError::Refused { status: 304 | 404, .. }) => self.look().await,
            Err(error) => Err(error.into()),
        }
    }

    async fn remove(&mut self) -> Result<(), StepError> {
        self.remove_container().await?;
        self.observe(Observed::Absent);
        Ok(())
    }

    async fn remove_container(&self) -> Result<(), StepError> {
        let name = self.container();
        let options = RemoveContainerOptions { v: true, force: true, ..RemoveContainerOptions::default() };
        let limit = self.shared.engine.limit() * 3;
        let remove = self.shared.engine.call_within(limit, format!("remove container {name}"), |d| async move {
            d.remove_container(&name, Some(options)).await
        });
        match remove.await {
            Ok(()) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The port is held before the report says that the instance is gone.
    async fn leave(&mut self) -> Result<(), DiskError> {
        let instance = self.identity.instance.clone();
        self.shared.ledger.change(move |ledger| ledger.hold(&instance)).await?;
        let instance = self.identity.instance.clone();
        self.shared.memory.change(move |memory| memory.remove(&instance)).await?;
        tracing::info!(app = %self.identity.app, instance = %self.identity.instance, "instance is gone");
        self.shared.board.gone(&self.identity.instance);
        Ok(())
    }

    fn trouble(&mut self, error: &StepError) {
        let (reason, now) = (ErrorChain(error).to_string(), Now::read());
        let Identity { app, instance, .. } = &self.identity;
        tracing::warn!(%app, %instance, error = reason, "a step failed, it is tried again: {reason}");
        match error {
            StepError::Engine(error) if error.is_of_the_engine() => self.life.engine_failed(&reason, now),
            StepError::Engine(error) if error.is_conflict() => self.life.engine_failed(&reason, now),
            _ => self.life.not_prepared(&reason, now),
        }
    }

    /// Keeps across a restart of the agent that the instance is ready.
    async fn remember(&self) {
        let instance = self.identity.instance.clone();
        let restarts = self.life.shown().restarts;
        let now = self.life.ready_start().map(|start| Remembered { started_at: start.to_owned(), restarts });
        if self.shared.memory.read(|memory| memory.get(&instance) == now.as_ref()) {
            return;
        }
        let changed = self.shared.memory.change(move |memory| match now {
            Some(now) => memory.insert(instance, now),
            None => memory.remove(&instance),
        });
        if let Err(error) = changed.await {
            tracing::warn!(error = %ErrorChain(&error), "what is ready cannot be remembered");
        }
    }

    fn publish(&self) {
        let shown = self.life.shown().clone();
        self.shared.board.put(InstanceReport {
            instance: self.identity.instance.clone(),
            app: self.identity.app.clone(),
            release: self.identity.release,
            epoch: self.identity.epoch,
            state: shown.state,
            port: self.port,
            memory_mb: self.memory_mb,
            cpu_millis: self.cpu_millis,
            since: shown.since,
            restarts: shown.restarts,
            exit_code: shown.exit_code,
            reason: shown.reason,
            claimed: self.wanted.borrow().claimed(),
        });
    }
}

/// A driver before it runs.
struct Parts {
    identity: Identity,
    port: Option<u16>,
    memory_mb: u32,
    cpu_millis: u32,
    health: Option<dinp_common::model::HealthCheck>,
    container: Option<String>,
    life: Life,
}

impl Parts {
    fn spawn(self, shared: &Arc<Shared>, wanted: Wanted, ended: impl FnOnce(InstanceId) + Send + 'static) -> Task {
        let (wanted, orders) = watch::channel(wanted);
        let nudge = Arc::new(Notify::new());
        let Parts { identity, port, memory_mb, cpu_millis, health, container, life } = self;
        let instance = identity.instance.clone();
        let driver = Driver {
            shared: shared.clone(),
            identity,
            port,
            memory_mb,
            cpu_millis,
            health,
            container,
            wanted: orders,
            nudge: nudge.clone(),
            life,
        };
        // The first report of an instance is there before the task has its turn.
        driver.publish();
        let task = tokio::spawn(async move {
            driver.run().await;
            ended(instance);
        });
        Task { wanted, nudge, abort: task.abort_handle() }
    }
}

async fn inspect(shared: &Shared, container: &str) -> Result<Observed, EngineError> {
    Ok(inspect_raw(shared, container).await?.map_or(Observed::Absent, observed))
}

async fn inspect_raw(shared: &Shared, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let inspect = shared.engine.call(format!("inspect container {container}"), |d| async move {
        d.inspect_container(container, None::<InspectContainerOptions>).await
    });
    match inspect.await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn observed(found: ContainerInspectResponse) -> Observed {
    let state = found.state.unwrap_or_default();
    if state.running == Some(true) {
        return Observed::Up(state.started_at.unwrap_or_default());
    }
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return Observed::Down(None);
    }
    Observed::Down(Some(Exit {
        code: state.exit_code.unwrap_or_default(),
        out_of_memory: state.oom_killed == Some(true),
        error: state.error.unwrap_or_default(),
    }))
}

async fn pull_image(shared: &Shared, image: &str, registry: Option<&RegistryAccess>) -> Result<(), StepError> {
    let act = format!("pull image {image}");
    let account = registry.filter(|access| image.starts_with(&format!("{}/", access.address)));
    let credentials = account.map(|access| DockerCredentials {
        username: Some(access.username.clone()),
        password: Some(access.password.clone()),
        serveraddress: Some(access.address.clone()),
        ..DockerCredentials::default()
    });
    tracing::info!(image, "pulling an image");
    let begin = Instant::now();
    let docker = shared.engine.docker().await?;
    let options = CreateImageOptions { from_image: Some(image.to_owned()), ..CreateImageOptions::default() };
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, credentials));
    let limit = Duration::from_secs(shared.config.pull_timeout_secs);
    loop {
        match tokio::time::timeout(PULL_SILENCE, progress.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(_))) if begin.elapsed() < limit => {}
            Ok(Some(Ok(_))) => return Err(StepError::Pull(format!("{act}: not done after {} s", limit.as_secs()))),
            Ok(Some(Err(error))) => return Err(failed(act, error).into()),
            Err(_) => return Err(StepError::Pull(format!("{act}: no progress for {} s", PULL_SILENCE.as_secs()))),
        }
    }
    tracing::info!(image, millis = begin.elapsed().as_millis(), "image pulled");
    Ok(())
}
