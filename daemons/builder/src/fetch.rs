//! Fetching a package from its address, and from nowhere that this host reaches and its users do not.
//!
//! An address of the network is found once, judged, and connected to as it was judged, so that a name cannot mean another one in
//! between; so it is with each redirect.

use bytes::Bytes;
use dinp_common::network::Network;
use futures_util::{Stream, TryStreamExt};
use reqwest::{Client, Response, redirect};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;
use url::{Host, Url};

const MOST_REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may take until its answer begins.
const ANSWER: Duration = Duration::from_secs(60);

/// `[fetch]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchConfig {
    /// Hosts that packages may be fetched from, `*.` at the beginning for all below a name; empty for any.
    pub hosts: Vec<String>,
    /// Networks that may be fetched from although they are not public.
    pub networks: Vec<Network>,
    /// Networks that nothing is fetched from, public or not.
    pub refused_networks: Vec<Network>,
    /// Longest time for one package, in seconds.
    pub time_limit_secs: u32,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self { hosts: Vec::new(), networks: Vec::new(), refused_networks: Vec::new(), time_limit_secs: 600 }
    }
}

/// Why nothing was fetched, each as a sentence for whoever named the address.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It is not for fetching.
    #[error("{url} is refused: {rule}")]
    Refused {
        /// The address, as it may be shown.
        url: String,
        /// The rule.
        rule: String,
    },
    /// The server cannot be asked.
    #[error("{url} cannot be fetched")]
    Away {
        /// The address, as it may be shown.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// It is not there.
    #[error("{url} cannot be fetched: the server answers {status}")]
    Status {
        /// The address, as it may be shown.
        url: String,
        /// The answer.
        status: u16,
    },
}

/// A package whose first byte may come.
pub struct Fetched {
    /// Its size, where the server says so.
    pub bytes: Option<u64>,
    response: Response,
}

impl Fetched {
    /// Its content.
    pub fn stream(self) -> impl Stream<Item = reqwest::Result<Bytes>> + Unpin {
        // What went wrong is told to people, and the address may hold a secret.
        Box::pin(self.response.bytes_stream().map_err(reqwest::Error::without_url))
    }
}

/// The address as logs may show it: what follows a `?` may be a secret.
pub fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // Neither fails for an address that has a host, and others are refused.
    shown.set_username("").ok();
    shown.set_password(None).ok();
    shown.to_string()
}

/// Asks for a package, along redirects.
pub async fn open(url: &Url, config: &FetchConfig) -> Result<Fetched, FetchError> {
    let mut url = url.clone();
    for _ in 0..=MOST_REDIRECTS {
        let client = client(&url, &allowed(&url, config).await?);
        let away = |source: reqwest::Error| FetchError::Away { url: shown(&url), source: source.without_url() };
        let asked = tokio::time::timeout(ANSWER, client.map_err(away)?.get(url.clone()).send()).await;
        let refused = |rule: &str| FetchError::Refused { url: shown(&url), rule: rule.into() };
        let response = asked.map_err(|_| refused("its server does not answer"))?.map_err(away)?;
        let status = response.status();
        if !status.is_redirection() {
            if status.as_u16() != 200 {
                return Err(FetchError::Status { url: shown(&url), status: status.as_u16() });
            }
            return Ok(Fetched { bytes: response.content_length(), response });
        }
        let location = response.headers().get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
        url = location.and_then(|to| url.join(to).ok()).ok_or_else(|| refused("it leads to no address"))?;
    }
    Err(FetchError::Refused { url: shown(&url), rule: format!("it comes after more than {MOST_REDIRECTS} redirects") })
}

/// The addresses of the network that may be connected to for this one.
async fn allowed(url: &Url, config: &FetchConfig) -> Result<Vec<SocketAddr>, FetchError> {
    let refused = |rule: String| Err(FetchError::Refused { url: shown(url), rule });
    if !matches!(url.scheme(), "http" | "https") {
        return refused("only http and https are fetched".into());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refused("it holds a user name or a password, which would stand in records".into());
    }
    let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
        return refused("it has no host".into());
    };
    let name = url.host_str().unwrap_or_default();
    if !config.hosts.is_empty() && !config.hosts.iter().any(|pattern| is_host(pattern, name)) {
        return refused(format!("packages may be fetched from {} alone", config.hosts.join(", ")));
    }
    let found: Vec<SocketAddr> = match host {
        Host::Ipv4(address) => vec![(address, port).into()],
        Host::Ipv6(address) => vec![(address, port).into()],
        // What is not found has no address.
        Host::Domain(name) => match tokio::time::timeout(CONNECT, tokio::net::lookup_host((name, port))).await {
            Ok(Ok(found)) => found.collect(),
            _ => Vec::new(),
        },
    };
    let open: Vec<SocketAddr> = found.into_iter().filter(|address| config.opens(address.ip())).collect();
    if open.is_empty() {
        // Not whether the name has one, or which: people could ask for all names that only this network knows.
        return refused(format!(
            "{name} has no address that is public, or that the operator has opened (fetch.networks in builder.toml)"
        ));
    }
    Ok(open)
}

impl FetchConfig {
    /// Whether packages may be fetched from an address: the networks of the operator come before what is public.
    fn opens(&self, address: IpAddr) -> bool {
        let is_of = |networks: &[Network]| networks.iter().any(|network| network.contains(address));
        !is_of(&self.refused_networks) && (is_of(&self.networks) || (is_public(address) && !is_own(address)))
    }
}

/// Whether an address is one of this host, which listens there for others than people. Nothing is sent.
fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // The system would reach its own address from that address.
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == address)
}

/// A client that connects to these addresses and no others.
fn client(url: &Url, addresses: &[SocketAddr]) -> Result<Client, reqwest::Error> {
    let mut authorities = rustls::RootCertStore::empty();
    if url.scheme() == "https" {
        // What cannot be read of the machine's list signs nothing.
        authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|tls| tls.with_root_certificates(authorities).with_no_client_auth());
    let builder = Client::builder().no_proxy().redirect(redirect::Policy::none()).connect_timeout(CONNECT);
    let builder = match tls {
        Ok(tls) => builder.use_preconfigured_tls(tls),
        Err(_) => builder,
    };
    builder.resolve_to_addrs(url.host_str().unwrap_or_default(), addresses).build()
}

fn is_host(pattern: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        Some(domain) => name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
        None => name.eq_ignore_ascii_case(pattern),
    }
}

/// Whether an address is of the public network (the IANA's registries of special-purpose addresses, RFC 6890, and what of IPv6
/// stands for an address of IPv4).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// What a host of Azure is told by; it is of the public network by its number alone.
const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

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
    let segments = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(inner(high, low)),
        [0x2002, high, low, ..] => is_public_v4(inner(high, low)),
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

    #[tokio::test]
    async fn addresses_that_are_not_public_are_refused_however_they_are_written() {
        let config = FetchConfig::default();
        for address in [
            "http://127.0.0.1/x",
            "http://127.1/x",
            "http://0x7f000001/x",
            "http://2130706433/x",
            "http://0177.0.0.1/x",
            "http://[::1]/x",
            "http://[::ffff:10.0.0.1]/x",
            "http://[::ffff:a9fe:a9fe]/x",
            "http://[64:ff9b::a9fe:a9fe]/x",
            "http://[2002:7f00:1::]/x",
            "http://[2001:0:1::1]/x",
            "http://[fe80::1]/x",
            "http://[fd00:ec2::254]/x",
            "http://[::]/x",
            "http://0.0.0.0/x",
            "http://10.1.2.3/x",
            "http://172.31.0.1/x",
            "http://192.168.1.1/x",
            "http://100.64.0.1/x",
            "http://169.254.169.254/latest/meta-data/",
            "http://168.63.129.16/machine",
            "http://[::ffff:168.63.129.16]/machine",
            "http://no-such-host.invalid/x",
            "http://224.0.0.1/x",
            "http://255.255.255.255/x",
            "https://localhost:8443/x",
        ] {
            let error = allowed(&address.parse().unwrap(), &config).await.unwrap_err().to_string();
            assert!(error.contains("has no address that is public"), "{address}: {error}");
        }
        for address in ["http://93.184.216.34/x", "https://[2606:2800:220:1::1]/x", "http://172.32.0.1/x"] {
            assert_eq!(allowed(&address.parse().unwrap(), &config).await.unwrap().len(), 1, "{address}");
        }
    }

    #[tokio::test]
    async fn what_the_operator_says_counts() {
        let networks = vec!["10.1.0.0/16".parse().unwrap()];
        let hosts = vec!["repo.example".into(), "*.mirror.example".into(), "10.1.2.3".into(), "10.2.2.3".into()];
        let refused_networks = vec!["10.1.9.0/24".parse().unwrap(), "93.184.0.0/16".parse().unwrap()];
        let config = FetchConfig { hosts, networks, refused_networks, ..FetchConfig::default() };
        let opens = |address: &str| config.opens(address.parse().unwrap());
        assert!(opens("10.1.2.3") && !opens("10.1.9.3"), "what is refused counts before what is opened");
        assert!(!opens("93.184.216.34") && opens("93.185.216.34"));
        assert!(is_own("127.0.0.1".parse().unwrap()) && !is_own("93.185.216.34".parse().unwrap()));
        let judged =
            async |address: &str| allowed(&address.parse().unwrap(), &config).await.map_err(|error| error.to_string());
        assert!(judged("http://10.1.2.3/x").await.is_ok());
        assert!(judged("http://10.2.2.3/x").await.unwrap_err().contains("has no address that is public"));
        let text = judged("http://elsewhere.example/x?token=secret").await.unwrap_err();
        assert!(text.starts_with("http://elsewhere.example/x is refused: packages may be fetched from repo"), "{text}");
        assert!(judged("http://mirror.example/x").await.unwrap_err().contains("alone"));
        assert!(
            is_host("*.mirror.example", "a.b.mirror.example") && !is_host("*.mirror.example", "evilmirror.example")
        );
        assert!(judged("ftp://10.1.2.3/x").await.unwrap_err().contains("only http and https"));
        assert!(judged("http://ann:secret@10.1.2.3/x").await.unwrap_err().starts_with("http://10.1.2.3/x is refused"));
    }
}
