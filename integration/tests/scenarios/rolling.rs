//! A new version under steady requests, and the way back.

use std::collections::BTreeMap;
use std::time::Instant;

use dinp_integration::testbed::{App, Cluster, Result, Scenario, secs};
use futures_util::future::try_join_all;

#[tokio::test]
async fn a_rolling_deploy_and_a_rollback_lose_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("roll").instances(4).deploy().await?;

    let load = app.steady().rate(200).start();
    app.roll_to("v2").await?;
    let rolled = load.elapsed();
    tokio::time::sleep(secs(3)).await;
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

#[tokio::test]
async fn tunnels_stay_until_the_drain_is_over_and_come_back_to_the_new_version() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("tunnel").instances(2).drain_timeout(3).deploy().await?;
    app.settles_at(2, secs(30)).await?;

    let load = app.steady().rate(50).start();
    let tunnels = app.tunnels(20);
    tunnels.all_speak_with("v1", secs(20)).await?;
    app.roll_to("v2").await?;
    tunnels.all_speak_with("v2", secs(60)).await?;
    load.stop().await?.none_failed()?;
    for client in tunnels.close().await? {
        // Twice where it came back to the other instance of the old version.
        assert!((1..=2).contains(&client.ended) && client.versions == ["v1", "v2"], "{client:?}");
    }
    Ok(())
}

#[tokio::test]
async fn twenty_rolls_lose_no_request() -> Scenario {
    roll_often(20, 5).await
}

#[tokio::test]
#[ignore = "half an hour: scripts/test full --only rolling"]
async fn a_thousand_rolls_lose_no_request() -> Scenario {
    roll_often(1000, 10).await
}

/// Rolls some apps at the same time, so often in all.
async fn roll_often(rolls: usize, apps: usize) -> Scenario {
    let cluster = Cluster::shared().await?;
    let names: Vec<String> = (1..=apps).map(|number| format!("rolls{number}")).collect();
    let apps = names.iter().map(|name| cluster.app(name).instances(2).memory(128).unwatched().deploy());
    let apps = try_join_all(apps).await?;
    let first = apps[0].image().await?;
    apps[0].roll_to("v2").await?;
    let second = apps[0].image().await?;
    assert_ne!(first, second);

    let began = Instant::now();
    let times = rolls.div_ceil(apps.len());
    let loads = try_join_all(apps.iter().map(|app| roll(app, [&second, &first], times))).await?;
    let requests: usize = loads.iter().sum();
    println!("{rolls} rolls under {requests} requests in {:.0} s", began.elapsed().as_secs_f32());
    Ok(())
}

/// Rolls an app so often from one image to the other under steady load; gives the requests, of which none failed.
async fn roll(app: &App<'_>, images: [&str; 2], times: usize) -> Result<usize> {
    let mut requests = 0;
    for time in 0..times {
        // A client for each roll: none may run for ever.
        let load = app.steady().rate(20).start();
        let outcome = app.roll_to_image(images[time % 2]).await;
        let report = load.stop().await?;
        outcome?;
        report.none_failed()?;
        requests += report.requests;
    }
    Ok(requests)
}
