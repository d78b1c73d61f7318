//! From a booted host to one that does its job: packages by apt, then `dinp setup`, as an operator would.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::error::{Error, Result};
use super::host::Host;
use super::layout::{ADMIN, DOMAIN, Role};
use super::state::at;

/// Where a host sees the project's apt repository.
pub const REPOSITORY: &str = "/srv/dinp-apt";
/// Where the control host sees the base images.
pub const BASE_IMAGES: &str = "/srv/dinp-base-images";

/// Addresses under which a browser on this machine reaches the cluster.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// Applications.
    pub router: u16,
    /// Dashboard.
    pub dash: u16,
    /// Sign-on.
    pub uic: u16,
}

/// Installs packages from the project's repository; the same repository twice is nothing the second time.
///
/// Only that repository's list is fetched: what else the packages depend on is in the host's image.
pub async fn install(host: &Host, packages: &[&str], repository_key: &str) -> Result<()> {
    once(host, "packages", repository_key, async || host.exec(&install_command(packages)).await.map(drop)).await
}

/// The command that does it. A rebuilt package keeps its version, hence `--reinstall`.
pub fn install_command(packages: &[&str]) -> String {
    format!(
        "{SOURCE}
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y --no-install-recommends --reinstall \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
            $(dpkg-query -W -f '${{Package}} ' 'dinp-common' 2>/dev/null || true) {}",
        packages.join(" ")
    )
}

/// Makes the repository known to a host's apt.
pub const SOURCE: &str = "
    echo 'deb [trusted=yes] file:/srv/dinp-apt ./' >/etc/apt/sources.list.d/dinp.list
    apt-get update -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/dinp.list \
        -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0";

/// Sets up the control host.
pub async fn control(host: &Host, ports: Ports, password: &str, key: &str) -> Result<()> {
    once(host, "setup-control", key, async || {
        let file = "/run/dinp-first-login";
        host.exec_with(&format!("umask 077; cat >{file}"), Some(password)).await?;
        let command = format!(
            "dinp setup control --name {name} --address {address} --domain {DOMAIN} \
             --dash-url http://127.0.0.1:{dash} --uic-url http://127.0.0.1:{uic} \
             --router-url http://127.0.0.1:{router} --admin {ADMIN} --admin-password-file {file}",
            name = host.name,
            address = host.address,
            dash = ports.dash,
            uic = ports.uic,
            router = ports.router,
        );
        let outcome = host.exec(&command).await;
        host.exec(&format!("rm -f {file}")).await?;
        outcome.map(drop)
    })
    .await
}

/// Sets up a node, a router or a further server with a bundle that the control host issues for it.
pub async fn member(host: &Host, role: Role, control: &Host) -> Result<()> {
    let kind = match role {
        Role::Control => return Err(Error::other("the control host needs no bundle")),
        Role::Server => "server",
        Role::Node => "node",
        Role::Router => "router",
    };
    // A new control host knows no bundle of the old one.
    let key = control.exec("cat /etc/machine-id").await?;
    once(host, "setup-member", key.trim(), async || {
        let issue = format!("dinp setup {kind}-bundle {} --address {}", host.name, host.address);
        let bundle = control.exec(&issue).await?;
        host.exec_with(&format!("dinp setup {kind} --bundle -"), Some(&bundle)).await.map(drop)
    })
    .await
}

/// Tells a host which servers there are.
pub async fn servers(host: &Host, servers: &[&Host]) -> Result<()> {
    let urls: Vec<String> = servers.iter().map(|server| format!("http://{}:1980", server.address)).collect();
    let urls = urls.join(" ");
    once(host, "setup-servers", &urls, async || host.exec(&format!("dinp setup servers {urls}")).await.map(drop)).await
}

/// Hands the base images to the control host's engine and registry.
pub async fn base_images(control: &Host, dir: &Path) -> Result<()> {
    let key = listing_key(dir)?;
    once(control, "base-images", &key, async || {
        control.exec(&format!("dinp setup base-images {BASE_IMAGES}")).await.map(drop)
    })
    .await
}

/// Does something on a host unless it was done with this key before.
async fn once(host: &Host, what: &str, key: &str, work: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let stamp = format!("/var/lib/dinp-testbed/{what}");
    if host.succeeds(&format!("[ \"$(cat {stamp})\" = '{key}' ]")).await {
        return Ok(());
    }
    work().await?;
    host.exec(&format!("mkdir -p /var/lib/dinp-testbed && echo '{key}' >{stamp}")).await.map(drop)
}

/// A key of an apt repository: its index names every package by its hash.
pub fn repository_key(dir: &Path) -> Result<String> {
    let index = dir.join("Packages");
    let content = std::fs::read(&index).map_err(at("read", &index))?;
    Ok(hex(&Sha256::digest(content)))
}

/// A key of the root file systems: names, sizes and times.
fn listing_key(dir: &Path) -> Result<String> {
    let mut entries: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(at("read", dir))? {
        let entry = entry.map_err(at("read", dir))?;
        if entry.path().extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        let meta = entry.metadata().map_err(at("read", &entry.path()))?;
        let modified = meta.modified().map_err(at("read", &entry.path()))?;
        entries.push(format!("{:?} {} {modified:?}", entry.file_name(), meta.len()));
    }
    entries.sort();
    Ok(hex(&Sha256::digest(entries.join("\n"))))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
