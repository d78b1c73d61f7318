//! What the original got wrong. Others of its faults have their test beside what it is about:
//! memory booked by the last heartbeat (`scaling`), Docker's open port (`isolation`), one failed probe
//! (`health`), exit codes, logs and shells of builds (`builds`).

use std::collections::BTreeSet;

use dinp_integration::testbed::{Cluster, Scenario, eventually, secs};
use serde::Deserialize;

#[derive(Deserialize)]
struct Orphan {
    app: String,
}

/// It dropped apps when it had read half of a result set.
#[tokio::test]
async fn instances_of_an_app_whose_rows_are_gone_are_kept_as_orphans() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("orphan").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    let before = app.started().await?;

    // Rows that vanish without a word, as half a result set looks to whoever reads it.
    cluster
        .sql(&format!(
            "SET FOREIGN_KEY_CHECKS = 0; UPDATE revision SET rev = rev + 1; \
             DELETE FROM app WHERE name = '{}';",
            app.name
        ))
        .await?;
    eventually("two orphans are listed", secs(90), async || {
        let orphans: Vec<Orphan> = cluster.cli().list(&["orphan", "ls"]).await.map_err(|error| error.chain())?;
        let count = orphans.iter().filter(|orphan| orphan.app == app.name).count();
        if count == 2 { Ok(()) } else { Err(format!("{count}")) }
    })
    .await?;
    assert_eq!(app.started().await?, before, "an absence was taken for an order");
    assert_eq!(app.get("/version").await?.status, 200);

    // Only this stops them.
    let ids: Vec<OrphanId> = cluster.cli().list(&["orphan", "ls"]).await?;
    for orphan in ids.iter().filter(|orphan| orphan.app == app.name) {
        cluster.dinp(&["orphan", "rm", &orphan.instance, "--yes"]).await?;
    }
    eventually("no container is left", secs(60), async || {
        let left = app.started().await.map_err(|error| error.chain())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await?;
    Ok(())
}

#[derive(Deserialize)]
struct OrphanId {
    app: String,
    instance: String,
}

/// It created instances again in each round, because heartbeats lag behind.
#[tokio::test]
async fn a_node_that_reports_late_gets_no_instance_twice() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("lag").instances(1).deploy().await?;
    let node = cluster.host("node1");

    // Less than what makes a node suspect, and several rounds of the server.
    node.exec("systemctl kill --signal=STOP dinp-agent").await?;
    app.scale(5).await?;
    tokio::time::sleep(secs(3)).await;
    node.exec("systemctl kill --signal=CONT dinp-agent").await?;

    let settled = app.settles_at(5, secs(30)).await?;
    let mut created = BTreeSet::new();
    for name in ["node1", "node2"] {
        let text = cluster
            .host(name)
            .exec(&format!("docker ps --all --quiet --no-trunc --filter label=dinp.app={}", app.name))
            .await?;
        created.extend(text.lines().map(str::to_owned));
    }
    assert_eq!(created.len(), settled.len(), "containers ever created: {created:?}");
    Ok(())
}

/// It removed old instances even when no new one had started.
#[tokio::test]
async fn a_version_that_never_gets_ready_takes_nothing_away() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("broken").instances(2).deploy().await?;
    app.settles_at(2, secs(30)).await?;
    let before = app.started().await?;

    let load = app.steady().rate(50).start();
    let broken = cluster.package("tree-binary").await?.with_file("control", "#!/bin/bash\nexit 1\n")?.packed().await?;
    let outcome = cluster.dinp(&["app", "deploy", &app.name, &broken, "--runtime", "binary"]).await;
    assert!(outcome.is_err(), "a release that cannot start is said to be deployed: {outcome:?}");
    load.stop().await?.none_failed()?;

    app.answers("v1").await?;
    app.settles_at(2, secs(60)).await?;
    assert_eq!(app.started().await?, before, "the old instances are not those from before");
    Ok(())
}
