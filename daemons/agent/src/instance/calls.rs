//! What the tasks of instances ask of the engine.

use super::terms::{Exit, Observed};
use crate::container::{self, INSTANCE};
use crate::disk::DiskError;
use crate::docker::{EngineError, failed};
use crate::filter::NotInForce;
use crate::shared::Shared;
use bollard::auth::DockerCredentials;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, ImageInspect};
use bollard::query_parameters::{CreateImageOptions, InspectContainerOptions, ListContainersOptions};
use dinp_common::api::agent::RegistryAccess;
use dinp_common::model::InstanceId;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A pull that shows no progress for so long has failed.
const PULL_SILENCE: Duration = Duration::from_secs(60);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The ledger cannot be written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Nothing may be started.
    #[error(transparent)]
    Filter(#[from] NotInForce),
    /// All ports are taken.
    #[error("no port of the range is free on this node")]
    NoPort,
    /// Both names are taken.
    #[error("container name {0} is taken by a container that is not of this cluster")]
    NameTaken(String),
    /// A pull took too long.
    #[error("{0}")]
    Pull(String),
}

/// What the engine says of a container.
pub async fn inspect(shared: &Shared, container: &str) -> Result<Observed, EngineError> {
    let since = shared.engine_since.load(Ordering::Relaxed);
    Ok(inspect_raw(shared, container).await?.map_or(Observed::Absent, |found| observed(found, since)))
}

/// All that the engine says of a container; none if there is no such container.
pub async fn inspect_raw(shared: &Shared, container: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
    let inspect = shared.engine.call(format!("inspect container {container}"), |d| async move {
        d.inspect_container(container, None::<InspectContainerOptions>).await
    });
    match inspect.await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The container of an instance, running or not.
pub async fn container_of(shared: &Shared, instance: &InstanceId) -> Result<Option<String>, EngineError> {
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![format!("{INSTANCE}={instance}")])])),
        ..ListContainersOptions::default()
    };
    let list = shared.engine.call("list containers", |d| async move { d.list_containers(Some(options)).await }).await?;
    Ok(list.into_iter().find_map(|summary| summary.id))
}

/// `since`: from when on the engine has been watched, in nanoseconds since 1970.
fn observed(found: ContainerInspectResponse, since: i64) -> Observed {
    let state = found.state.unwrap_or_default();
    if state.running == Some(true) {
        return Observed::Up(state.started_at.unwrap_or_default());
    }
    if state.status == Some(ContainerStateStatusEnum::CREATED) {
        return Observed::Down(None);
    }
    let finished = state.finished_at.and_then(|at| at.parse::<jiff::Timestamp>().ok());
    Observed::Down(Some(Exit {
        code: state.exit_code.unwrap_or_default(),
        out_of_memory: state.oom_killed == Some(true),
        error: state.error.unwrap_or_default(),
        is_unwatched: finished.is_some_and(|at| at.as_nanosecond() < i128::from(since)),
    }))
}

/// Pulls an image, with the account of its registry.
pub async fn pull_image(shared: &Shared, image: &str, registry: Option<&RegistryAccess>) -> Result<(), StepError> {
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

/// Whether the image is in the engine.
pub async fn has_image(shared: &Shared, image: &str) -> Result<bool, EngineError> {
    Ok(inspect_image(shared, image).await?.is_some())
}

/// What the engine says of an image; none if it has no such image.
pub async fn inspect_image(shared: &Shared, image: &str) -> Result<Option<ImageInspect>, EngineError> {
    match shared.engine.call(format!("inspect image {image}"), |d| async move { d.inspect_image(image).await }).await {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the container of that name is the instance's.
pub async fn is_instance(shared: &Shared, name: &str, instance: &InstanceId) -> Result<bool, EngineError> {
    let found = inspect_raw(shared, name).await?;
    let labels = found.and_then(|found| found.config?.labels).unwrap_or_default();
    let known = container::recognise(&labels, &shared.bundle.cluster);
    Ok(known.is_some_and(|(identity, _)| identity.instance == *instance))
}
