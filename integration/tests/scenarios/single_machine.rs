//! One machine that is everything: `apt install dinp`, `dinp setup single`, and the way back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use dinp_integration::testbed::layout::Role;
use dinp_integration::testbed::setup::{BASE_IMAGES, SOURCE};
use dinp_integration::testbed::{Cluster, Error, Host, Result, Scenario};

use crate::packages::{ALL, APT, files};

/// Prints the container of the app's instance.
const INSTANCE: &str = "docker ps --quiet --filter label=dinp.app=web";
const PASSWORD: &str = "a password of the scenario";

/// A browser sends the dashboard's cookies to every port of its host: an app that answers there by its own port could
/// take over the session of whoever is led to it.
#[tokio::test]
async fn all_in_one_serves_apps_through_its_router_alone_and_goes_without_a_trace() -> Scenario {
    let cluster = Cluster::shared().await?;
    let host = cluster.spare(Role::Control).await?;
    host.exec(SOURCE).await?;
    let before = files(&host).await?;
    host.exec(&format!("{APT} install dinp")).await?;
    let installed = host.exec("dpkg-query -W -f '${Package}\\n' 'dinp*'").await?;
    for package in ALL {
        assert!(installed.lines().any(|line| line == package), "{package} is missing: {installed}");
    }

    host.exec_with("umask 077; cat >/run/password", Some(PASSWORD)).await?;
    host.exec("dinp setup single --admin-password-file /run/password").await?;
    // It ends with 2 if a second run would change something.
    host.exec("dinp setup single --check").await?;
    host.exec(&format!("dinp setup base-images {BASE_IMAGES}")).await?;

    let package = cluster.package("web-binary").await?.packed().await?;
    host.copy(&package.named("web.tar.gz")?, "/root/web.tar.gz").await?;
    let login = format!("dinp login --server http://{}:1985 --username admin --password-stdin", host.address);
    host.exec_with(&login, Some(PASSWORD)).await?;
    host.exec("dinp deploy /root/web.tar.gz --app web --runtime binary --health /health --wait").await?;

    let served = host.exec(&format!("curl -fsS -H 'Host: web.apps.localhost' http://{}/", host.address)).await?;
    assert!(!served.is_empty());
    let port = published_port(&host).await?;
    host.exec(&format!("curl -fsS http://127.0.0.1:{port}/health")).await?;
    let environment = host.exec(&format!("docker inspect --format '{{{{.Config.Env}}}}' $({INSTANCE})")).await?;
    assert!(environment.contains(&format!("HOST_IP={}", host.address)), "{environment}");
    let from_outside = SocketAddr::from((host.address, port));
    let connection = tokio::time::timeout(Duration::from_secs(2), TcpStream::connect(from_outside)).await;
    assert!(!matches!(connection, Ok(Ok(_))), "{from_outside} is open to everybody");

    host.exec(&format!("{APT} purge 'dinp*'")).await?;
    let after = files(&host).await?;
    let left: Vec<&String> = after.difference(&before).filter(|path| !is_of_others(path)).collect();
    assert!(left.is_empty(), "a machine that was set up keeps {left:?}");
    let units = host.exec("systemctl daemon-reload; systemctl list-unit-files --no-legend 'dinp*' || true").await?;
    assert_eq!(units.trim(), "", "units are left");
    let running = host.exec(INSTANCE).await?;
    assert!(!running.trim().is_empty(), "the purge stopped an app");
    Host::discard(&cluster.name, "spare").await?;
    Ok(())
}

/// The port that the app's instance is published on, for this machine alone.
async fn published_port(host: &Host) -> Result<u16> {
    let ports = host.exec("docker ps --filter label=dinp.app=web --format '{{.Ports}}'").await?;
    let published = ports.trim().strip_prefix("127.0.0.1:").and_then(|rest| rest.split('-').next()?.parse().ok());
    published.ok_or_else(|| Error::other(format!("the app is published as {ports:?}, not for this machine alone")))
}

/// What `dinp setup` told MariaDB, Redis, the registry and Docker stays, and the images, as docs/packages.md says; and
/// what this scenario put into root's home.
fn is_of_others(path: &str) -> bool {
    let units = ["mariadb", "redis-server", "docker-registry"];
    // The registry's second listener and its collector of garbage are units that setup wrote: they are the registry's.
    let registry = ["docker-registry-readonly.service", "docker-registry-gc.service", "docker-registry-gc.timer"];
    let is_registry = path.starts_with("/etc/systemd/system/") && registry.iter().any(|unit| path.ends_with(unit));
    let places = ["/etc/mysql/", "/etc/redis", "/etc/docker", "/var/lib/docker-registry", "/root/"];
    is_registry
        || places.iter().any(|place| path.starts_with(place))
        || units.iter().any(|unit| path.starts_with(&format!("/etc/systemd/system/{unit}.service.d")))
}
