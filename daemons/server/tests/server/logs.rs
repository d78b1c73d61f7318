//! What people read of an app's output: of instances that run, that are gone, that start later.

use crate::harness::{Agent, Cluster, eventually};
use dinp_common::api::agent::{EndedInstance, InstanceReport, LogLine, LogStream, StreamKind, StreamOrder};
use dinp_common::auth::Role;
use dinp_common::client::ApiClient;
use dinp_common::model::InstanceId;
use dinp_common::store::{self, Change};
use http::Method;

/// The stream that the node is asked for, once there is one of that instance.
async fn asked(agent: &mut Agent, instance: &InstanceId) -> StreamOrder {
    eventually("the node is asked for a stream", 20, async || {
        agent.live().await;
        let streams = &agent.orders.as_ref()?.streams;
        let of = |order: &&StreamOrder| matches!(&order.kind, StreamKind::Logs { instance: of, .. } if of == instance);
        streams.iter().find(of).cloned()
    })
    .await
}

/// The node sends one line, and no more.
async fn send(node: &ApiClient, order: &StreamOrder, text: &str) {
    let StreamKind::Logs { instance, .. } = order.kind.clone();
    let line = LogLine { at: 1, instance, stream: LogStream::Stderr, text: text.into() };
    let body = format!("{}\n", serde_json::to_string(&line).unwrap());
    let request = node.request(Method::POST, &format!("/v1/agent/streams/{}", order.stream)).unwrap();
    assert_eq!(request.body(body).send().await.unwrap().status().as_u16(), 204);
}

/// An app that was scaled to none, and the instance that its node keeps the output of.
async fn one_that_ended(cluster: &Cluster, agent: &mut Agent, app: &str) -> EndedInstance {
    cluster.deploy(app, 1, &[]).await;
    let report = eventually("an instance runs", 20, async || {
        agent.live().await;
        let deployed = cluster.deployment_states(app).await == ["succeeded"];
        agent.instances.values().find(|report| deployed && report.app.as_str() == app).cloned()
    })
    .await;
    let mut change = Change::begin(&cluster.pool).await.unwrap();
    store::app::set_instances(&mut change, &report.app, 0).await.unwrap();
    change.commit().await.unwrap();
    eventually("the instance is stopped", 40, async || {
        agent.live().await;
        agent.stopped.contains(&report.instance).then_some(())
    })
    .await;
    let InstanceReport { instance, app, release, ticket, .. } = report;
    let ended = EndedInstance { instance, app, release, at: 7, exit_code: Some(1), ticket };
    agent.ended.push(ended.clone());
    eventually("what the node keeps is accepted", 20, async || agent.report().await.ok()).await;
    ended
}

/// The status of an answer to whoever asks for the output of an instance.
async fn status_of(dash: &ApiClient, app: &str, instance: &InstanceId) -> u16 {
    let path = format!("/v1/apps/{app}/logs?instance={instance}");
    dash.request(Method::GET, &path).unwrap().send().await.unwrap().status().as_u16()
}

/// `dinp logs` after a failed start said that there are no instances.
#[tokio::test]
async fn without_instances_the_last_ended_ones_are_read_from_their_node() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let node = server.client(Some(credential.clone()));
    let mut agent = Agent::new(&[&server], credential);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let instance = one_that_ended(&cluster, &mut agent, "hello").await.instance;
    let by_digits = format!("?instance={}", &instance.as_str()[..4]);
    for query in ["", "?previous=true", &by_digits] {
        let request = dash.request(Method::GET, &format!("/v1/apps/hello/logs{query}")).unwrap();
        let reading = tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() });
        let order = asked(&mut agent, &instance).await;
        assert!(matches!(order.kind, StreamKind::Logs { previous: true, follow: false, .. }), "{query}");
        send(&node, &order, "Traceback").await;
        assert!(reading.await.unwrap().contains("\"text\":\"Traceback\""), "{query}");
    }
    assert_eq!(status_of(&dash, "hello", &InstanceId::from_bits(0xbeef)).await, 404);
}

/// A node could have its own output shown to an app's people as that of an ended instance of theirs.
#[tokio::test]
async fn a_node_is_not_asked_for_ended_instances_that_were_not_ordered_to_it() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut thief = Agent::new(&[&server], cluster.add_node("thief").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let own = one_that_ended(&cluster, &mut thief, "own").await;
    let made_up = InstanceId::from_bits(0xbad);
    let victim = || "victim".parse().unwrap();
    thief.ended.extend([
        EndedInstance { app: victim(), ..own.clone() },
        EndedInstance { app: victim(), instance: made_up.clone(), ..own.clone() },
        EndedInstance { instance: made_up.clone(), ticket: String::new(), ..own.clone() },
    ]);
    thief.report().await.unwrap();
    for (app, instance) in [("victim", &own.instance), ("victim", &made_up), ("own", &made_up)] {
        assert_eq!(status_of(&dash, app, instance).await, 404, "{app} {instance}");
    }
}

/// Ended instances of a removed node stayed in the list, and who read them waited for a node that nobody can ask.
#[tokio::test]
async fn what_a_removed_node_has_kept_is_forgotten() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let instance = one_that_ended(&cluster, &mut agent, "hello").await.instance;
    dash.delete::<()>("/v1/nodes/node1", std::time::Duration::from_secs(3)).await.unwrap();
    eventually("nobody is sent there any more", 30, async || {
        (status_of(&dash, "hello", &instance).await == 404).then_some(())
    })
    .await;
}

/// `logs -f` was silent after the next deployment.
#[tokio::test]
async fn who_follows_an_app_hears_the_instances_that_start_later() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let node = server.client(Some(credential.clone()));
    let mut agent = Agent::new(&[&server], credential);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let request = dash.request(Method::GET, "/v1/apps/hello/logs?follow=true").unwrap();
    let mut following = eventually("the leader answers", 20, async || {
        let answer = request.try_clone()?.send().await.ok()?;
        answer.status().is_success().then_some(answer)
    })
    .await;
    cluster.deploy("hello", 1, &[]).await;
    let instance = eventually("an instance runs", 20, async || {
        agent.live().await;
        agent.instances.keys().next().cloned()
    })
    .await;
    let order = asked(&mut agent, &instance).await;
    assert!(matches!(order.kind, StreamKind::Logs { follow: true, previous: false, .. }));
    send(&node, &order, "listening").await;
    let chunk = following.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("\"text\":\"listening\""));
}
