//! The control plane is away: what runs keeps running, and is served.

use dinp_integration::testbed::{Cluster, Scenario, secs};

const PARTS: &str = "mariadb redis-server docker-registry";

#[tokio::test]
async fn a_minute_without_server_databases_and_registry_restarts_nothing() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("outage").instances(4).deploy().await?;
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;
    let before = app.started().await?;
    let control = cluster.host("control");

    let load = app.steady().rate(100).start();
    cluster.stop_servers().await?;
    control.exec(&format!("systemctl stop {PARTS}")).await?;
    tokio::time::sleep(secs(60)).await;
    // The servers first, with nothing there that they need.
    cluster.start_servers().await?;
    for part in PARTS.split(' ') {
        control.exec(&format!("systemctl start {part}")).await?;
    }
    cluster.cli().nodes_ready(&["node1", "node2"], secs(60)).await?;
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;
    // A server that is back may decide wrongly only after it has seen everything.
    tokio::time::sleep(secs(10)).await;

    load.stop().await?.none_failed()?;
    assert_eq!(app.started().await?, before, "containers were started or stopped");
    Ok(())
}

#[tokio::test]
async fn routes_that_redis_lost_are_written_again() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("flush").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;

    let load = app.steady().rate(50).start();
    let control = cluster.host("control");
    control
        .exec(
            "systemctl stop redis-server; rm -rf /var/lib/redis/*.rdb /var/lib/redis/appendonly*; \
             systemctl start redis-server",
        )
        .await?;
    // A change that arrives at the router proves that the new table is whole again.
    app.scale(3).await?;
    app.settles_at(3, secs(40)).await?;
    load.stop().await?.none_failed()?;
    Ok(())
}

#[tokio::test]
async fn a_router_that_starts_without_control_plane_serves_from_its_disk() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("cold").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    let control = cluster.host("control");

    cluster.stop_servers().await?;
    control.exec(&format!("systemctl stop {PARTS}")).await?;
    cluster.host("router1").exec("systemctl restart dinp-router").await?;
    app.answers("v1").await?;

    control.exec(&format!("systemctl start {PARTS}")).await?;
    cluster.start_servers().await?;
    cluster.cli().nodes_ready(&["node1", "node2"], secs(60)).await?;
    Ok(())
}
