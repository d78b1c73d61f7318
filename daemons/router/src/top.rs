//! `dinp-router top`: what this router is doing, app by app.

use crate::api::Traffic;
use crate::config::RouterConfig;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use dinp_common::client::{ApiClient, ClientError};
use dinp_common::config::Loaded;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};
use url::Url;

/// Time for one look.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The router does not say.
    #[error("ask the router at {1}; is dinp-router.service running?")]
    Router(#[source] ClientError, Url),
    /// Nobody reads.
    #[error("write the table")]
    Write(#[source] io::Error),
}

/// The subcommand.
pub fn command() -> Command {
    Command::new("top")
        .about("Show what this router is doing, app by app, until Ctrl-C")
        .long_about(
            "Show what this router is doing, app by app: the busiest releases first, with requests a second, their \
             answers by status, attempts that got no answer, the mean time until an answer begins, and what is in \
             flight. Ends with Ctrl-C; where the output is no terminal it is shown once.",
        )
        .arg(
            Arg::new("interval")
                .long("interval")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(1..=3600))
                .default_value("2")
                .help("Time that rates are taken over"),
        )
        .arg(
            Arg::new("rows")
                .long("rows")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..=10_000))
                .default_value("20")
                .help("Releases to show"),
        )
        .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help("Show it once, and end"))
}

/// Shows it.
pub async fn run(matches: ArgMatches, loaded: Loaded<RouterConfig>) -> Result<(), TopError> {
    let number = |name: &str| matches.get_one::<u64>(name).copied().unwrap_or_default();
    let interval = Duration::from_secs(number("interval"));
    let rows = usize::try_from(number("rows")).unwrap_or(usize::MAX);
    let is_once = matches.get_flag("once") || !io::stdout().is_terminal();
    let url = local_status_url(&loaded.daemon);
    let client = ApiClient::new(vec![url.clone()], None, concat!("dinp-router-top/", env!("CARGO_PKG_VERSION")));
    let look = || async {
        let traffic: Traffic =
            client.get("/v1/traffic", TIMEOUT).await.map_err(|error| TopError::Router(error, url.clone()))?;
        Ok((traffic, Instant::now()))
    };
    let (mut before, mut since) = look().await?;
    loop {
        tokio::time::sleep(interval).await;
        let (after, now) = look().await?;
        let text = table(&before, &after, now - since, rows);
        // From the upper left corner, over what stood there.
        let page = if is_once { text } else { format!("\x1b[H\x1b[2J{text}") };
        io::stdout().write_all(page.as_bytes()).map_err(TopError::Write)?;
        io::stdout().flush().map_err(TopError::Write)?;
        if is_once {
            return Ok(());
        }
        (before, since) = (after, now);
    }
}

/// Where the status listener is, as this machine reaches it.
fn local_status_url(config: &RouterConfig) -> Url {
    let listens = config.status_listen.first().copied();
    let mut address = listens.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 1982)));
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Url::parse(&format!("http://{address}")).expect("an address makes a URL")
}

/// The busiest releases, and what they did between two looks.
fn table(before: &Traffic, after: &Traffic, time: Duration, rows: usize) -> String {
    let secs = time.as_secs_f64().max(0.001);
    let known: BTreeMap<_, _> = before.releases.iter().map(|one| ((&one.app, one.release), one)).collect();
    let mut all = Vec::new();
    for now in &after.releases {
        // A router that was restarted meanwhile counts anew.
        let was = known
            .get(&(&now.app, now.release))
            .filter(|was| was.answers.iter().zip(&now.answers).all(|(was, now)| was <= now));
        let since = |now: u64, was: Option<u64>| now.saturating_sub(was.unwrap_or_default());
        let answers: [u64; 5] =
            std::array::from_fn(|class| since(now.answers[class], was.map(|was| was.answers[class])));
        let failed = since(now.failed, was.map(|was| was.failed));
        let micros = since(now.micros, was.map(|was| was.micros));
        all.push((answers.iter().sum::<u64>(), now, answers, failed, micros));
    }
    all.sort_by(|one, other| other.0.cmp(&one.0).then_with(|| one.1.app.cmp(&other.1.app)));
    let total: u64 = all.iter().map(|one| one.0).sum();
    let rate = |count: u64| count as f64 / secs;
    let written = || -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        let (connections, releases) = (after.connections, after.releases.len());
        let queued = if after.queued > 0 { format!(", {} waiting", after.queued) } else { String::new() };
        writeln!(out, "{connections} connections, {:.1} requests/s to {releases} releases{queued}\n", rate(total))?;
        let width = all.iter().take(rows).map(|one| one.1.app.len()).max().unwrap_or(0).max(3);
        write!(out, "{:<width$}  {:<20}", "APP", "RELEASE")?;
        for word in ["REQ/S", "2xx", "3xx", "4xx", "5xx", "FAILED", "MEAN MS", "IN FLIGHT"] {
            write!(out, " {word:>9}")?;
        }
        out.push('\n');
        for (count, release, answers, failed, micros) in all.iter().take(rows) {
            write!(out, "{:<width$}  {:<20}", release.app, release.release)?;
            for count in [count].into_iter().chain(&answers[1..]).chain([failed]) {
                write!(out, " {:>9.1}", rate(*count))?;
            }
            let mean = *micros as f64 / 1000.0 / (*count).max(1) as f64;
            writeln!(out, " {mean:>9.1} {:>9}", release.in_flight)?;
        }
        Ok(out)
    };
    written().expect("a text takes what is written to it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ReleaseTraffic;

    fn release(app: &str, ok: u64, micros: u64) -> ReleaseTraffic {
        ReleaseTraffic { app: app.into(), release: 7, answers: [0, ok, 0, 0, 1], failed: 0, micros, in_flight: 2 }
    }

    #[test]
    fn the_busiest_first() {
        let before = Traffic { connections: 1, queued: 0, releases: vec![release("shop", 100, 0)] };
        let after = Traffic {
            connections: 5,
            queued: 3,
            releases: vec![release("blog", 3, 8000), release("shop", 300, 1_000_000)],
        };
        let text = table(&before, &after, Duration::from_secs(2), 20);
        assert_eq!(
            text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"),
            "5 connections, 102.0 requests/s to 2 releases, 3 waiting\n\n\
             APP   RELEASE                  REQ/S       2xx       3xx       4xx       5xx    FAILED   MEAN MS IN FLIGHT\n\
             shop  7                        100.0     100.0       0.0       0.0       0.0       0.0       5.0         2\n\
             blog  7                          2.0       1.5       0.0       0.0       0.5       0.0       2.0         2"
        );
        assert_eq!(table(&after, &after, Duration::from_secs(2), 1).lines().count(), 4);
        let restarted = table(&after, &before, Duration::from_secs(1), 20);
        assert!(restarted.starts_with("1 connections, 101.0 requests/s"), "{restarted}");
    }

    #[test]
    fn the_status_listener_is_asked_where_it_is() {
        let url = |listen: &str| {
            let config = RouterConfig { status_listen: vec![listen.parse().unwrap()], ..RouterConfig::default() };
            local_status_url(&config).to_string()
        };
        assert_eq!(url("0.0.0.0:1982"), "http://127.0.0.1:1982/");
        assert_eq!(url("[::]:99"), "http://[::1]:99/");
        assert_eq!(url("192.0.2.1:1982"), "http://192.0.2.1:1982/");
    }
}
