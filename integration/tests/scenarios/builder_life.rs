//! A builder that is upgraded, killed, or whose host is booted anew: what was handed to it becomes an image. And what becomes
//! of images that nobody needs.

use dinp_integration::testbed::{Cluster, Error, Result, Scenario, eventually, secs};
use serde::Deserialize;

use crate::packages::APT;

#[derive(Debug, Deserialize)]
struct Build {
    id: u64,
    status: String,
    attempt: u8,
    #[serde(default)]
    reason: String,
    image: Option<String>,
}

async fn newest(cluster: &Cluster, app: &str) -> Result<Build> {
    let builds: Vec<Build> = cluster.cli().list(&["build", "ls", "--app", app]).await?;
    builds.into_iter().max_by_key(|build| build.id).ok_or_else(|| Error::other(format!("{app} has no build")))
}

/// When the builder's socket was opened.
async fn socket_opened(cluster: &Cluster) -> Result<String> {
    cluster.host("control").exec("systemctl show -P ActiveEnterTimestampMonotonic dinp-builder.socket").await
}

#[tokio::test]
async fn an_upload_and_its_build_come_through_an_upgrade_of_the_builder() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 150 << 20)?.packed().await?;
    cluster.dinp(&["app", "create", "t-upgrade"]).await?;
    let opened = socket_opened(&cluster).await?;

    let args = ["build", &package, "--app", "t-upgrade", "--runtime", "binary"];
    let upgrades = async {
        let arrives = "ls /var/lib/dinp/builder/uploads/*.part";
        eventually("the package arrives", secs(30), async || {
            if control.succeeds(arrives).await { Ok(()) } else { Err("there is no part of it".to_owned()) }
        })
        .await?;
        control.exec(&format!("{APT} install --reinstall dinp-builder")).await
    };
    let (built, upgraded) = tokio::join!(cluster.dinp(&args), upgrades);
    upgraded?;
    built?;
    assert_eq!(newest(&cluster, "t-upgrade").await?.status, "succeeded");
    assert_eq!(socket_opened(&cluster).await?, opened, "the socket was open throughout");
    let left = control.exec("find /var/lib/dinp/builder/builds /var/lib/dinp/builder/uploads -name '*.pa*'").await?;
    assert_eq!(left.trim(), "", "packages are left");
    Ok(())
}

#[tokio::test]
async fn a_build_goes_on_where_its_builder_was_killed() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 150 << 20)?.packed().await?;
    cluster.dinp(&["app", "create", "t-killed"]).await?;
    let args = ["build", &package, "--app", "t-killed", "--runtime", "binary"];
    let kill = async {
        eventually("it is being built", secs(60), async || {
            let build = newest(&cluster, "t-killed").await.map_err(|error| error.to_string())?;
            if build.status == "running" { Ok(()) } else { Err(build.status) }
        })
        .await?;
        control.exec("systemctl kill --signal KILL dinp-builder.service").await
    };
    let (built, killed) = tokio::join!(cluster.dinp(&args), kill);
    killed?;
    built?;
    let build = newest(&cluster, "t-killed").await?;
    assert_eq!((build.status.as_str(), build.attempt), ("succeeded", 2), "{}", build.reason);
    Ok(())
}

#[tokio::test]
async fn images_that_no_release_names_go_and_give_their_place_back() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    let app = cluster.app("t-images").instances(1).deploy().await?;
    app.settles_at(1, secs(30)).await?;
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 60 << 20)?.packed().await?;
    let args = ["build", &package, "--app", "t-images", "--runtime", "binary", "--package-version", "never-deployed"];
    cluster.dinp(&args).await?;
    let image = newest(&cluster, "t-images").await?.image.unwrap_or_default();
    assert!(cluster.dinp(&["image", "ls", "t-images"]).await?.contains("never-deployed"), "{image}");
    cluster.sql("UPDATE image SET pushed_at = pushed_at - INTERVAL 20 DAY WHERE app = 't-images'").await?;

    let used = async || -> Result<u64> {
        let kib = control.exec("du -sk /var/lib/docker-registry | cut -f1").await?;
        kib.trim().parse().map_err(|_| Error::other(format!("du says {kib:?}")))
    };
    let before = used().await?;
    control.exec("systemctl start dinp-builder-upkeep.service").await?;
    let said = control.exec("journalctl -u dinp-builder-upkeep.service --no-pager -o cat").await?;
    assert!(said.contains("never-deployed@sha256:") && said.contains(" images are deleted"), "{said}");
    let left = cluster.dinp(&["image", "ls", "t-images"]).await?;
    assert!(!left.contains("never-deployed") && left.contains("yes"), "what is released stays: {left}");

    control.exec("systemctl start docker-registry-gc.service").await?;
    eventually("images can be pushed again", secs(30), async || {
        if control.succeeds("systemctl is-active docker-registry.service").await {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await?;
    let freed = before.saturating_sub(used().await?);
    assert!(freed > 50 << 10, "{freed} KiB of 60 MiB are free again");

    // What is in force is whole: another node pulls it, and the next build is pushed.
    cluster.dinp(&["app", "scale", "t-images", "3", "--wait"]).await?;
    let args = ["build", &package, "--app", "t-images", "--runtime", "binary", "--package-version", "afterwards"];
    cluster.dinp(&args).await?;
    assert_eq!(newest(&cluster, "t-images").await?.status, "succeeded");
    Ok(())
}
