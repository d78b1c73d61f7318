//! One host: a container with systemd as PID 1.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::docker::{LABEL, docker, run_with};
use super::error::{Error, Result};
use super::eventually::eventually;
use super::layout::{Planned, Subnet};

/// How long a host may take to boot.
const BOOT: Duration = Duration::from_secs(90);

/// Capabilities in the kernel's order, without those that older engines do not know
/// (PERFMON, BPF, CHECKPOINT_RESTORE come last).
const CAPABILITIES: [&str; 38] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
];

/// A host of a cluster.
#[derive(Clone, Debug)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// Name of its container.
    pub container: String,
    /// Its address in the cluster's network.
    pub address: Ipv4Addr,
}

/// What a new host is made from.
pub struct Blueprint<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// The host.
    pub planned: Planned,
    /// Its image.
    pub image: &'a str,
    /// The cluster's network.
    pub subnet: Subnet,
    /// All hosts of the cluster with their addresses: there is no name server.
    pub peers: &'a [(&'a str, Ipv4Addr)],
    /// `address:port:port` to publish on this machine.
    pub published: Vec<String>,
    /// Directories of this machine to show in the host, read only.
    pub mounts: &'a [(&'a str, &'a str)],
    /// Debian's name of the suite.
    pub codename: &'a str,
}

impl Host {
    /// Names of a host's container and its volume for the inner engine.
    #[must_use]
    pub fn names(cluster: &str, host: &str) -> (String, String) {
        let container = format!("dinp-{cluster}-{host}");
        let volume = format!("{container}-docker");
        (container, volume)
    }

    /// Makes and starts a host; it has not booted yet when this returns.
    pub async fn create(blueprint: &Blueprint<'_>) -> Result<Self> {
        let planned = blueprint.planned;
        let (container, volume) = Self::names(blueprint.cluster, planned.name);
        let address = blueprint.subnet.address(planned.last_byte);
        let mut args = Arguments::default();
        args.flag("run").flag("--detach");
        args.pair("--name", &container).pair("--hostname", planned.name);
        args.pair("--label", &format!("{LABEL}={}", blueprint.cluster));
        args.pair("--label", &format!("dinp.host={}", planned.name));
        args.pair("--network", &format!("dinp-{}", blueprint.cluster));
        args.pair("--ip", &address.to_string());
        for (name, address) in blueprint.peers {
            args.pair("--add-host", &format!("{name}:{address}"));
        }
        for port in &blueprint.published {
            args.pair("--publish", port);
        }
        for (outside, inside) in blueprint.mounts {
            args.pair("--volume", &format!("{outside}:{inside}:ro"));
        }
        if planned.role.has_engine() {
            // On the container's own overlay the inner engine would fall back to copying (vfs).
            let label = format!("{LABEL}={}", blueprint.cluster);
            docker(&["volume", "create", "--label", &label, &volume]).await?;
            args.pair("--volume", &format!("{volume}:/var/lib/docker"));
        }
        machine_arguments(&mut args, blueprint.codename)?;
        args.flag(blueprint.image);
        // Mounts have to reach the services (LoadCredential), hence shared before systemd starts.
        args.flag("/bin/sh").pair("-c", "mount --make-rshared / && exec /sbin/init");
        docker(&args.0).await?;
        Ok(Self { name: planned.name.to_owned(), container, address })
    }

    /// Removes a host with its volume, if there is one of this name.
    pub async fn discard(cluster: &str, host: &str) -> Result<()> {
        let (container, volume) = Self::names(cluster, host);
        docker(&["rm", "--force", "--volumes", &container]).await?;
        docker(&["volume", "rm", "--force", &volume]).await.map(drop)
    }

    /// Waits until systemd has started everything; a failed unit of the distribution is no obstacle.
    pub async fn booted(&self) -> Result<()> {
        eventually(&format!("{} has booted", self.name), BOOT, async || {
            match self.exec("systemctl is-system-running || true").await {
                Ok(state) if ["running", "degraded"].contains(&state.trim()) => Ok(()),
                Ok(state) => Err(state.trim().to_owned()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Runs a command of bash on the host and returns what it printed.
    pub async fn exec(&self, command: &str) -> Result<String> {
        self.exec_with(command, None).await
    }

    /// The same, with text on its standard input.
    pub async fn exec_with(&self, command: &str, input: Option<&str>) -> Result<String> {
        let mut args = vec!["exec"];
        if input.is_some() {
            args.push("--interactive");
        }
        args.extend([&self.container, "bash", "-euo", "pipefail", "-c", command]);
        match run_with("docker", &args, &self.name, input).await {
            // How the command gets to the host is of no interest.
            Err(Error::Command { place, status, output, .. }) => {
                Err(Error::Command { command: command.to_owned(), place, status, output })
            }
            outcome => outcome,
        }
    }

    /// Whether a command succeeds.
    pub async fn succeeds(&self, command: &str) -> bool {
        self.exec(command).await.is_ok()
    }

    /// Power cut.
    pub async fn kill(&self) -> Result<()> {
        docker(&["kill", &self.container]).await.map(drop)
    }

    /// Power on, and wait for the boot.
    pub async fn start(&self) -> Result<()> {
        docker(&["start", &self.container]).await?;
        self.booted().await
    }

    /// The machine hangs, with all that runs on it.
    pub async fn pause(&self) -> Result<()> {
        docker(&["pause", &self.container]).await.map(drop)
    }

    /// The machine goes on as if nothing had been.
    pub async fn unpause(&self) -> Result<()> {
        docker(&["unpause", &self.container]).await.map(drop)
    }

    /// `running`, `paused`, `exited` ...
    pub async fn state(&self) -> Result<String> {
        let format = "{{.State.Status}}";
        let text = docker(&["inspect", "--format", format, &self.container]).await?;
        Ok(text.trim().to_owned())
    }

    /// Brings the host back from whatever a scenario did to it.
    pub async fn restore(&self) -> Result<()> {
        match self.state().await?.as_str() {
            "paused" => self.unpause().await?,
            "running" => {}
            _ => self.start().await?,
        }
        self.heal().await
    }

    /// Ids of the containers that DINP runs here, from the engine itself.
    pub async fn containers(&self, app: &str) -> Result<Vec<String>> {
        let text = self.exec(&format!("docker ps --quiet --no-trunc --filter label=dinp.app={app}")).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Copies a file of this machine to the host.
    pub async fn copy(&self, file: &str, path: &str) -> Result<()> {
        docker(&["cp", file, &format!("{}:{path}", self.container)]).await.map(drop)
    }

    /// Writes a file on the host.
    pub async fn write(&self, path: &str, content: &str) -> Result<()> {
        self.exec_with(&format!("cat >{path}"), Some(content)).await.map(drop)
    }
}

/// What makes a container into a machine: capabilities, cgroups, volatile directories.
fn machine_arguments(args: &mut Arguments, codename: &str) -> Result<()> {
    // Not --privileged: it fails where this machine itself lacks a capability.
    args.pair("--cap-drop", "ALL");
    for capability in own_capabilities()? {
        args.pair("--cap-add", capability);
    }
    for option in ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"] {
        args.pair("--security-opt", option);
    }
    args.flag("--cgroupns=host").pair("--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw");
    for volatile in ["/run", "/run/lock", "/tmp:exec"] {
        args.pair("--tmpfs", volatile);
    }
    args.pair("--stop-signal", "SIGRTMIN+3");
    let cgroup_v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if !cgroup_v2 && codename != "bookworm" {
        // Newer systemd has to be told that cgroup v1 is meant.
        args.pair(
            "--env",
            "SYSTEMD_PROC_CMDLINE=systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        );
    }
    Ok(())
}

fn own_capabilities() -> Result<Vec<&'static str>> {
    let path = "/proc/self/status";
    let text =
        std::fs::read_to_string(path).map_err(|source| Error::File { act: "read", path: path.into(), source })?;
    let effective = text
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| Error::other("/proc/self/status has no CapEff"))?;
    Ok(named(effective))
}

fn named(effective: u64) -> Vec<&'static str> {
    CAPABILITIES.iter().enumerate().filter(|(bit, _)| effective >> bit & 1 == 1).map(|(_, name)| *name).collect()
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn pair(&mut self, option: &str, value: &str) -> &mut Self {
        self.flag(option).flag(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_those_of_the_caller() {
        assert_eq!(named(0b101), ["CHOWN", "DAC_READ_SEARCH"]);
        assert_eq!(named(1 << 37 | 1 << 40), ["AUDIT_READ"]);
    }
}
