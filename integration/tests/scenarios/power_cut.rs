//! All machines lose power, and come back in an order that nobody chose.

use dinp_integration::testbed::{Cluster, Scenario, secs};

#[tokio::test]
async fn after_a_power_cut_of_everything_apps_are_served_again() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("power").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;

    for host in cluster.hosts() {
        host.kill().await?;
    }
    for name in ["node2", "control2", "router1", "node1", "router2", "control"] {
        cluster.host(name).start().await?;
    }

    app.answers("v1").await?;
    cluster.cli().nodes_ready(&["node1", "node2"], secs(90)).await?;
    app.settles_at(2, secs(60)).await?;
    assert_eq!(app.started().await?.len(), 2);
    Ok(())
}
