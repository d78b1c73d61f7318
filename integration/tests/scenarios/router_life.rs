//! A router that is reloaded, restarted, upgraded or killed: nobody who asks notices. And what it says of its work.

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};

use crate::packages::APT;

#[tokio::test]
async fn reloads_restarts_and_upgrades_of_routers_lose_no_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("life").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    // Over connections that are kept, as browsers do.
    let load = app.steady().rate(200).start();
    let reinstall = format!("{APT} install --reinstall dinp-router");
    for act in ["systemctl reload dinp-router", "systemctl restart dinp-router", &reinstall] {
        for router in cluster.routers() {
            router.exec(act).await?;
            eventually("the router is active", secs(30), async || {
                if router.succeeds("systemctl is-active dinp-router").await { Ok(()) } else { Err(act.to_owned()) }
            })
            .await?;
        }
    }
    let report = load.stop().await?;
    println!("{} requests", report.requests);
    report.none_failed()?;
    Ok(())
}

#[tokio::test]
async fn tunnels_that_stay_through_a_restart_keep_nobody_waiting() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("stay").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    let tunnels = app.tunnels(10);
    tunnels.all_speak_with("v1", secs(20)).await?;
    let load = app.steady().rate(100).start();
    // They never end by themselves: the router cuts them off when its drain_timeout_secs are over.
    cluster.host("router1").exec("systemctl restart dinp-router").await?;
    let took = load.elapsed();
    let report = load.stop().await?;
    report.none_failed()?;
    println!(
        "restarted in {:.1} s; the longest request took {:.1} s",
        took.as_secs_f32(),
        report.longest.as_secs_f32()
    );
    assert!(took > secs(20) && report.longest < secs(10), "{took:?}, {:?}", report.longest);
    let ended: Vec<usize> = tunnels.close().await?.iter().map(|client| client.ended).collect();
    // One that comes back while another thread of the router still ends may meet that.
    assert_eq!(ended.iter().filter(|ended| **ended > 0).count(), 5, "those of one router: {ended:?}");
    assert!(ended.iter().all(|ended| *ended <= 2), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_router_loses_what_was_in_flight_and_refuses_nobody() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("kill").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    let load = app.steady().rate(200).start();
    for router in cluster.routers() {
        let before = router.exec("systemctl show dinp-router -p MainPID --value").await?;
        router.exec("systemctl kill --signal=KILL dinp-router").await?;
        eventually("systemd starts it again", secs(30), async || {
            let now =
                router.exec("systemctl show dinp-router -p MainPID --value").await.map_err(|error| error.chain())?;
            if now != before && now.trim() != "0" { Ok(()) } else { Err(now) }
        })
        .await?;
    }
    let report = load.stop().await?;
    // At 200 requests a second that take a few milliseconds each, hardly any are under way at a time.
    let failed: Vec<String> = report.failures.iter().map(ToString::to_string).collect();
    println!("{} of {} requests failed: {failed:?}", failed.len(), report.requests);
    assert!(failed.len() <= 10, "{failed:?}");
    assert!(!failed.iter().any(|what| what.contains("refused")), "{failed:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_router_does_can_be_seen() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("seen").instances(1).deploy().await?;
    app.settles_at(1, secs(30)).await?;
    let router = cluster.host("router1");
    router
        .exec(
            "mkdir -p /etc/dinp/router.toml.d
             echo 'access_log = \"journal\"' >/etc/dinp/router.toml.d/50-log.toml
             systemctl restart dinp-router",
        )
        .await?;
    eventually("a request stands in the journal", secs(30), async || {
        app.get("/version?token=secret").await.map_err(|error| error.chain())?;
        let lines = router.exec("journalctl -t dinp-router-access -o cat -n 5").await.map_err(|error| error.chain())?;
        let name = format!("\"app\":\"{}\"", app.name);
        let found = lines.lines().find(|line| line.contains(&name)).ok_or_else(|| lines.clone())?;
        assert!(found.contains("\"path\":\"/version\"") && !found.contains("secret"), "{found}");
        Ok(())
    })
    .await?;
    let top = router.exec("dinp-router top --once --interval 1").await?;
    assert!(top.contains(&app.name) && top.contains("IN FLIGHT"), "{top}");
    router.exec("rm /etc/dinp/router.toml.d/50-log.toml; systemctl restart dinp-router").await?;
    Ok(())
}
