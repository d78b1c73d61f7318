//! Packages become images, and what goes wrong on that way can be read.

use dinp_integration::testbed::{Cluster, Error, Result, Scenario};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Build {
    id: u64,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    image: Option<String>,
}

async fn newest(cluster: &Cluster, app: &str) -> Result<Build> {
    let builds: Vec<Build> = cluster.cli().list(&["build", "ls", "--app", app]).await?;
    builds.into_iter().max_by_key(|build| build.id).ok_or_else(|| Error::other(format!("{app} has no build")))
}

#[tokio::test]
async fn a_push_that_fails_fails_the_build() -> Scenario {
    let cluster = Cluster::shared().await?;
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 1000)?.packed().await?;
    let control = cluster.host("control");
    cluster.dinp(&["app", "create", "t-push"]).await?;

    control.exec("systemctl stop docker-registry").await?;
    let outcome = cluster.dinp(&["build", &package, "--app", "t-push", "--runtime", "binary"]).await;
    control.exec("systemctl start docker-registry").await?;

    assert!(outcome.is_err(), "the build is said to have succeeded: {outcome:?}");
    let build = newest(&cluster, "t-push").await?;
    assert_eq!(build.status, "failed");
    assert_eq!(build.image, None);
    assert!(!build.reason.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_log_of_a_build_outlives_its_builder() -> Scenario {
    let cluster = Cluster::shared().await?;
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 1000)?.packed().await?;
    cluster.dinp(&["app", "create", "t-log"]).await?;
    cluster.dinp(&["build", &package, "--app", "t-log", "--runtime", "binary"]).await?;
    let build = newest(&cluster, "t-log").await?;
    assert_eq!(build.status, "succeeded", "{}", build.reason);

    // All that the builder's machine has of it is gone.
    cluster.host("control").exec("systemctl stop dinp-builder.service; rm -rf /var/lib/dinp/builder/*").await?;
    let log = cluster.dinp(&["build", "log", &build.id.to_string()]).await?;
    assert!(log.lines().count() > 2, "the log is {log:?}");
    Ok(())
}

#[tokio::test]
async fn what_users_write_reaches_no_shell() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    let evil = "x; touch /tmp/owned; $(touch /tmp/owned) `touch /tmp/owned` && 'q' \"d\"";
    let package = cluster.package("web-binary").await?.with_file("$(touch owned); 'a' \"b\"", "a file")?;
    let package = package.packed().await?;
    let named = package.named("$(touch owned);`touch owned`.tar.gz")?;
    cluster.dinp(&["app", "create", "t-shell"]).await?;

    let refused =
        cluster.dinp(&["build", &named, "--app", "t-shell", "--runtime", "binary", "--package-version", evil]).await;
    assert!(refused.is_err(), "a version is 1 to 64 letters, digits, `.`, `_`, `-`");
    cluster.dinp(&["build", &named, "--app", "t-shell", "--runtime", "binary"]).await?;

    let found = control
        .exec("find / -xdev \\( -path /proc -o -path /sys \\) -prune -o -name owned -print 2>/dev/null || true")
        .await?;
    assert_eq!(found.trim(), "");
    Ok(())
}
