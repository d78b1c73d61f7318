//! A node dies, and comes back.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

#[tokio::test]
async fn apps_of_a_dead_node_are_whole_on_the_other_within_twenty_seconds() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("loss").instances(4).deploy().await?;
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;

    cluster.host("node2").kill().await?;
    app.serves_on("node1", 4, secs(20)).await?;

    cluster.host("node2").start().await?;
    cluster.cli().nodes_ready(&["node2"], secs(60)).await?;
    let settled = app.settles_at(4, secs(30)).await?;
    let wanted: Vec<&str> = settled.iter().map(|instance| instance.id.as_str()).collect();
    eventually("the engines run exactly what the server lists", secs(30), async || {
        let mut running = app.started().await.map_err(|error| error.chain())?.len();
        for instance in &settled {
            app.container(instance).await.map_err(|error| error.chain())?;
            running -= 1;
        }
        if running == 0 { Ok(()) } else { Err(format!("{running} besides {wanted:?}")) }
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_was_only_cut_off_keeps_nothing_twice() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("cut").instances(2).deploy().await?;
    app.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;

    cluster.host("node2").partition().await?;
    app.serves_on("node1", 2, secs(20)).await?;

    cluster.host("node2").heal().await?;
    app.settles_at(2, secs(60)).await?;
    eventually("two containers are left", secs(30), async || {
        let running = app.started().await.map_err(|error| error.chain())?;
        if running.len() == 2 { Ok(()) } else { Err(format!("{running:?}")) }
    })
    .await?;
    app.answers("v1").await?;
    Ok(())
}

#[tokio::test]
async fn requests_under_way_to_a_node_that_is_cut_off_are_answered_by_another() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("midway").instances(2).deploy().await?;
    app.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;

    // At any moment twenty of them wait for their answer, half of them for one from node2.
    let load = app.steady().path("/slow?ms=2000").rate(10).start();
    tokio::time::sleep(secs(4)).await;
    cluster.host("node2").partition().await?;
    app.serves_on("node1", 2, secs(20)).await?;
    let report = load.stop().await?;
    cluster.host("node2").heal().await?;
    report.none_failed()?;
    app.settles_at(2, secs(60)).await?;
    Ok(())
}
