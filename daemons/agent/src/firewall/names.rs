//! From the names of machines to their addresses.
//!
//! A name that has no address just now keeps the one that it had: a name server that is away opens nothing.

use dinp_common::network::Network;
use futures_util::future::join_all;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long one name may take.
const LIMIT: Duration = Duration::from_secs(2);

/// Where the name servers of this machine stand. The second file has them where the first one names a local cache,
/// which is out of reach of containers; the engine reads it then too.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Addresses by name, kept from one run to the next in a directory that systemd gives.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, BTreeSet<IpAddr>>,
    file: Option<PathBuf>,
    /// Names that never had an address.
    pub(super) unknown: BTreeSet<String>,
}

impl Names {
    /// With what the run before this one knew.
    pub(super) fn load() -> Self {
        let file = std::env::var_os("RUNTIME_DIRECTORY").map(|directory| PathBuf::from(directory).join("names.json"));
        let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let known = text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { known, file, unknown: BTreeSet::new() }
    }

    /// Keeps it for the next run. A failure costs no more than that.
    pub(super) fn save(&self) {
        let Some(file) = &self.file else { return };
        let saved = serde_json::to_vec(&self.known).map(|text| std::fs::write(file, text));
        if !matches!(saved, Ok(Ok(()))) {
            tracing::warn!(file = %file.display(), "addresses of names cannot be kept");
        }
    }

    /// Looks names up, each once and all at the same time. What is an address or a network needs none of that.
    pub(super) async fn look_up(&mut self, hosts: impl IntoIterator<Item = &String>) {
        let names: BTreeSet<&String> = hosts.into_iter().filter(|host| host.parse::<Network>().is_err()).collect();
        for (name, found) in join_all(names.into_iter().cloned().map(look_up)).await {
            if !found.is_empty() {
                self.known.insert(name, found);
            } else if !self.known.contains_key(&name) {
                self.unknown.insert(name);
            }
        }
    }

    /// The addresses of machines that are named by address, network or a name that was looked up. Loopback addresses are
    /// left out: inside of a container they are the container's own.
    pub(super) fn networks<'a>(&self, hosts: impl IntoIterator<Item = &'a String>) -> BTreeSet<Network> {
        let mut networks = BTreeSet::new();
        for host in hosts {
            match host.parse() {
                Ok(network) => _ = networks.insert(network),
                Err(_) => networks.extend(self.known.get(host).into_iter().flatten().copied().map(Network::from)),
            }
        }
        networks.retain(|network| !network.is_loopback());
        networks
    }
}

async fn look_up(name: String) -> (String, BTreeSet<IpAddr>) {
    let found = match tokio::time::timeout(LIMIT, tokio::net::lookup_host((name.as_str(), 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => BTreeSet::new(),
    };
    (name, found)
}

/// The name servers of this machine.
pub(super) fn resolvers() -> BTreeSet<Network> {
    let texts = RESOLVERS.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    texts.flat_map(|text| name_servers(&text)).collect()
}

fn name_servers(text: &str) -> Vec<Network> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")).map(str::trim);
    // An IPv6 address may name its interface.
    let networks = words.filter_map(|word| word.split('%').next().unwrap_or(word).parse().ok());
    networks.filter(|network: &Network| !network.is_loopback()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_name_without_an_address_harms_no_other() {
        let mut names = Names::default();
        let hosts = ["10.0.0.5", "10.0.0.0/8", "localhost", "no.such.host.invalid", "1.2.3.4/40"].map(String::from);
        names.look_up(&hosts).await;
        assert_eq!(names.networks(&hosts), [net("10.0.0.0/8"), net("10.0.0.5")].into());
        assert_eq!(names.unknown, ["1.2.3.4/40", "no.such.host.invalid"].map(String::from).into());
    }

    #[tokio::test]
    async fn a_name_that_is_not_answered_keeps_its_address() {
        let known = BTreeMap::from([("gone.invalid".to_owned(), BTreeSet::from(["10.0.0.7".parse().unwrap()]))]);
        let mut names = Names { known, ..Names::default() };
        let hosts = ["gone.invalid".to_owned()];
        names.look_up(&hosts).await;
        assert_eq!(names.networks(&hosts), [net("10.0.0.7")].into());
        assert!(names.unknown.is_empty());
    }

    #[test]
    fn name_servers_but_the_local_cache() {
        let text = "# nameserver 1.1.1.1\nnameserver 127.0.0.53\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\noptions edns0\n";
        assert_eq!(name_servers(text), [net("10.0.0.53"), net("fe80::1")]);
    }
}
