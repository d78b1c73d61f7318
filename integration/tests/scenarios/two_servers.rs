//! A second server: it leads when the first one cannot, and all follow.

use dinp_integration::testbed::{Cluster, Scenario, secs};
use std::time::Instant;

#[tokio::test]
async fn a_leader_that_alone_loses_mysql_is_left_and_a_node_that_dies_then_is_replaced_as_ever() -> Scenario {
    let cluster = Cluster::shared().await?;
    let [control, second] = cluster.servers();
    // On the other host dashboard and sign-on would lose MySQL too.
    cluster.make_leader(second).await?;
    let app = cluster.app("k1").instances(1).deploy().await?;
    app.settles_at(1, secs(30)).await?;
    let load = app.steady().rate(50).start();

    second.lose_mysql().await?;
    let lost = Instant::now();
    cluster.follows(control, secs(15)).await?;
    println!("everybody has followed {} ms after the loss", lost.elapsed().as_millis());
    app.scale(2).await?;
    app.settles_at(2, secs(15)).await?;
    app.scale(1).await?;
    let instances = app.settles_at(1, secs(60)).await?;
    load.stop().await?.none_failed()?;

    let dead = &instances[0].node;
    let alive = if dead == "node1" { "node2" } else { "node1" };
    cluster.host(dead).kill().await?;
    app.serves_on(alive, 1, secs(20)).await?;
    app.answers("v1").await?;

    second.heal().await?;
    cluster.host(dead).start().await?;
    cluster.follows(control, secs(60)).await?;
    let view = second.exec("curl --fail --silent --show-error http://127.0.0.1:1980/v1/leader").await?;
    assert!(view.contains("\"leading\":false") && view.contains(&control.address.to_string()), "{view}");
    Ok(())
}

#[tokio::test]
async fn a_second_server_is_set_up_once_and_its_check_finds_nothing() -> Scenario {
    let cluster = Cluster::shared().await?;
    let [control, second] = cluster.servers();
    let bundle =
        control.exec(&format!("dinp setup server-bundle {} --address {}", second.name, second.address)).await?;
    second.exec_with("dinp setup server --bundle -", Some(&bundle)).await?;
    let said = second.exec_with("dinp setup server --check --bundle -", Some(&bundle)).await?;
    assert!(said.contains("all is as it should be"), "{said}");
    let urls = [control, second].map(|host| format!("http://{}:1980", host.address)).join(" ");
    for host in cluster.hosts().iter().filter(|host| host.name != second.name) {
        host.exec(&format!("dinp setup servers {urls}")).await?;
        let said = host.exec(&format!("dinp setup servers --check {urls}")).await?;
        assert!(said.contains("all is as it should be"), "{}: {said}", host.name);
    }
    cluster.cli().nodes_ready(&["node1", "node2"], secs(60)).await?;
    Ok(())
}
