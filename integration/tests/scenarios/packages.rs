//! The packages, on clean machines.

use std::collections::BTreeSet;

use dinp_integration::testbed::layout::Role;
use dinp_integration::testbed::setup::SOURCE;
use dinp_integration::testbed::{Cluster, Host, Result, Scenario, secs};

/// Each package by itself.
pub const ALL: [&str; 9] = [
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

/// apt as a script runs it.
pub const APT: &str = "DEBIAN_FRONTEND=noninteractive apt-get -y --no-install-recommends";

/// Every path of the host that packages may write to, without what apt and logs write themselves, and
/// without data, which a purge leaves by policy.
pub async fn files(host: &Host) -> Result<BTreeSet<String>> {
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

    for package in ALL {
        host.exec(&format!("{APT} install {package}")).await?;
        let failed = host.exec("systemctl list-units --state=failed --no-legend --plain 'dinp*'").await?;
        assert_eq!(failed.trim(), "", "{package} leaves a failed unit on a machine that is not set up");
        host.exec(&format!("{APT} remove {package}")).await?;
        host.exec(&format!("{APT} purge {package} dinp-common")).await?;
        let after = files(&host).await?;
        let left: Vec<&String> = after.difference(&before).collect();
        assert!(left.is_empty(), "{package} leaves {left:?}");
        let units = dinp_units(&host).await?;
        assert_eq!(units.trim(), "", "{package} leaves units");
    }
    Host::discard(&cluster.name, "spare").await?;
    Ok(())
}

/// The way that the package tells an operator, and docs/packages.md.
#[tokio::test]
async fn removing_the_agent_stops_no_container_and_the_node_is_drained_as_it_says() -> Scenario {
    let cluster = Cluster::shared().await?;
    let app = cluster.app("removed").instances(2).deploy().await?;
    app.settles(&[("node1", 1), ("node2", 1)], secs(30)).await?;
    let node = cluster.host("node2");
    let before = node.containers(&app.name).await?;
    let load = app.steady().rate(50).start();

    let said = node.exec("DEBIAN_FRONTEND=noninteractive apt-get remove -y dinp-agent 2>&1").await?;
    let drained = async {
        assert_eq!(node.containers(&app.name).await?, before);
        assert!(said.contains("drain"), "{said}");
        app.serves_on("node1", 2, secs(90)).await?;
        app.serves_on("node2", 0, secs(10)).await?;
        let stop = "docker stop $(docker ps -q --filter label=dinp.cluster)";
        assert!(said.contains(stop), "{said}");
        node.exec(stop).await
    };
    let drained = drained.await;
    node.exec("DEBIAN_FRONTEND=noninteractive apt-get install -y dinp-agent").await?;
    drained?;

    cluster.cli().nodes_ready(&["node2"], secs(60)).await?;
    app.settles_at(2, secs(60)).await?;
    load.stop().await?.none_failed()?;
    Ok(())
}
