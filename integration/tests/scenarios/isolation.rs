//! What an application can reach of the machines that carry it: nothing.

use dinp_integration::testbed::{Cluster, Scenario, secs};

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
        ("the server", &control, 1980),
        ("the builder", &control, 1986),
        ("the agent", &own, 1981),
        ("the agent by the bridge", gateway.trim(), 1981),
        ("dockerd", &own, 2375),
        ("dockerd by the bridge", gateway.trim(), 2375),
        ("a neighbour", neighbour_address.trim(), 8080),
    ];
    for (what, address, port) in targets {
        if connects(address, port).await? {
            reached.push(format!("{what} at {address}:{port}"));
        }
    }
    assert!(reached.is_empty(), "an app reaches {}", reached.join(", "));

    let mounts = node
        .exec(&format!("docker inspect --format '{{{{json .Mounts}}}} {{{{.HostConfig.Privileged}}}}' {container}"))
        .await?;
    assert!(!mounts.contains("docker.sock") && mounts.contains("false"), "{mounts}");
    Ok(())
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
