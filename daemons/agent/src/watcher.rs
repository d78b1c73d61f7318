//! Watches the Docker Engine: its events wake the instances' tasks, its list of containers is read at the
//! beginning, after every loss of the event stream and once a minute. An engine that does not answer a
//! ping in time is reported as such.

use crate::container::{CLUSTER, INSTANCE, recognise};
use crate::docker::{EngineError, Traits, failed};
use crate::instance::{Died, Found, News};
use crate::network::{self, NetworkError};
use crate::node::Message;
use crate::shared::Shared;
use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use dinp_common::error::ErrorChain;
use dinp_common::lifecycle::{Condition, Heartbeat};
use futures_util::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;

/// Time from one ping to the next.
const PING: Duration = Duration::from_secs(5);

/// Time from one list to the next while events come.
const LIST: Duration = Duration::from_secs(60);

/// Longest pause between two attempts to reach the engine.
const RETRY: Duration = Duration::from_secs(2);

const EVENTS: &str = "read the events of the docker engine";

/// Watches for ever.
pub async fn watch(shared: Arc<Shared>, node: mpsc::Sender<Message>, condition: Condition, heartbeat: Heartbeat) {
    let mut pause = Duration::from_millis(100);
    loop {
        heartbeat.beat();
        shared.engine.forget();
        let mut answered = false;
        if let Err(error) = session(&shared, &node, &condition, &heartbeat, &mut answered).await {
            tell(&shared, &condition, Some(ErrorChain(&error).to_string()));
        }
        pause = if answered { Duration::from_millis(100) } else { (pause * 2).min(RETRY) };
        tokio::time::sleep(pause).await;
    }
}

fn tell(shared: &Shared, condition: &Condition, error: Option<String>) {
    match &error {
        None => condition.ok(),
        Some(error) => condition.missing(error),
    }
    shared.board.set_docker_error(error);
}

/// From connecting until the engine is lost.
async fn session(
    shared: &Arc<Shared>,
    node: &mpsc::Sender<Message>,
    condition: &Condition,
    heartbeat: &Heartbeat,
    answered: &mut bool,
) -> Result<(), EngineError> {
    let info = shared.engine.call("ask the docker engine about itself", |d| async move { d.info().await }).await?;
    shared.set_traits(Traits::of(&info, &std::fs::read_to_string("/proc/self/mounts").unwrap_or_default()));
    if info.live_restore_enabled != Some(true) {
        tracing::warn!("live-restore is off: a restart of the docker engine ends all instances");
    }
    let mut network = ensure_network(shared).await;

    // Asked for before the list is read, from a moment before now on: nothing falls between the two.
    let since =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().saturating_sub(1);
    let docker = shared.engine.docker().await?;
    let mut events = std::pin::pin!(docker.events(Some(filter(&shared.bundle.cluster, since))));
    shared.engine_since.store(i64::try_from(since).unwrap_or_default() * 1_000_000_000, Ordering::Relaxed);
    send(node, Message::Listed(list(shared).await?)).await;
    tell(shared, condition, network.clone());
    *answered = true;

    let mut pings = tokio::time::interval(PING);
    let mut lists = tokio::time::interval_at(tokio::time::Instant::now() + LIST, LIST);
    loop {
        heartbeat.beat();
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(event)) => {
                    if let Some(instance) = instance_of(&event) {
                        send(node, Message::Touched(instance, news(&event))).await;
                    }
                }
                Some(Err(error)) => return Err(failed(EVENTS, error)),
                None => return Err(EngineError::Ended { act: EVENTS.into() }),
            },
            _ = pings.tick() => {
                shared.engine.call("ping the docker engine", |d| async move { d.ping().await }).await?;
                if network.is_some() {
                    network = ensure_network(shared).await;
                    tell(shared, condition, network.clone());
                }
            }
            _ = lists.tick() => send(node, Message::Listed(list(shared).await?)).await,
        }
    }
}

async fn ensure_network(shared: &Shared) -> Option<String> {
    let ensured: Result<(), NetworkError> =
        network::ensure(&shared.engine, &shared.config.docker, &shared.bundle.cluster).await;
    ensured.err().map(|error| ErrorChain(&error).to_string())
}

async fn send(node: &mpsc::Sender<Message>, message: Message) {
    // The node's task ends only with the agent.
    node.send(message).await.ok();
}

fn filter(cluster: &str, since: u64) -> EventsOptions {
    let what = ["start", "die", "oom", "destroy", "pause", "unpause"];
    EventsOptions {
        since: Some(since.to_string()),
        filters: Some(HashMap::from([
            ("type".to_owned(), vec!["container".to_owned()]),
            ("label".to_owned(), vec![format!("{CLUSTER}={cluster}")]),
            ("event".to_owned(), what.map(str::to_owned).to_vec()),
        ])),
        ..EventsOptions::default()
    }
}

fn instance_of(event: &EventMessage) -> Option<dinp_common::model::InstanceId> {
    event.actor.as_ref()?.attributes.as_ref()?.get(INSTANCE)?.parse().ok()
}

fn news(event: &EventMessage) -> Option<News> {
    match event.action.as_deref() {
        Some("oom") => Some(News::OutOfMemory),
        _ => death(event).map(News::Died),
    }
}

fn death(event: &EventMessage) -> Option<Died> {
    let code = event.actor.as_ref()?.attributes.as_ref()?.get("exitCode")?.parse().ok()?;
    (event.action.as_deref() == Some("die")).then_some(Died { at_nanos: event.time_nano?, code })
}

async fn list(shared: &Shared) -> Result<Vec<Found>, EngineError> {
    let cluster = &shared.bundle.cluster;
    let options = ListContainersOptions {
        all: true,
        filters: Some(HashMap::from([("label".to_owned(), vec![format!("{CLUSTER}={cluster}")])])),
        ..ListContainersOptions::default()
    };
    let list = shared.engine.call_within(shared.engine.limit() * 2, "list containers", |d| async move {
        d.list_containers(Some(options)).await
    });
    let found = list.await?.into_iter().filter_map(|summary| {
        let container = summary.id?;
        let Some((identity, settings)) = recognise(&summary.labels.unwrap_or_default(), cluster) else {
            tracing::warn!(
                container,
                "a container bears this cluster's label, but does not say which instance it is; it is left alone"
            );
            return None;
        };
        Some(Found { container, identity, settings })
    });
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::EventActor;

    #[test]
    fn events_name_their_instance() {
        let attributes = HashMap::from([(INSTANCE.to_owned(), "00000000000000aa".to_owned())]);
        let event = |attributes| EventMessage {
            actor: Some(EventActor { id: None, attributes: Some(attributes) }),
            ..EventMessage::default()
        };
        assert_eq!(instance_of(&event(attributes)).unwrap().as_str(), "00000000000000aa");
        assert_eq!(instance_of(&event(HashMap::new())), None);
        let die = EventMessage {
            action: Some("die".into()),
            time_nano: Some(7),
            ..event(HashMap::from([("exitCode".to_owned(), "137".to_owned())]))
        };
        assert_eq!(news(&die), Some(News::Died(Died { at_nanos: 7, code: 137 })));
        let oom = EventMessage { action: Some("oom".into()), ..event(HashMap::new()) };
        assert_eq!(news(&oom), Some(News::OutOfMemory));
        assert_eq!(filter("c1", 5).filters.unwrap()["label"], ["dinp.cluster=c1"]);
    }
}
