//! From a row in MySQL to orders and routes.

use crate::harness::{Agent, Cluster, RouterPeer, eventually};
use dinp_common::api::Page;
use dinp_common::api::agent::{Limit, LimitReached, NodeBundle};
use dinp_common::api::control::{ClusterStatus, NodeView};
use dinp_common::auth::{Credential, CredentialKind, Role};
use dinp_common::model::Version;
use mysql_async::prelude::Queryable;
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_deployment_becomes_orders_with_environment_and_then_routes_and_succeeds() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    cluster.deploy("hello", 2, &[("COLOUR", "blue")]).await;

    eventually("two endpoints are published", 20, async || {
        agent.live().await;
        (cluster.endpoints("hello").await == 2).then_some(())
    })
    .await;
    let orders = agent.orders.clone().unwrap();
    assert_eq!(orders.run.len(), 2);
    assert_eq!(orders.run[0].env["COLOUR"], "blue");
    let (_, table) = cluster.table().await.unwrap();
    let routes = &table["hello"];
    assert_eq!(routes.domains, ["hello.apps.localhost"]);
    assert!(routes.endpoints.iter().all(|endpoint| endpoint.addr.starts_with("10.1.1.1:")), "the registered address");

    eventually("the deployment has succeeded", 20, async || {
        agent.live().await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;
    // Events name a release by its number: its id means nothing to people.
    let mut conn = cluster.pool.get_conn().await.unwrap();
    eventually("the starts are written down", 10, async || {
        let starts: Vec<String> = conn.query("SELECT detail FROM instance_event WHERE kind = 'start'").await.unwrap();
        (starts == ["release 1", "release 1"]).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_old_instance_is_stopped_only_after_the_router_has_confirmed_the_table_without_it() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    let router = RouterPeer::new(&[&server], cluster.service("router1", Role::Router).await);
    router.report(Version::ZERO).await.ok();
    let first = cluster.deploy("hello", 1, &[]).await;
    let confirm = async |agent: &mut Agent| {
        agent.live().await;
        if let Some((version, _)) = cluster.table().await {
            router.report(version).await.ok();
        }
    };
    eventually("the first deployment has succeeded", 20, async || {
        confirm(&mut agent).await;
        (cluster.deployment_states("hello").await == ["succeeded"]).then_some(())
    })
    .await;

    // The router now lags behind: it goes on to report the table that it has.
    let (stale, _) = cluster.table().await.unwrap();
    cluster.deploy("hello", 1, &[]).await;
    eventually("the new instance is published", 20, async || {
        agent.live().await;
        router.report(stale).await.ok();
        let (_, table) = cluster.table().await?;
        table["hello"].endpoints.iter().any(|endpoint| endpoint.release != first).then_some(())
    })
    .await;
    for _ in 0..20 {
        agent.live().await;
        router.report(stale).await.ok();
    }
    assert!(agent.stopped.is_empty(), "nothing goes before the router has confirmed");

    eventually("the old instance is stopped", 20, async || {
        confirm(&mut agent).await;
        (agent.stopped.len() == 1).then_some(())
    })
    .await;
    assert_eq!(cluster.endpoints("hello").await, 1);
}

#[tokio::test]
async fn nobody_without_the_right_credential_gets_in() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let node = cluster.add_node("node1").await;
    let stranger = Credential::generate(CredentialKind::Node, "node1");
    let services = [
        cluster.service("dash", Role::Dash).await,
        cluster.service("hm", Role::Hm).await,
        cluster.service("router1", Role::Router).await,
        cluster.service("builder", Role::Builder).await,
    ];
    let endpoints = [
        ("POST", "/v1/agent/report", "node"),
        ("GET", "/v1/agent/orders", "node"),
        ("POST", "/v1/agent/goodbye", "node"),
        ("POST", "/v1/agent/streams/x", "node"),
        ("POST", "/v1/router/report", "router1"),
        ("POST", "/v1/router/goodbye", "router1"),
        ("GET", "/v1/hm/targets", "hm"),
        ("POST", "/v1/hm/report", "hm"),
        ("GET", "/v1/status", "dash"),
        ("GET", "/v1/instances", "dash"),
        ("GET", "/v1/nodes", "dash"),
        ("POST", "/v1/nodes", "dash"),
        ("DELETE", "/v1/nodes/x", "dash"),
        ("GET", "/v1/orphans", "dash"),
        ("DELETE", "/v1/orphans/0123456789abcdef", "dash"),
        ("GET", "/v1/strangers", "dash"),
        ("POST", "/v1/tickets/adopt", "dash"),
        ("POST", "/v1/resume", "dash"),
        ("GET", "/v1/routers", "dash"),
        ("DELETE", "/v1/routers/x", "dash"),
        ("GET", "/v1/apps/x/logs", "dash"),
        ("POST", "/v1/hint", "dash"),
    ];
    let bodies = [
        ("/v1/agent/goodbye", r#"{"kind":"restart"}"#),
        ("/v1/router/goodbye", r#"{"router":"router1"}"#),
        ("/v1/nodes", r#"{"name":"n","address":"10.0.0.9"}"#),
        ("/v1/hm/report", r#"{"monitor":"m","targets":"","unfit":[]}"#),
        ("/v1/router/report", r#"{"router":"router1","version":"","status_url":"http://x","applied":"0-0"}"#),
        (
            "/v1/agent/report",
            r#"{"cluster":"c","agent_version":"","run_id":"r","seq":1,"full":true,"seen":{"epoch":0,"holder":""},
                "capacity":{"memory_mb":1,"cpu_millis":1},"instances":[]}"#,
        ),
    ];
    eventually("the server leads and knows the node", 20, async || {
        let status = server.client(Some(services[0].clone())).get::<Page<NodeView>>("/v1/nodes", ANSWER).await.ok()?;
        (status.items.len() == 1).then_some(())
    })
    .await;
    let callers = services.iter().map(|service| (service.name.as_str(), Some(service.clone())));
    let callers = callers.chain([("node", Some(node)), ("stranger", Some(stranger)), ("nobody", None)]);
    for (caller, credential) in callers {
        for (method, path, role) in endpoints {
            let client = server.client(credential.clone());
            let body = bodies.iter().find(|(of, _)| *of == path).map_or("{}", |(_, body)| body);
            let request = client.request(method.parse().unwrap(), path).unwrap();
            let request = request.header("content-type", "application/json").body(body.to_owned());
            let status = request.send().await.unwrap().status().as_u16();
            let refused = status == 401 || status == 403;
            assert_eq!(refused, caller != role, "{caller} {method} {path}: {status}");
        }
    }

    // A stranger's body is not even read.
    let huge = server.client(None).request(http::Method::POST, "/v1/agent/report").unwrap();
    let huge = huge.header("content-type", "application/json").body("x".repeat(64 << 10));
    assert_eq!(huge.send().await.unwrap().status().as_u16(), 401);
}

#[tokio::test]
async fn a_node_is_added_by_name_and_its_bundle_lets_its_agent_in() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    let add = |address: &str| serde_json::json!({ "name": "node7", "address": address });
    eventually("the server leads", 20, async || dash.get::<ClusterStatus>("/v1/status", ANSWER).await.ok()).await;
    let refused = dash.post::<_, NodeBundle>("/v1/nodes", &add("10.0.0.7:80"), ANSWER).await.err().unwrap();
    assert!(refused.to_string().contains("without a port"), "{refused}");
    let mut in_zone = add("10.0.0.7");
    in_zone["zone"] = "z".repeat(64).into();
    let refused = dash.post::<_, NodeBundle>("/v1/nodes", &in_zone, ANSWER).await.err().unwrap();
    let problem = refused.problem().unwrap();
    assert_eq!((problem.status, problem.text("field")), (422, Some("zone")), "{problem}");
    assert!(problem.detail.contains("1 to 63 lower-case letters"), "{problem}");
    let bundle: NodeBundle = dash.post("/v1/nodes", &add("10.0.0.7"), ANSWER).await.ok().unwrap();
    assert_eq!((bundle.node.as_str(), bundle.address.as_str()), ("node7", "10.0.0.7"));
    let mut agent = Agent::new(&[&server], bundle.secret.parse().unwrap());
    eventually("the agent's report is accepted", 10, async || agent.report().await.ok()).await;
    let again = dash.post::<_, NodeBundle>("/v1/nodes", &add("10.0.0.7"), ANSWER).await.err().unwrap();
    assert!(again.is_kind("node-exists"), "{again}");
}

#[tokio::test]
async fn an_apps_logs_have_so_many_readers_and_who_goes_costs_the_node_nothing_more() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    let dash = server.client(Some(cluster.service("dash", Role::Dash).await));
    cluster.deploy("hello", 2, &[]).await;
    eventually("both instances run", 20, async || {
        agent.live().await;
        (agent.instances.len() == 2).then_some(())
    })
    .await;
    let read = async || {
        let request = dash.request(http::Method::GET, "/v1/apps/hello/logs?follow=true").unwrap();
        request.send().await.unwrap()
    };
    let mut streams = async |wanted: usize| {
        eventually("the node is asked for so many streams", 10, async || {
            agent.live().await;
            (agent.orders.as_ref()?.streams.len() == wanted).then_some(())
        })
        .await;
    };
    let mut readers = Vec::new();
    let refused = loop {
        let response = read().await;
        if !response.status().is_success() {
            break response;
        }
        readers.push(response);
    };
    assert_eq!((refused.status().as_u16(), readers.len()), (429, 100));
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!((&problem["type"], &problem["limit"]), (&"urn:dinp:too-many-readers".into(), &100.into()));
    streams(200).await;

    readers.pop();
    streams(198).await;
    assert_eq!(read().await.status().as_u16(), 200);
    drop(readers);
    streams(0).await;
}

/// What an instance runs into and lives on is told to its owner, once each time.
#[tokio::test]
async fn a_limit_that_an_instance_has_reached_is_an_event_of_its_app() {
    let cluster = Cluster::start().await;
    let server = cluster.server().await;
    let mut agent = Agent::new(&[&server], cluster.add_node("node1").await);
    cluster.deploy("hello", 1, &[]).await;
    eventually("it is ordered", 60, async || {
        agent.live().await;
        (!agent.instances.is_empty()).then_some(())
    })
    .await;
    for times in [1, 1, 2, 2] {
        let reached = LimitReached { times, detail: format!("for the {times}. time") };
        agent.instances.values_mut().for_each(|report| {
            report.limits.insert(Limit::Processes, reached.clone());
        });
        agent.report().await.unwrap();
    }
    eventually("both are written", 20, async || {
        agent.live().await;
        let mut conn = cluster.pool.get_conn().await.unwrap();
        let query = "SELECT detail FROM instance_event WHERE app = 'hello' AND kind = 'limit_reached' ORDER BY id";
        let told: Vec<String> = conn.query(query).await.unwrap();
        (told == ["for the 1. time", "for the 2. time"]).then_some(())
    })
    .await;
}
