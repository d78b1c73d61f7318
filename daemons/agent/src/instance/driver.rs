//! The task of one instance: asks its [`Life`] for the next step, does it, and tells the life what came of it.

use super::autopsy;
use super::calls::{StepError, has_image, inspect, inspect_image, is_instance, pull_image};
use super::life::Life;
use super::shell;
use super::task::{Sign, Wanted};
use super::terms::{Exit, News, Now, Observed, Step};
use crate::container::{self, Identity};
use crate::disk::DiskError;
use crate::docker::EngineError;
use crate::ended;
use crate::ledger;
use crate::probe::{Failure, FailureKind, Question};
use crate::shared::Shared;
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptions, StartContainerOptions, StopContainerOptions,
};
use dinp_common::api::agent::{EndedInstance, InstanceReport, InstanceState};
use dinp_common::error::ErrorChain;
use dinp_common::model::HealthCheck;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Grace of an instance that did not become ready.
const ABORT_GRACE: Duration = Duration::from_secs(5);

/// Exit code of what SIGKILL ends.
const KILLED: i64 = 137;

/// Pause before an end that could not be written down is written again.
const LEAVE_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Driver {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Identity,
    pub(super) port: Option<u16>,
    pub(super) memory_mb: u32,
    pub(super) cpu_millis: u32,
    /// Port inside the container.
    pub(super) inner_port: u16,
    /// Host header of probes.
    pub(super) host: String,
    pub(super) health: Option<HealthCheck>,
    /// The id of its container, once it is known.
    pub(super) container: Option<String>,
    pub(super) wanted: watch::Receiver<Wanted>,
    pub(super) sign: Arc<Sign>,
    pub(super) life: Life,
    /// The state that the journal knows.
    pub(super) logged: Option<InstanceState>,
}

impl Driver {
    /// Lives it to its end.
    pub(super) async fn run(mut self) {
        loop {
            self.take_orders();
            if let Some(reason) = self.sign.evicted()
                && let Err(error) = self.evict(&reason).await
            {
                self.trouble(&error);
            }
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
                    // The port stays in use until that is written down; the disk's fault is told by the node.
                    Err(_) => tokio::time::sleep(LEAVE_AGAIN).await,
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
        if let Wanted::Run(ordered) = &wanted {
            self.identity.renew_ticket(&ordered.spec);
        }
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
            news = self.sign.given() => { self.heed(news); true }
            () = moment => true,
        }
    }

    fn heed(&mut self, news: Option<News>) {
        match news {
            Some(News::Died(died)) => self.life.died(died, Now::read()),
            Some(News::OutOfMemory) => self.life.out_of_memory(Now::read()),
            None => self.life.nudge(),
        }
    }

    async fn perform(&mut self, step: Step) -> Result<(), StepError> {
        match step {
            Step::Look => self.look().await,
            Step::Pull => self.pull().await,
            Step::Create => self.create().await,
            Step::Start => self.start().await,
            Step::Probe => self.probe().await,
            Step::Reckon => {
                self.life.reckon(self.memory_mb, Now::read());
                Ok(())
            }
            Step::Examine => self.examine().await,
            Step::Abort => self.abort().await,
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
        self.life.observe(observed, Now::read());
        Ok(())
    }

    /// Pulls, unless the image is here; new orders interrupt it.
    async fn pull(&mut self) -> Result<(), StepError> {
        let Wanted::Run(ordered) = self.wanted.borrow().clone() else { return Ok(()) };
        let image = container::image_name(&ordered.spec);
        if !has_image(&self.shared, &image).await? {
            self.life.pulling(Now::read());
            self.publish();
            let shared = self.shared.clone();
            let pulled = async {
                // Closed never: the semaphore lives as long as the agent.
                let _turn = shared.pulls.acquire().await;
                if has_image(&shared, &image).await? {
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

    async fn create(&mut self) -> Result<(), StepError> {
        let Wanted::Run(ordered) = self.wanted.borrow().clone() else { return Ok(()) };
        let spec = &ordered.spec;
        let (instance, range) = (spec.instance.clone(), self.shared.range.clone());
        let take = move |ledger: &mut ledger::Ledger| ledger.take(&instance, &range, ledger::nobody_listens);
        let port = self.shared.ledger.change(take).await?.ok_or(StepError::NoPort)?;
        self.port = Some(port);
        let mut body = container::body(spec, self.identity.epoch, port, &self.shared.surroundings());
        // One that is missing is told by the call that needs it.
        let image = inspect_image(&self.shared, &container::image_name(spec)).await?;
        shell::let_wait(&mut body, &image.and_then(|image| image.config).unwrap_or_default());
        for name in [container::name(&spec.app, &spec.instance), container::long_name(&spec.app, &spec.instance)] {
            let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
            let body = body.clone();
            let create = self.shared.engine.call(format!("create container {name}"), |d| async move {
                d.create_container(Some(options), body).await
            });
            match create.await {
                Ok(made) => {
                    self.container = Some(made.id);
                    self.life.created();
                    return Ok(());
                }
                Err(error) if error.is_conflict() => {
                    if is_instance(&self.shared, &name, &self.identity.instance).await? {
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

    async fn start(&mut self) -> Result<(), StepError> {
        self.shared.filter.check().await?;
        let name = self.container();
        if self.life.starting(Now::read()) {
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
        let question = Question {
            address: &shared.bundle.address,
            port,
            inner: self.inner_port,
            host: &self.host,
            check: self.health.as_ref(),
        };
        tokio::select! {
            result = question.ask(&shared.probes) => self.life.probed(result, Now::read()),
            news = self.sign.given() => self.heed(news),
            _ = orders.changed() => {}
        }
        Ok(())
    }

    /// Finds out why it ended.
    async fn examine(&mut self) -> Result<(), StepError> {
        let Some(exit) = self.life.unexplained() else { return Ok(()) };
        // Engines on some machines do not tell that it was for memory.
        let killed = exit.code == KILLED && !exit.is_unwatched && self.shared.kills.are_recent();
        let exit = Exit { out_of_memory: exit.out_of_memory || killed, ..exit.clone() };
        let instance = &self.identity.instance;
        let findings = autopsy::examine(&self.shared, &self.container(), instance, &exit, self.memory_mb).await;
        self.life.examined(findings, Now::read());
        Ok(())
    }

    /// Stops it because it did not become ready.
    async fn abort(&mut self) -> Result<(), StepError> {
        let failure = self.life.probe_failure().filter(|failure| failure.kind == FailureKind::NoListener);
        let found = match failure {
            None => None,
            Some(Failure { reason, .. }) => {
                let instead = autopsy::listens_instead(&self.shared, &self.container(), self.inner_port).await;
                instead.map(|instead| format!("{reason}: {instead}"))
            }
        };
        self.life.aborting(found);
        self.stop(ABORT_GRACE).await
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

    /// Removes the container; what it wrote is kept for a while.
    async fn remove(&mut self) -> Result<(), StepError> {
        let Identity { instance, app, release, ticket, .. } = self.identity.clone();
        let exit_code = self.life.shown().exit_code;
        let ended = EndedInstance { instance, app, release, at: Now::read().millis, exit_code, ticket };
        ended::keep(&self.shared, &self.container(), ended).await;
        self.remove_container().await?;
        self.life.observe(Observed::Absent, Now::read());
        Ok(())
    }

    /// At once and without grace: it writes as long as it runs.
    async fn evict(&mut self, reason: &str) -> Result<(), StepError> {
        let Identity { app, instance, .. } = &self.identity;
        tracing::warn!(%app, %instance, reason, "an instance harms this node and is stopped");
        metrics::counter!("dinp_agent_evictions_total").increment(1);
        self.remove_container().await?;
        self.life.evicted(reason, Now::read());
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

    /// Keeps across a restart of the agent what has become of it so far.
    async fn remember(&self) {
        let instance = self.identity.instance.clone();
        let now = self.life.to_remember();
        if self.shared.memory.read(|memory| memory.get(&instance) == now.as_ref()) {
            return;
        }
        let changed = self.shared.memory.change(move |memory| match now {
            Some(now) => memory.insert(instance, now),
            None => memory.remove(&instance),
        });
        if let Err(error) = changed.await {
            tracing::debug!(error = %ErrorChain(&error), "what has become of an instance cannot be remembered");
        }
    }

    /// Tells what a report says of it, and the journal what has changed.
    pub(super) fn publish(&mut self) {
        let shown = self.life.shown().clone();
        if self.logged != Some(shown.state) {
            let Identity { app, instance, .. } = &self.identity;
            let reason = Some(&*shown.reason).filter(|reason| !reason.is_empty());
            tracing::info!(%app, %instance, state = shown.state.as_str(), reason, "instance changed");
            self.logged = Some(shown.state);
        }
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
            ticket: self.identity.ticket.clone(),
            proved: self.life.is_proved(),
            failures: shown.failures,
            node_fault: shown.node_fault,
            output: shown.output,
            last_failure: shown.last_failure,
            failed_start: shown.failed_start,
            out_of_memory: shown.out_of_memory,
            oom_kills: shown.oom_kills,
            over_disk_mb: None,
            // The board knows them.
            limits: Default::default(),
        });
    }
}
