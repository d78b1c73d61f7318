//! The packages, on clean machines.

use std::collections::BTreeSet;

use dinp_integration::testbed::layout::Role;
use dinp_integration::testbed::setup::SOURCE;
use dinp_integration::testbed::{Cluster, Host, Result, Scenario, secs};

const ALL: [&str; 9] = [
    "dinp-common",
    "dinp-server",
    "dinp-agent",
    "dinp-builder",
    "dinp-dash",
    "dinp-router",
    "dinp-hm",
    "dinp-uic",
    "dinp-cli",
];

/// Every path of the host that packages may write to, without what apt and logs write themselves, and
/// without data, which a purge leaves by policy.
async fn files(host: &Host) -> Result<BTreeSet<String>> {
    let text = host
        .exec(
            "find /etc /usr /opt /srv /var /root /home -xdev \
             \\( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache -o -path /var/log \
                -o -path /var/lib/docker -o -path /var/lib/systemd -o -path /srv/dinp-apt \
                -o -path /var/lib/dinp -o -path /var/lib/mysql -o -path /var/lib/redis \
                -o -path /var/lib/containerd -o -path /var/backups -o -path /var/tmp \\) -prune -o -print \
             | grep -vE '^/etc/((passwd|group|shadow|gshadow|subuid|subgid)-?|ld.so.cache|.*lock)$'",
        )
        .await?;
    Ok(text.lines().map(str::to_owned).collect())
}

async fn dinp_units(host: &Host) -> Result<String> {
    host.exec("systemctl daemon-reload; systemctl list-unit-files --no-legend 'dinp*' || true").await
}

#[tokio::test]
async fn each_package_installs_removes_and_purges_without_a_trace() -> Scenario {
    let cluster = Cluster::shared().await?;
    // What the packages of a single machine depend on is there, and nothing of DINP.
    let host = cluster.spare(Role::Control).await?;
    host.exec(SOURCE).await?;
    let before = files(&host).await?;
    let apt = "DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends";

    for package in ALL {
        host.exec(&format!("{apt} install {package}")).await?;
        let failed = host.exec("systemctl list-units --state=failed --no-legend --plain 'dinp*'").await?;
        assert_eq!(failed.trim(), "", "{package} leaves a failed unit on a machine that is not set up");
        host.exec(&format!("{apt} remove {package}")).await?;
        host.exec(&format!("{apt} purge {package} dinp-common")).await?;
        let after = files(&host).await?;
        let left: Vec<&String> = after.difference(&before).collect();
        assert!(left.is_empty(), "{package} leaves {left:?}");
        let units = dinp_units(&host).await?;
        assert_eq!(units.trim(), "", "{package} leaves units");
    }
    Host::discard(&cluster.name, "spare").await?;
    Ok(())
}

#[tokio::test]
async fn the_metapackage_brings_everything_for_a_single_machine() -> Scenario {
    let cluster = Cluster::shared().await?;
    let host = cluster.spare(Role::Control).await?;
    host.exec(SOURCE).await?;
    let apt = "DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends";
    host.exec(&format!("{apt} install dinp")).await?;
    let installed = host.exec("dpkg-query -W -f '${Package}\\n' 'dinp*'").await?;
    for package in ALL {
        assert!(installed.lines().any(|line| line == package), "{package} is missing: {installed}");
    }
    Host::discard(&cluster.name, "spare").await?;
    Ok(())
}

#[tokio::test]
async fn removing_the_agent_stops_no_container_and_says_how_to_drain() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("removed").instances(2).deploy().await?;
    app.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;
    let node = cluster.host("node2");
    let before = node.containers(&app.name).await?;

    let said = node.exec("DEBIAN_FRONTEND=noninteractive apt-get remove -y dinp-agent 2>&1").await?;
    let after = node.containers(&app.name).await;
    node.exec("DEBIAN_FRONTEND=noninteractive apt-get install -y dinp-agent").await?;

    assert_eq!(after?, before);
    assert!(said.contains("drain"), "{said}");
    cluster.cli().nodes_ready(&["node2"], secs(60)).await?;
    app.settles_at(2, secs(60)).await?;
    Ok(())
}
