//! Health checks: one failure is nothing, several in a row are a verdict.

use dinp_integration::testbed::{App, Cluster, Instance, Result, Scenario, eventually, secs};

async fn deployed<'a>(cluster: &'a Cluster, name: &str) -> Result<(App<'a>, Vec<Instance>)> {
    let app = cluster.app(name).instances(2).health("/health").deploy().await?;
    let instances = app.settles_at(2, secs(30)).await?;
    Ok((app, instances))
}

#[tokio::test]
async fn one_failed_probe_neither_stops_nor_withdraws_an_instance() -> Scenario {
    let cluster = Cluster::shared().await?;
    let (app, instances) = deployed(&cluster, "blink").await?;
    let before = app.started().await?;

    // The default is a probe each 5 s and a verdict at the third failure: at least one fails, at most two do.
    app.ask(&instances[0], "POST", "/health?status=500").await?;
    tokio::time::sleep(secs(6)).await;
    app.ask(&instances[0], "POST", "/health?status=200").await?;

    // Longer than three probes: whatever the one failure led to would have happened.
    let until = std::time::Instant::now() + secs(20);
    while std::time::Instant::now() < until {
        let now = app.list().await?;
        assert!(now.iter().all(|instance| instance.routed), "withdrawn after one failure: {now:?}");
        tokio::time::sleep(secs(1)).await;
    }
    assert_eq!(app.started().await?, before, "restarted after one failure");
    Ok(())
}

#[tokio::test]
async fn an_instance_that_stays_unfit_is_replaced_before_it_is_stopped() -> Scenario {
    let cluster = Cluster::shared().await?;
    let (app, instances) = deployed(&cluster, "unfit").await?;
    let victim = &instances[0];

    let load = app.steady().rate(50).start();
    app.ask(victim, "POST", "/health?status=500").await?;
    eventually("two others serve", secs(60), async || {
        let now = app.list().await.map_err(|error| error.chain())?;
        let others = now.iter().filter(|other| other.id != victim.id && other.serves()).count();
        let gone = now.iter().all(|other| other.id != victim.id);
        if others == 2 && gone { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await?;
    load.stop().await?.none_failed()?;
    Ok(())
}
