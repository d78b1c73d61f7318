//! A new version under steady requests, and the way back.

use std::collections::BTreeMap;

use dinp_integration::testbed::{Cluster, Scenario, secs};

#[tokio::test]
async fn a_rolling_deploy_and_a_rollback_lose_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("roll").instances(4).deploy().await?;

    let load = app.steady().rate(200).start();
    app.roll_to("v2").await?;
    let rolled = load.elapsed();
    // A roll of four proved instances takes nearly that long by itself.
    tokio::time::sleep(secs(30).saturating_sub(rolled).max(secs(3))).await;
    let report = load.stop().await?;
    report.none_failed()?;
    assert!(report.answers().contains_key("v1"), "{:?}", report.answers());
    let at_the_end = report.answers_after(rolled);
    assert_eq!(at_the_end.keys().copied().collect::<Vec<_>>(), ["v2"], "{at_the_end:?}");
    app.settles(&[("node1", 2), ("node2", 2)], secs(30)).await?;

    let load = app.steady().rate(200).start();
    app.roll_back().await?;
    let rolled = load.elapsed();
    tokio::time::sleep(secs(3)).await;
    let report = load.stop().await?;
    report.none_failed()?;
    let at_the_end: BTreeMap<&str, usize> = report.answers_after(rolled);
    assert_eq!(at_the_end.keys().copied().collect::<Vec<_>>(), ["v1"], "{at_the_end:?}");
    Ok(())
}

#[tokio::test]
async fn requests_that_take_long_are_finished_by_the_version_that_took_them() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("drain").instances(2).deploy().await?;

    let load = app.steady().path("/slow?ms=3000").rate(10).start();
    app.roll_to("v2").await?;
    load.stop().await?.none_failed()?;
    Ok(())
}
