//! What an application can reach of the machines that carry it: routers, as users do, and nothing else. And who can reach
//! an application: routers, monitors and its own node.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

#[tokio::test]
async fn an_app_cannot_use_databases_registry_daemons_or_neighbours() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("inside").instances(4).deploy().await?;
    let instances = app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;
    let on_node1: Vec<_> = instances.iter().filter(|instance| instance.node == "node1").collect();
    let node = cluster.host("node1");
    let container = app.container(on_node1[0]).await?;
    let neighbour = app.container(on_node1[1]).await?;
    let control = cluster.host("control").address.to_string();
    let router = cluster.host("router1").address.to_string();
    let elsewhere = cluster.host("node2").address.to_string();
    let elsewhere_port = instances.iter().find(|instance| instance.node == "node2").and_then(|found| found.port);
    let own = node.address.to_string();

    let network = |field: &str, container: &str| {
        let format = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
        let command = format!("docker inspect --format '{format}' {container}");
        async move { node.exec(&command).await }
    };
    let gateway = network("Gateway", &container).await?;
    let neighbour_address = network("IPAddress", &neighbour).await?;

    // What is tried below would succeed if nothing stood in the way.
    let connects = async |address: &str, port: u16| {
        let path = format!("/tcp?addr={address}:{port}");
        app.ask(on_node1[0], "GET", &path).await.map(|answer| answer == "connected")
    };
    assert!(connects("127.0.0.1", 8080).await?, "the app itself listens");
    assert!(
        node.succeeds(&format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{control}/1980'")).await,
        "the node reaches the server"
    );

    let mut reached = Vec::new();
    let targets = [
        ("Redis", control.as_str(), 6379),
        ("MySQL", &control, 3306),
        ("the registry", &control, 5000),
        ("the registry that the builder writes to", &control, 5001),
        ("the server", &control, 1980),
        ("the builder", &control, 1986),
        ("the agent", &own, 1981),
        ("the agent by the bridge", gateway.trim(), 1981),
        ("dockerd", &own, 2375),
        ("dockerd by the bridge", gateway.trim(), 2375),
        ("a neighbour", neighbour_address.trim(), 8080),
        ("an instance of another node", &elsewhere, elsewhere_port.unwrap_or_default()),
        ("the status of a router", &router, 1982),
        ("the cloud's metadata", "169.254.169.254", 80),
    ];
    for (what, address, port) in targets {
        if connects(address, port).await? {
            reached.push(format!("{what} at {address}:{port}"));
        }
    }
    assert!(reached.is_empty(), "an app reaches {}", reached.join(", "));
    assert!(connects(&router, 80).await?, "an app reaches other apps by the router, as users do");

    let mounts = node
        .exec(&format!("docker inspect --format '{{{{json .Mounts}}}} {{{{.HostConfig.Privileged}}}}' {container}"))
        .await?;
    assert!(!mounts.contains("docker.sock") && mounts.contains("false"), "{mounts}");
    Ok(())
}

#[tokio::test]
async fn instances_are_reached_by_routers_and_monitors_alone() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("closed").instances(1).deploy().await?;
    let instances = app.settles_at(1, secs(30)).await?;
    let instance = &instances[0];
    app.ask(instance, "GET", "/health").await?;
    let port = instance.port.unwrap_or_default();
    let address = cluster.host(&instance.node).address.to_string();
    let connect = format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/{port}'");
    assert!(cluster.host("control").succeeds(&connect).await, "the monitor reaches it");
    assert!(cluster.host(&instance.node).succeeds(&connect).await, "its own node reaches it");
    let stranger = if instance.node == "node1" { "node2" } else { "node1" };
    assert!(!cluster.host(stranger).succeeds(&connect).await, "another node reaches it");
    Ok(())
}

#[tokio::test]
async fn a_node_whose_packet_filter_was_taken_away_gets_it_back() -> Scenario {
    let cluster = Cluster::shared().await?;
    let node = cluster.host("node1");
    node.exec("iptables -F DINP-APPS && iptables -I INPUT 1 -j ACCEPT").await?;
    let looks = "iptables -S DINP-APPS | grep -q 169.254 && iptables -S INPUT | grep -m1 '^-A' | grep -q DINP-APPS-IN";
    let restored = eventually("the packet filter is in force again", secs(60), async || {
        node.exec(looks).await.map(drop).map_err(|error| error.chain())
    });
    let restored = restored.await;
    node.exec("iptables -D INPUT -j ACCEPT").await?;
    Ok(restored?)
}

#[tokio::test]
async fn no_node_opens_a_tcp_port_of_docker() -> Scenario {
    let cluster = Cluster::shared().await?;
    for name in ["control", "node1", "node2"] {
        let listeners = cluster.host(name).exec("ss -Hltnp").await?;
        let open: Vec<&str> = listeners.lines().filter(|line| line.contains("\"dockerd\"")).collect();
        assert!(open.is_empty(), "dockerd listens on {name}: {open:?}");
    }
    Ok(())
}
