//! What people read once a cluster is up.

use dinp_integration::testbed::samples;

use super::{ADMIN, Cluster, Progress, Result, Up};

/// Where everything is, how to look inside, how to take it down.
pub fn print(up: &Up, progress: &Progress) -> Result<()> {
    let cluster = &up.cluster;
    let router = cluster.published(80)?;
    let dashboard = cluster.dashboard()?;
    let name = &cluster.name;
    progress.say(&format!("cluster {name} is up"));
    println!();
    println!("  Dashboard    {dashboard}    login {ADMIN}, password {}", up.password);
    println!();
    println!("  Samples");
    for sample in samples::ALL {
        println!("    curl http://{}:{router}/", sample.domain());
    }
    if name == "quickstart" {
        println!();
        println!(
            "  Look inside  sudo scripts/quickstart shell node1     (then: systemctl status 'dinp-*', journalctl -u dinp-agent)"
        );
        println!("               sudo scripts/quickstart status | logs | dinp ps hello");
        println!("  Take down    sudo scripts/quickstart down            (down --purge removes cached images too)");
    }
    println!();
    Ok(())
}

/// Hosts, units and containers, as text.
pub async fn status(cluster: &Cluster) -> Result<String> {
    let mut lines: Vec<String> = Vec::new();
    for host in cluster.hosts() {
        let state = host.state().await?;
        lines.push(format!("{:<8} {:<14} {state}", host.name, host.address));
        if state != "running" {
            continue;
        }
        let units = host.exec(UNITS).await?;
        let containers = host.exec(CONTAINERS).await?;
        lines.extend(units.lines().chain(containers.lines()).map(|line| format!("           {line}")));
    }
    lines.push(String::new());
    Ok(lines.join("\n"))
}

const UNITS: &str = "systemctl list-units --all --plain --no-legend 'dinp-*.service' 'dinp-*.socket' | \
                     awk '{print $1, $3, $4}'";
const CONTAINERS: &str = "! command -v docker >/dev/null || docker ps --filter label=dinp.app \
                          --format '{{.Names}}  {{.Status}}  {{.Ports}}'";
