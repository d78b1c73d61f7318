//! Fetching a package from its address, and from nowhere that this host reaches and its users do not.
//!
//! An address of the network is found once, judged, and connected to as it was judged, so that a name cannot mean another one in
//! between; so it is with each redirect.

mod reach;

use bytes::Bytes;
use dinp_common::network::Network;
use futures_util::{Stream, TryStreamExt};
use reach::Reach;
pub use reach::hosts_of;
use reqwest::{Client, Response, redirect};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
    /// Networks that may be fetched from although they are not public, or this host's or the cluster's.
    pub networks: Vec<Network>,
    /// Networks that are never fetched from, whatever else is said.
    pub refused_networks: Vec<Network>,
    /// The cluster's own hosts, which `dinp.toml` names.
    #[serde(skip)]
    pub cluster_hosts: BTreeSet<String>,
    /// Longest time for one package, in seconds.
    pub time_limit_secs: u32,
}

impl Default for FetchConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            networks: Vec::new(),
            refused_networks: Vec::new(),
            cluster_hosts: BTreeSet::new(),
            time_limit_secs: 600,
        }
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
    /// Nobody knows now what is this host's own: the builder's own trouble.
    #[error("read the addresses of this host")]
    Ours(#[source] io::Error),
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
    let found = match host {
        Host::Ipv4(address) => vec![address.into()],
        Host::Ipv6(address) => vec![address.into()],
        // What is not found has no address.
        Host::Domain(name) => reach::find(name, port).await,
    };
    let reach = Reach::now(config).await.map_err(FetchError::Ours)?;
    let open: Vec<IpAddr> = found.iter().copied().filter(|address| reach.is_open(*address)).collect();
    if open.is_empty() {
        tracing::info!(host = name, ?found, "nothing is fetched from this host");
        // Not whether the name has one, or which: people could ask for all names that only this network knows.
        return refused(format!(
            "{name} has no address that is public and none of the cluster's, or that the operator has opened \
             (fetch.networks in builder.toml)"
        ));
    }
    Ok(open.into_iter().map(|address| (address, port).into()).collect())
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
            "http://224.0.0.1/x",
            "http://255.255.255.255/x",
            "http://168.63.129.16/machine",
            "http://[::ffff:168.63.129.16]/machine",
            "http://no-such-host.invalid/x",
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
    async fn nobody_learns_which_names_this_network_knows() {
        let mut config = FetchConfig::default();
        let said = async |config: &FetchConfig, host: &str| {
            let error = allowed(&format!("http://{host}/x").parse().unwrap(), config).await.unwrap_err().to_string();
            error.replace(host, "HOST")
        };
        let known = said(&config, "localhost").await;
        assert!(known.starts_with("http://HOST/x is refused: HOST has no address that is public"), "{known}");
        assert_eq!(known, said(&config, "nowhere.invalid").await);
        config.refused_networks = vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()];
        config.networks = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        assert_eq!(known, said(&config, "localhost").await);
    }

    #[tokio::test]
    async fn what_the_operator_says_counts() {
        let networks = vec!["10.1.0.0/16".parse().unwrap()];
        let hosts = vec!["repo.example".into(), "*.mirror.example".into(), "10.1.2.3".into(), "10.2.2.3".into()];
        let config = FetchConfig { hosts, networks, ..FetchConfig::default() };
        let judged =
            async |address: &str| allowed(&address.parse().unwrap(), &config).await.map_err(|error| error.to_string());
        assert!(judged("http://10.1.2.3/x").await.is_ok());
        assert!(judged("http://10.2.2.3/x").await.unwrap_err().contains("10.2.2.3 has no address that is public"));
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
