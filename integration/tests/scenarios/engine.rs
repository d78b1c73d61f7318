//! The Docker Engine of a node goes away for a moment.

use dinp_integration::testbed::{Cluster, Result, Scenario, secs};

#[tokio::test]
async fn a_restart_of_dockerd_loses_no_request() -> Scenario {
    Ok(under_load("restart", "systemctl restart docker").await?)
}

#[tokio::test]
async fn a_killed_dockerd_loses_no_request() -> Scenario {
    Ok(under_load("kill9", "systemctl kill --kill-who=main --signal=KILL docker").await?)
}

async fn under_load(name: &str, act: &str) -> Result<()> {
    let cluster = Cluster::shared().await?;
    let app = cluster.app(name).instances(4).deploy().await?;
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;
    let before = app.started().await?;

    let load = app.steady().rate(100).start();
    let node = cluster.host("node1");
    node.exec(act).await?;
    dinp_integration::testbed::eventually("dockerd answers again", secs(60), async || {
        if node.succeeds("docker info").await { Ok(()) } else { Err("no answer".to_owned()) }
    })
    .await?;
    cluster.cli().nodes_ready(&["node1"], secs(30)).await?;
    tokio::time::sleep(secs(5)).await;

    load.stop().await?.none_failed()?;
    assert_eq!(app.started().await?, before, "containers were started or stopped");
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;
    Ok(())
}
