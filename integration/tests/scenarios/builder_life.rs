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
    let left = control.exec("ls /var/lib/dinp/builder/builds").await?;
    assert_eq!(left.trim(), "", "packages are left");
    // What others were refused is kept for a while.
    let own = "grep -ls t-upgrade /var/lib/dinp/builder/uploads/*.json | sed 's/json$/part/' | xargs -r ls 2>/dev/null || true";
    assert_eq!(control.exec(own).await?.trim(), "", "the upload is left");
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
    let app = cluster.app("images").instances(1).deploy().await?;
    app.settles_at(1, secs(30)).await?;
    let name = app.name.as_str();
    let package = cluster.package("web-binary").await?.with_ballast("ballast", 60 << 20)?.packed().await?;
    let args = ["build", &package, "--app", name, "--runtime", "binary", "--package-version", "never-deployed"];
    cluster.dinp(&args).await?;
    let image = newest(&cluster, name).await?.image.unwrap_or_default();
    assert!(cluster.dinp(&["image", "ls", name]).await?.contains("never-deployed"), "{image}");
    let old = format!("UPDATE image SET pushed_at = pushed_at - INTERVAL 20 DAY WHERE app = '{name}'");
    cluster.sql(&old).await?;

    let used = async || -> Result<u64> {
        let kib = control.exec("du -sk /var/lib/docker-registry | cut -f1").await?;
        kib.trim().parse().map_err(|_| Error::other(format!("du says {kib:?}")))
    };
    let before = used().await?;
    control.exec("systemctl start dinp-builder-upkeep.service").await?;
    let said = control.exec("journalctl -u dinp-builder-upkeep.service --no-pager -o cat").await?;
    assert!(said.contains("never-deployed@sha256:") && said.contains(" images are deleted"), "{said}");
    let left = cluster.dinp(&["image", "ls", name]).await?;
    assert!(!left.contains("never-deployed"), "{left}");

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
    cluster.dinp(&["app", "scale", name, "3", "--wait"]).await?;
    let args = ["build", &package, "--app", name, "--runtime", "binary", "--package-version", "afterwards"];
    cluster.dinp(&args).await?;
    assert_eq!(newest(&cluster, name).await?.status, "succeeded");
    Ok(())
}

#[tokio::test]
async fn an_app_moves_to_its_patched_base_without_its_package_and_without_a_failed_request() -> Scenario {
    let cluster = Cluster::shared().await?;
    let control = cluster.host("control");
    let package = cluster.package("web-binary").await?.packed().await?;
    let args =
        ["deploy", &package, "--app", "t-rebase", "--runtime", "binary", "--instances", "2", "--health", "/health"];
    cluster.dinp(&args).await?;
    let current = cluster.dinp(&["build", "rebase", "t-rebase", "--check"]).await?;
    assert!(current.contains("is current"), "{current}");

    // As `dinp setup base-images` does when packages of the base have changed.
    let patch = r#"
        set -e
        export DOCKER_CONFIG=$(mktemp -d)
        IFS=: read -r user password </etc/dinp/credentials/registry-push
        push=$(sed -n 's/^push_address = "\(.*\)"/\1/p' /etc/dinp/dinp.toml.d/10-setup.toml)
        echo "$password" | docker login --username "$user" --password-stdin "$push"
        base=$push/dinp/base-binary:bookworm
        docker pull --quiet "$base"
        printf 'FROM %s\nENV PATCHED=1\n' "$base" | docker build --quiet --tag "$base" -
        docker push --quiet "$base"
        digest=$(docker inspect --format '{{index .RepoDigests 0}}' "$base" | cut -d@ -f2)
        sed -i "s|^\(\"dinp/base-binary:bookworm\" = \)\".*\"|\1\"$digest\"|" /etc/dinp/builder.toml.d/*.toml
        systemctl stop dinp-builder.service
        docker rmi --force "$base""#;
    control.exec(patch).await?;
    let due = cluster.dinp(&["build", "rebase", "t-rebase", "--check"]).await?;
    assert!(due.contains("can be moved"), "{due}");
    let load = cluster.steady("t-rebase.apps.localhost").rate(50).start();
    let moved = cluster.dinp(&["build", "rebase", "t-rebase"]).await?;
    assert!(moved.contains("is moved, release "), "{moved}");
    load.stop().await?.none_failed()?;
    let mut patched = 0;
    for host in cluster.hosts() {
        let inspect = "docker ps -q --filter label=dinp.app=t-rebase | xargs -r docker inspect -f '{{.Config.Env}}'";
        let environments = host.exec(&format!("command -v docker >/dev/null && {inspect} || true")).await?;
        patched += environments.matches("PATCHED=1").count();
    }
    assert_eq!(patched, 2, "both instances stand on the patched base");
    Ok(())
}
