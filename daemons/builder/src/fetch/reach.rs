//! Which addresses of the network packages are fetched from: public ones that are neither this host's nor the cluster's, and what
//! the operator opens.

use super::{CONNECT, FetchConfig};
use dinp_common::config::ClusterConfig;
use dinp_common::network::{Network, host_of};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::Url;

/// Where a virtual machine of Azure reaches its platform; of the public network by its number alone.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// The hosts of a cluster that its configuration names. Where people go, the public URLs, is for fetching as for them.
pub fn hosts_of(cluster: &ClusterConfig) -> BTreeSet<String> {
    let urls = cluster.servers.iter().chain([&cluster.redis.url, &cluster.uic.url, &cluster.builder.url]);
    let registry = [cluster.registry.address.as_str(), cluster.registry.push_address()];
    let registry = registry.into_iter().filter_map(|address| host_of(&Url::parse(&format!("http://{address}")).ok()?));
    urls.filter_map(host_of).chain(registry).chain([cluster.mysql.host.clone()]).collect()
}

/// What is for fetching now.
pub(super) struct Reach<'a> {
    config: &'a FetchConfig,
    /// Addresses of this host and of the cluster's.
    ours: Vec<IpAddr>,
}

impl<'a> Reach<'a> {
    /// As it is at this moment: interfaces come and go, and names lead elsewhere one day.
    pub(super) async fn now(config: &'a FetchConfig) -> io::Result<Self> {
        let mut ours = own_addresses()?;
        // A host that is not found has no address to be kept from.
        let found = config.cluster_hosts.iter().map(|host| find(host, 0));
        ours.extend(join_all(found).await.into_iter().flatten());
        Ok(Self { config, ours: ours.into_iter().map(meant).collect() })
    }

    /// What is refused is refused, then what is opened is open, and of all else what is public and not ours.
    pub(super) fn is_open(&self, address: IpAddr) -> bool {
        let meant = meant(address);
        let is_in =
            |networks: &[Network]| networks.iter().any(|network| network.contains(address) || network.contains(meant));
        if is_in(&self.config.refused_networks) {
            return false;
        }
        is_in(&self.config.networks) || (is_public(meant) && !self.ours.contains(&meant))
    }
}

/// The addresses of a name; none where it is not found in time.
pub(super) async fn find(name: &str, port: u16) -> Vec<IpAddr> {
    let found = tokio::time::timeout(CONNECT, tokio::net::lookup_host((name, port))).await;
    found.ok().and_then(Result::ok).map(|found| found.map(|address| address.ip()).collect()).unwrap_or_default()
}

/// The addresses of this host's interfaces.
fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    Ok(addresses.collect())
}

/// What an address stands for: those of IPv6 that hold one of IPv4 (mapped, NAT64, 6to4) lead to it.
fn meant(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

/// Whether an address is of the public network (the IANA's registries of special-purpose addresses, RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || a >= 224
        || address == AZURE
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Teredo, benchmarks, ORCHID, documentation.
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        // All that is given out is of 2000::/3.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(networks: &[&str], refused: &[&str]) -> FetchConfig {
        let parse = |networks: &[&str]| networks.iter().map(|network| network.parse().unwrap()).collect();
        FetchConfig { networks: parse(networks), refused_networks: parse(refused), ..FetchConfig::default() }
    }

    #[test]
    fn what_is_refused_goes_before_what_is_opened_and_that_before_what_is_ours() {
        let is_open = |config: &FetchConfig, address: &str| {
            let ours = ["93.184.216.34", "2606:2800:220:1::1"].map(|ours| ours.parse().unwrap()).into();
            Reach { config, ours }.is_open(address.parse().unwrap())
        };
        let ours =
            ["93.184.216.34", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2002:5db8:d822::1", "2606:2800:220:1::1"];
        let metadata = ["168.63.129.16", "64:ff9b::a83f:8110", "169.254.169.254"];
        let closed = config(&[], &[]);
        for address in ours.into_iter().chain(metadata) {
            assert!(!is_open(&closed, address), "{address}");
        }
        assert!(is_open(&closed, "93.184.216.35") && is_open(&closed, "2606:2800:220:1::2"), "their neighbours");

        let opened = config(&["93.184.216.34", "2606:2800:220:1::/64", "168.63.129.16"], &[]);
        for address in ours.into_iter().chain(["168.63.129.16"]) {
            assert!(is_open(&opened, address), "{address}");
        }
        let all = ["0.0.0.0/0", "::/0"];
        let refused = config(&all, &["93.184.216.0/24", "10.0.0.0/8", "2606:2800:220:1::/64"]);
        for address in ours.into_iter().chain(["93.184.216.35", "10.1.2.3", "64:ff9b::a01:203", "2606:2800:220:1::2"]) {
            assert!(!is_open(&refused, address), "{address}");
        }
        assert!(is_open(&refused, "192.168.1.1") && is_open(&refused, "93.184.217.1"));
        assert!(!is_open(&config(&[], &["198.51.0.0/17"]), "198.51.5.1"), "public, and refused");
    }

    #[tokio::test]
    async fn what_is_ours_is_this_host_and_the_hosts_of_the_cluster() {
        let mut cluster = ClusterConfig::default();
        cluster.mysql.host = "2606:2800:220:1::5".into();
        cluster.registry.address = "registry.invalid:5000".into();
        cluster.registry.push_address = Some("[2606:2800:220:1::6]:5001".into());
        cluster.redis.url = "redis://93.184.216.34:6379".parse().unwrap();
        let hosts = hosts_of(&cluster);
        let named = ["127.0.0.1", "2606:2800:220:1::5", "2606:2800:220:1::6", "93.184.216.34", "registry.invalid"];
        assert_eq!(hosts.iter().map(String::as_str).collect::<Vec<_>>(), named);

        let config = FetchConfig { cluster_hosts: hosts, ..FetchConfig::default() };
        let reach = Reach::now(&config).await.unwrap();
        let interfaces = own_addresses().unwrap();
        assert!(interfaces.contains(&Ipv4Addr::LOCALHOST.into()), "{interfaces:?}");
        assert!(interfaces.iter().all(|address| reach.ours.contains(&meant(*address))), "{:?}", reach.ours);
        for address in ["2606:2800:220:1::5", "2606:2800:220:1::6", "93.184.216.34"] {
            assert!(!reach.is_open(address.parse().unwrap()), "{address}");
        }
        assert!(reach.is_open("93.184.216.35".parse().unwrap()));
    }
}
