//! Clients that hold an upgraded connection each, as websockets do, and come back when it has ended.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::error::{Error, Result};

/// Time between what each client says.
const PAUSE: Duration = Duration::from_millis(100);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Clients with open tunnels.
#[derive(Debug)]
pub struct Tunnels {
    clients: JoinSet<std::result::Result<Client, String>>,
    said: watch::Sender<BTreeSet<(usize, String)>>,
    stop: watch::Sender<bool>,
}

/// What one client has seen.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// Lines that came back.
    pub lines: usize,
    /// Tunnels that have ended, each followed by another one.
    pub ended: usize,
    /// The versions of the app that it has spoken with, in their order.
    pub versions: Vec<String>,
}

impl Tunnels {
    /// Opens so many to the app of this host, through each router in turn.
    pub(super) fn open(routers: &[Ipv4Addr], host: &str, count: usize) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (said, _) = watch::channel(BTreeSet::new());
        let mut clients = JoinSet::new();
        for (number, router) in routers.iter().copied().cycle().take(count).enumerate() {
            let (host, said, mut stopped) = (host.to_owned(), said.clone(), stopped.clone());
            clients.spawn(async move {
                let mut seen = Client::default();
                while !*stopped.borrow() {
                    let tunnel = connect(router, &host).await.map_err(|error| format!("client {number}: {error}"))?;
                    let outcome = speak(tunnel, number, &mut seen, &said, &mut stopped).await;
                    outcome.map_err(|error| format!("client {number}: {error}; {seen:?}"))?;
                }
                Ok(seen)
            });
        }
        Self { clients, said, stop }
    }

    /// Waits until each client has spoken with this version.
    pub async fn all_speak_with(&self, version: &str, within: Duration) -> Result<()> {
        let count = self.clients.len();
        let mut said = self.said.subscribe();
        let all = said.wait_for(|said| said.iter().filter(|(_, spoken)| spoken == version).count() == count);
        let outcome = tokio::time::timeout(within, all).await.map(drop);
        outcome.map_err(|_| {
            Error::other(format!("not all of {count} tunnels lead to {version}: {:?}", self.said.borrow()))
        })
    }

    /// Ends all; what each client has seen, or the first that could not go on.
    pub async fn close(self) -> Result<Vec<Client>> {
        self.stop.send_replace(true);
        let ended = self.clients.join_all().await;
        ended.into_iter().collect::<std::result::Result<_, _>>().map_err(Error::other)
    }
}

async fn connect(router: Ipv4Addr, host: &str) -> std::result::Result<BufReader<TcpStream>, String> {
    let asked = format!("GET /tunnel HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: lines\r\n\r\n");
    let open = async {
        let mut stream = BufReader::new(TcpStream::connect((router, 80)).await?);
        stream.write_all(asked.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).await? > 0 {}
        Ok::<_, std::io::Error>((stream, head))
    };
    let (stream, head) = tokio::time::timeout(PATIENCE, open)
        .await
        .map_err(|_| format!("{router} opens no tunnel within {PATIENCE:?}"))?
        .map_err(|error| format!("{router} opens no tunnel: {error}"))?;
    if head.starts_with("HTTP/1.1 101 ") { Ok(stream) } else { Err(format!("{router} opens no tunnel: {head}")) }
}

/// Says something now and then until the tunnel ends, or the client is to stop.
async fn speak(
    mut tunnel: BufReader<TcpStream>,
    number: usize,
    seen: &mut Client,
    said: &watch::Sender<BTreeSet<(usize, String)>>,
    stopped: &mut watch::Receiver<bool>,
) -> std::result::Result<(), String> {
    loop {
        let line = format!("{number} {}\n", seen.lines);
        let mut answer = String::new();
        let exchange = async {
            tunnel.write_all(line.as_bytes()).await?;
            tunnel.read_line(&mut answer).await
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Err(_) => return Err(format!("no answer within {PATIENCE:?}")),
            // The end, before this line or instead of its answer.
            Ok(Ok(0) | Err(_)) => {
                seen.ended += 1;
                return Ok(());
            }
            Ok(Ok(_)) => {}
        }
        let version = answer.strip_suffix(&line).ok_or_else(|| format!("{answer:?} is no answer to {line:?}"))?.trim();
        seen.lines += 1;
        if seen.versions.last().is_none_or(|last| last != version) {
            seen.versions.push(version.to_owned());
            said.send_modify(|all| {
                all.insert((number, version.to_owned()));
            });
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = stopped.changed() => return Ok(()),
        }
    }
}
