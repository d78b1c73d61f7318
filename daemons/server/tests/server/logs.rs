//! What people read of an app's output: of instances that run, that are gone, that start later.

use crate::harness::{Agent, Cluster, eventually};
use dinp_common::api::agent::{EndedInstance, LogLine, LogStream, StreamKind, StreamOrder};
use dinp_common::auth::Role;
use dinp_common::client::ApiClient;
use dinp_common::model::InstanceId;
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

/// `dinp logs` after a failed start said that there are no instances.
#[tokio::test]
async fn without_instances_the_last_ended_ones_are_read_from_their_node() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let credential = cluster.add_node("node1").await;
    let node = server.client(Some(credential.clone()));
    let mut agent = Agent::new(&[&server], credential);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let instance = InstanceId::from_bits(0xcafe << 48);
    let ended = EndedInstance {
        instance: instance.clone(),
        app: "hello".parse().unwrap(),
        release: 1,
        at: 7,
        exit_code: Some(1),
    };
    agent.ended = vec![ended];
    eventually("the agent's report is accepted", 20, async || agent.report().await.ok()).await;
    for query in ["", "?previous=true", "?instance=cafe"] {
        let request = dash.request(Method::GET, &format!("/v1/apps/hello/logs{query}")).unwrap();
        let reading = tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() });
        let order = asked(&mut agent, &instance).await;
        assert!(matches!(order.kind, StreamKind::Logs { previous: true, follow: false, .. }), "{query}");
        send(&node, &order, "Traceback").await;
        assert!(reading.await.unwrap().contains("\"text\":\"Traceback\""), "{query}");
    }
    let unknown = dash.request(Method::GET, "/v1/apps/hello/logs?instance=beef").unwrap().send().await.unwrap();
    assert_eq!(unknown.status().as_u16(), 404);
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
