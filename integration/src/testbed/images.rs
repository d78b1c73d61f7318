//! Root file systems of hosts, made from the machine's own apt suite and mirrors.
//!
//! `host` is made by mmdebstrap; `node` and `control` are layers on top of it, so that nothing is
//! downloaded or unpacked twice. The tag holds a hash of all that went in: a changed package list
//! or suite makes a new image, an unchanged one is found.

use sha2::{Digest, Sha256};

use super::docker::{LABEL, docker, run};
use super::error::{Error, Result};
use super::layout::Role;
use super::progress::Progress;

/// A minimal machine with systemd.
const HOST: Variant = Variant {
    name: "host",
    packages: &[
        "adduser",
        "ca-certificates",
        "curl",
        "dbus",
        "iproute2",
        "iptables",
        "procps",
        "systemd",
        "systemd-sysv",
    ],
};
/// What a compute node has before DINP comes.
const NODE: Variant = Variant { name: "node", packages: &["docker.io"] };
/// What the control machine has before DINP comes.
const CONTROL: Variant =
    Variant { name: "control", packages: &["apache2-utils", "docker-registry", "mariadb-server", "redis-server"] };

/// Run in the fresh root: the journal survives a reboot, nobody logs in at a console, and every
/// host gets a machine id of its own.
const FINISH: &str = r#"
mkdir -p "$1/var/log/journal" "$1/etc/systemd/journald.conf.d"
printf '[Journal]\nSystemMaxUse=200M\n' >"$1/etc/systemd/journald.conf.d/testbed.conf"
ln -sf /dev/null "$1/etc/systemd/system/console-getty.service"
ln -sf /dev/null "$1/etc/systemd/system/getty.target"
: >"$1/etc/machine-id"
"#;

/// Run in a container of the image below. No service is started while packages are installed;
/// what the packages enable starts when a host boots.
const ADD: &str = r#"
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod +x /usr/sbin/policy-rc.d
apt-get update
# Since Debian 13 the docker command is a package of its own.
! apt-cache show docker-cli >/dev/null 2>&1 || set -- "$@" docker-cli
apt-get install -y --no-install-recommends "$@"
apt-get clean
rm -rf /usr/sbin/policy-rc.d /var/lib/apt/lists/*
"#;

struct Variant {
    name: &'static str,
    packages: &'static [&'static str],
}

/// Names of the images of hosts.
#[derive(Clone, Debug)]
pub struct Images {
    /// Debian's name of the suite.
    pub codename: String,
    host: String,
    node: String,
    control: String,
}

impl Images {
    /// The image of a host of this role.
    #[must_use]
    pub fn of(&self, role: Role) -> &str {
        match role {
            Role::Control => &self.control,
            Role::Node => &self.node,
            Role::Router | Role::Server => &self.host,
        }
    }

    /// Makes the images that are missing.
    pub async fn ensure(progress: &Progress) -> Result<Self> {
        let sources = Sources::of_this_machine().await?;
        let host = tag(&HOST, &[&sources.lines, FINISH]);
        let node = tag(&NODE, &[&host, ADD]);
        let control = tag(&CONTROL, &[&node, ADD]);
        let images = Self { codename: sources.codename.clone(), host, node, control };
        if !exists(&images.host).await? {
            let title = format!("image of a host ({} by mmdebstrap)", sources.codename);
            progress.step(&title, bootstrap(&sources, &images.host)).await?;
        }
        for (variant, below, image) in [(&NODE, &images.host, &images.node), (&CONTROL, &images.node, &images.control)]
        {
            if !exists(image).await? {
                let title = format!("image of a {} (+ {})", variant.name, variant.packages.join(" "));
                progress.step(&title, add_layer(variant, below, image)).await?;
            }
        }
        Ok(images)
    }
}

/// Debian's own entries among the machine's apt sources.
struct Sources {
    codename: String,
    /// One `deb` line for each suite, as a sources.list holds them.
    lines: String,
}

impl Sources {
    async fn of_this_machine() -> Result<Self> {
        let mut found = Self::read().await?;
        if found.is_none() {
            // Without package lists apt does not know which entry is Debian's.
            run("apt-get", &["update"]).await?;
            found = Self::read().await?;
        }
        found.ok_or_else(|| {
            Error::other("the apt sources of this machine name no Debian suite: hosts are made from Debian 12 or 13")
        })
    }

    /// Asks apt itself, which understands both formats of its sources.
    async fn read() -> Result<Option<Self>> {
        let format = "$(ORIGIN)|$(CODENAME)|$(REPO_URI) $(RELEASE) $(COMPONENT)";
        let text = run("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]).await?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines: Vec<&str> = Vec::new();
        let mut codename: Option<&str> = None;
        for line in text.lines() {
            let mut fields = line.splitn(3, '|');
            let (Some("Debian"), Some(name), Some(entry)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            // The base suite is the one whose code name has no suffix: bookworm, not bookworm-updates.
            if !name.contains('-') {
                codename.get_or_insert(name);
            }
            if !lines.contains(&entry) {
                lines.push(entry);
            }
        }
        let lines = lines.iter().map(|entry| format!("deb {entry}\n")).collect();
        Some(Self { codename: codename?.to_owned(), lines })
    }
}

fn tag(variant: &Variant, content: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in content.iter().chain(variant.packages) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let key: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("dinp-testbed/{}:{key}", variant.name)
}

async fn exists(image: &str) -> Result<bool> {
    Ok(!docker(&["image", "ls", "--quiet", image]).await?.trim().is_empty())
}

async fn bootstrap(sources: &Sources, image: &str) -> Result<()> {
    let packages = HOST.packages.join(",");
    let label = format!("LABEL {LABEL}=image");
    let script = r#"
        sources=$(mktemp)
        trap 'rm -f "$sources"' EXIT
        printf '%s' "$1" >"$sources"
        mmdebstrap --quiet --variant=minbase --include="$2" --customize-hook="$3" "$4" - "$sources" |
            docker import --change "$5" - "$6"
    "#;
    let args = [
        "-euo",
        "pipefail",
        "-c",
        script,
        "bootstrap",
        &sources.lines,
        &packages,
        FINISH,
        &sources.codename,
        &label,
        image,
    ];
    run("bash", &args).await.map(drop)
}

async fn add_layer(variant: &Variant, below: &str, image: &str) -> Result<()> {
    let label = format!("{LABEL}=image");
    let mut args = vec!["create", "--label", &label, "--network", "host"];
    for proxy in ["http_proxy", "https_proxy", "no_proxy"] {
        args.extend(["--env", proxy]);
    }
    args.extend([below, "bash", "-euo", "pipefail", "-c", ADD, "add"]);
    args.extend(variant.packages);
    let id = docker(&args).await?;
    let id = id.trim();
    let change = format!("LABEL {LABEL}=image");
    let outcome = async {
        docker(&["start", "--attach", id]).await?;
        docker(&["commit", "--change", &change, id, image]).await
    }
    .await;
    docker(&["rm", "--force", id]).await?;
    outcome.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
Debian|bookworm|http://mirror.example/debian/ bookworm main
Debian|bookworm|http://mirror.example/debian/ bookworm main
Debian|bookworm-updates|http://mirror.example/debian/ bookworm-updates main
Node Source|nodistro|https://deb.nodesource.com/node_20.x/ nodistro main
Debian|bookworm-security|http://mirror.example/debian-security/ bookworm-security main
";

    #[test]
    fn third_party_sources_are_left_out_and_components_kept() {
        let sources = Sources::parse(TARGETS).expect("a Debian suite");
        assert_eq!(sources.codename, "bookworm");
        assert_eq!(
            sources.lines,
            "deb http://mirror.example/debian/ bookworm main\n\
             deb http://mirror.example/debian/ bookworm-updates main\n\
             deb http://mirror.example/debian-security/ bookworm-security main\n"
        );
    }

    #[test]
    fn a_machine_of_another_distribution_is_refused() {
        assert!(Sources::parse("Ubuntu|noble|http://archive.ubuntu.com/ubuntu/ noble main\n").is_none());
    }

    #[test]
    fn a_changed_package_list_is_another_image() {
        let one = Variant { name: "x", packages: &["a"] };
        let two = Variant { name: "x", packages: &["b"] };
        assert_ne!(tag(&one, &["suite"]), tag(&two, &["suite"]));
        assert_eq!(tag(&one, &["suite"]), tag(&one, &["suite"]));
    }
}
