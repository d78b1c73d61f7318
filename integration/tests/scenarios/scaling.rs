//! Another number of instances.

use dinp_integration::testbed::{Cluster, Scenario, secs};
use serde::Deserialize;

#[derive(Deserialize)]
struct Node {
    booked: Booked,
}

#[derive(Deserialize)]
struct Booked {
    memory_mb: u64,
}

#[tokio::test]
async fn one_to_four_puts_two_on_each_node_and_back_to_one_loses_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("scale").instances(1).deploy().await?;
    let load = app.steady().rate(100).start();

    app.scale(4).await?;
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;

    app.scale(1).await?;
    app.settles_at(1, secs(60)).await?;

    let report = load.stop().await?;
    report.none_failed()?;
    assert_eq!(report.answers().len(), 1, "{:?}", report.answers());
    Ok(())
}

#[tokio::test]
async fn apps_deployed_in_one_go_are_spread_over_the_nodes() -> Scenario {
    let cluster = Cluster::shared().await?;
    let apps: Vec<_> = (1..=6).map(|number| cluster.app(&format!("spread{number}")).instances(1).memory(256)).collect();
    let deployed = futures_util::future::try_join_all(apps.into_iter().map(|app| app.deploy())).await?;

    for app in &deployed {
        app.settles_at(1, secs(30)).await?;
    }

    // Other apps may lie unevenly: what is to be even is the memory that is booked.
    let nodes: Vec<Node> = cluster.cli().list(&["node", "ls"]).await?;
    let booked: Vec<u64> = nodes.iter().map(|node| node.booked.memory_mb).collect();
    let (Some(least), Some(most)) = (booked.iter().min(), booked.iter().max()) else {
        panic!("no node is listed");
    };
    assert!(most - least <= 256, "six apps of 256 MiB in one go, and this is booked on the nodes: {booked:?}");
    Ok(())
}
