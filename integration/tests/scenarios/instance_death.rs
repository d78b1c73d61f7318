//! An instance that dies is not noticed by its users.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

#[tokio::test]
async fn a_killed_instance_is_back_within_five_seconds_and_nobody_sees_an_error() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("death").instances(2).deploy().await?;
    let instances = app.settles_at(2, secs(30)).await?;
    let before = app.started().await?;
    let victim = app.container(&instances[0]).await?;

    let load = app.steady().rate(100).start();
    cluster.host(&instances[0].node).exec(&format!("docker kill {victim}")).await?;

    eventually("two instances serve, one of them started anew", secs(5), async || {
        let now = app.started().await.map_err(|error| error.chain())?;
        if now.len() != 2 || now.get(&victim) == before.get(&victim) {
            return Err(format!("containers: {now:?}"));
        }
        let instances = app.list().await.map_err(|error| error.chain())?;
        let serving = instances.iter().filter(|instance| instance.serves()).count();
        if serving == 2 { Ok(()) } else { Err(format!("{serving} serve")) }
    })
    .await?;

    load.stop().await?.none_failed()?;
    Ok(())
}

#[tokio::test]
async fn an_instance_that_exits_is_restarted_by_its_own_agent() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("exits").instances(1).deploy().await?;
    let instances = app.settles_at(1, secs(30)).await?;
    let before = app.started().await?;
    // With the servers away nobody but the agent can do it.
    cluster.stop_servers().await?;

    let crash = app.ask(&instances[0], "GET", "/crash").await;
    assert!(crash.is_err(), "it answered instead of crashing: {crash:?}");
    eventually("the instance was started anew", secs(10), async || {
        let now = app.started().await.map_err(|error| error.chain())?;
        if now.len() == 1 && now != before { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await?;
    app.answers("v1").await?;

    cluster.start_servers().await?;
    app.settles_at(1, secs(30)).await?;
    Ok(())
}
