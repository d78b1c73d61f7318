//! Another number of instances.

use std::collections::BTreeMap;

use dinp_integration::testbed::{Cluster, Scenario, secs};

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

    let mut by_node: BTreeMap<String, usize> = BTreeMap::new();
    for app in &deployed {
        for instance in app.settles_at(1, secs(30)).await? {
            *by_node.entry(instance.node).or_default() += 1;
        }
    }
    let fewest = by_node.values().min().copied().unwrap_or_default();
    assert!(by_node.len() == 2 && fewest >= 2, "six equal apps lie like this: {by_node:?}");
    Ok(())
}
