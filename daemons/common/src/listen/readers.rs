//! Who may read a daemon's status: this machine, the servers, and the networks that operators name.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use url::{Host, Url};

use super::Limits;
use crate::network::Network;

/// Time from one look at the servers' addresses to the next.
const LOOK: Duration = Duration::from_secs(60);
/// The same after one was not found.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Those who are admitted; clones are the same.
#[derive(Clone, Debug)]
pub struct StatusReaders {
    networks: Arc<[Network]>,
    servers: Arc<Mutex<Vec<IpAddr>>>,
}

impl StatusReaders {
    /// This machine and these networks, until the servers are [followed](Self::follow).
    pub fn new(networks: Vec<Network>) -> Self {
        Self { networks: networks.into(), servers: Arc::default() }
    }

    /// Limits for a listener that serves nobody else.
    pub fn limits(&self) -> Limits {
        let readers = self.clone();
        Limits { admits: Some(Arc::new(move |peer| readers.admits(peer))), ..Limits::default() }
    }

    /// Keeps the addresses of the servers up to date, for ever. One that cannot be found now is admitted as it was.
    pub async fn follow(self, servers: Vec<Url>) {
        loop {
            let found = addresses_of(&servers).await;
            let pause = if found.is_some() { LOOK } else { LOOK_AGAIN };
            if let Some(found) = found {
                *self.servers.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn admits(&self, peer: IpAddr) -> bool {
        let server = || self.servers.lock().unwrap_or_else(PoisonError::into_inner).contains(&peer);
        peer.is_loopback() || self.networks.iter().any(|network| network.contains(peer)) || server()
    }
}

/// The addresses of all of them; none where one is not found.
async fn addresses_of(servers: &[Url]) -> Option<Vec<IpAddr>> {
    let mut all = Vec::new();
    for url in servers {
        match url.host()? {
            Host::Ipv4(address) => all.push(address.into()),
            Host::Ipv6(address) => all.push(IpAddr::from(address).to_canonical()),
            Host::Domain(name) => match tokio::net::lookup_host((name, 0)).await {
                Ok(found) => all.extend(found.map(|address| address.ip().to_canonical())),
                Err(error) => {
                    tracing::warn!(server = name, %error, "the address of server {name} is not found");
                    return None;
                }
            },
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn this_machine_the_servers_and_named_networks_read_the_status_and_no_app_does() {
        let readers = StatusReaders::new(vec!["10.9.0.0/16".parse().unwrap()]);
        let urls = ["http://10.0.0.1:1980", "http://[fd00::2]:1980", "http://localhost:1980"];
        let urls = urls.map(|url| url.parse().unwrap()).to_vec();
        let following = tokio::spawn(readers.clone().follow(urls));
        while !readers.admits(address("10.0.0.1")) {
            tokio::task::yield_now().await;
        }
        following.abort();
        for admitted in ["127.0.0.1", "::1", "fd00::2", "10.9.3.4"] {
            assert!(readers.admits(address(admitted)), "{admitted}");
        }
        for app in ["172.30.0.2", "10.0.0.2", "fd00::3"] {
            assert!(!readers.admits(address(app)), "{app}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_found_takes_none_away() {
        assert_eq!(addresses_of(&["http://no-such-host.invalid:1980".parse().unwrap()]).await, None);
    }
}
