//! `dinp-agent firewall`: what containers cannot reach.
//!
//! | from the bridge of instances to | by chain | fate |
//! |---|---|---|
//! | this machine itself | `DINP-APPS-IN`, from `INPUT` | refused, but for answers |
//! | each other | `DINP-APPS`, from `DOCKER-USER` | dropped |
//! | `servers` and `denied_addresses` | the same | refused, but for answers |
//! | ports of instances, on any machine | the same | refused, but for answers |
//!
//! Both chains are replaced in one piece, so that this can be run at any time and any number of times.
//! The bridge need not exist yet, nor Docker's chain: Docker keeps what it finds there.

use crate::config::{AgentConfig, bundle, servers};
use dinp_common::config::{ConfigError, Loaded};
use dinp_common::credentials::CredentialError;
use dinp_common::daemon;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;

const FORWARD: &str = "DINP-APPS";
const INPUT: &str = "DINP-APPS-IN";
const DOCKER: &str = "DOCKER-USER";

/// Why the rules are not all in force.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// The configuration does not fit.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The node's bundle cannot be read.
    #[error(transparent)]
    Bundle(#[from] CredentialError),
    /// A program cannot be run.
    #[error("run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program refused.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which.
        program: &'static str,
        /// What it said.
        message: String,
    },
    /// Names without an address; all else is in force.
    #[error("no address is known for {0}: instances can reach it; all other rules are in force")]
    Unknown(String),
}

/// The subcommand.
pub fn command() -> clap::Command {
    clap::Command::new("firewall").about("Put the firewall rules for instances in force")
}

/// Puts the rules in force.
pub async fn run(loaded: &Loaded<AgentConfig>) -> Result<(), FirewallError> {
    let config = &loaded.daemon;
    let urls = match bundle(config) {
        Ok(bundle) => servers(loaded, &bundle)?,
        // A machine that is no node yet is protected already.
        Err(error) if error.is_missing() => loaded.cluster.servers.clone(),
        Err(error) => return Err(error.into()),
    };
    let hosts = urls.iter().filter_map(|url| url.host_str()).map(|host| host.trim_matches(['[', ']']).to_owned());
    let (denied, unknown) = resolve(hosts.chain(config.denied_addresses.iter().cloned())).await;
    let rules = Rules { bridge: config.docker.bridge.clone(), range: config.port_range()?, denied };
    apply(&Family::V4, &rules).await?;
    if Path::new("/proc/net/if_inet6").exists() {
        apply(&Family::V6, &rules).await?;
    }
    if unknown.is_empty() { Ok(()) } else { Err(FirewallError::Unknown(unknown.join(", "))) }
}

/// What the rules are made of.
#[derive(Debug)]
struct Rules {
    bridge: String,
    range: RangeInclusive<u16>,
    denied: BTreeSet<Net>,
}

/// An address or a network, as iptables takes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Net {
    address: IpAddr,
    prefix: u8,
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse::<IpAddr>().ok()?, Some(prefix.parse::<u8>().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(most);
        (prefix <= most).then_some(Self { address, prefix })
    }
}

/// IPv4 or IPv6.
#[derive(Debug)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn tables(&self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn restore(&self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    fn has(&self, net: &Net) -> bool {
        net.address.is_ipv4() == matches!(self, Self::V4)
    }
}

/// The addresses of the hosts, and the hosts that have none.
async fn resolve(hosts: impl Iterator<Item = String>) -> (BTreeSet<Net>, Vec<String>) {
    let (mut nets, mut unknown) = (BTreeSet::new(), Vec::new());
    for host in hosts {
        if let Some(net) = Net::parse(&host) {
            nets.insert(net);
            continue;
        }
        let looked_up = tokio::net::lookup_host((host.as_str(), 0)).await.map(Vec::from_iter);
        match looked_up {
            Ok(found) => nets.extend(found.into_iter().filter_map(|address| Net::parse(&address.ip().to_string()))),
            Err(_) => unknown.push(host),
        }
    }
    // The loopback addresses of this machine are not those of a container.
    nets.retain(|net| !net.address.is_loopback());
    (nets, unknown)
}

/// Both chains as input of iptables-restore: naming a chain there empties it, and all takes effect at once.
fn script(family: &Family, rules: &Rules) -> String {
    let bridge = &rules.bridge;
    let answers = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN";
    let mut text = format!("*filter\n:{INPUT} - [0:0]\n:{FORWARD} - [0:0]\n");
    let mut rule =
        |chain: &str, rest: &str| writeln!(text, "-A {chain} {rest}").expect("writing to a text never fails");
    rule(INPUT, answers);
    rule(INPUT, "-j REJECT");
    rule(FORWARD, answers);
    rule(FORWARD, &format!("-o {bridge} -j DROP"));
    for net in rules.denied.iter().filter(|net| family.has(net)) {
        rule(FORWARD, &format!("-d {}/{} -j REJECT", net.address, net.prefix));
    }
    let (first, last) = (rules.range.start(), rules.range.end());
    rule(FORWARD, &format!("-p tcp --dport {first}:{last} -j REJECT --reject-with tcp-reset"));
    text.push_str("COMMIT\n");
    text
}

async fn apply(family: &Family, rules: &Rules) -> Result<(), FirewallError> {
    feed(family.restore(), &["--noflush"], &script(family, rules)).await?;
    // Fails if it exists, which is as well; without it the next call tells.
    call(family.tables(), &["-N", DOCKER]).await.ok();
    hook(family, DOCKER, &rules.bridge, FORWARD).await?;
    hook(family, "INPUT", &rules.bridge, INPUT).await
}

/// Makes the jump from `chain` to `target` its first rule, unless it is there.
async fn hook(family: &Family, chain: &str, bridge: &str, target: &str) -> Result<(), FirewallError> {
    let rule = ["-i", bridge, "-j", target];
    let is_there = call(family.tables(), &[&["-C", chain], &rule[..]].concat()).await;
    match is_there {
        Ok(()) => Ok(()),
        Err(FirewallError::Failed { .. }) => call(family.tables(), &[&["-I", chain, "1"], &rule[..]].concat()).await,
        Err(error) => Err(error),
    }
}

async fn call(program: &'static str, arguments: &[&str]) -> Result<(), FirewallError> {
    let waiting = [&["-w", "10"], arguments].concat();
    feed(program, &waiting, "").await
}

async fn feed(program: &'static str, arguments: &[&str], input: &str) -> Result<(), FirewallError> {
    let failed = |source| FirewallError::Run { program, source };
    let mut child = daemon::command(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await.map_err(failed)?;
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(FirewallError::Failed { program, message: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let denied = ["10.0.0.5", "10.1.0.0/16", "fd00::1"].iter().map(|text| Net::parse(text).unwrap()).collect();
        let rules = Rules { bridge: "dinp0".into(), range: 20_000..=29_999, denied };
        assert_eq!(
            script(&Family::V4, &rules),
            "*filter\n:DINP-APPS-IN - [0:0]\n:DINP-APPS - [0:0]\n\
             -A DINP-APPS-IN -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n\
             -A DINP-APPS-IN -j REJECT\n\
             -A DINP-APPS -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN\n\
             -A DINP-APPS -o dinp0 -j DROP\n\
             -A DINP-APPS -d 10.0.0.5/32 -j REJECT\n\
             -A DINP-APPS -d 10.1.0.0/16 -j REJECT\n\
             -A DINP-APPS -p tcp --dport 20000:29999 -j REJECT --reject-with tcp-reset\n\
             COMMIT\n"
        );
        assert!(script(&Family::V6, &rules).contains("-A DINP-APPS -d fd00::1/128 -j REJECT\n"));
    }

    #[tokio::test]
    async fn addresses_networks_and_names() {
        let hosts = ["10.0.0.5", "10.0.0.0/8", "localhost", "no.such.host.invalid", "1.2.3.4/40"];
        let (nets, unknown) = resolve(hosts.map(str::to_owned).into_iter()).await;
        assert_eq!(nets, [Net::parse("10.0.0.0/8").unwrap(), Net::parse("10.0.0.5").unwrap()].into());
        assert_eq!(unknown, ["no.such.host.invalid", "1.2.3.4/40"]);
    }
}
