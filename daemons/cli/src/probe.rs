//! Whether an app answers, as its users ask: over its own URL.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use reqwest::redirect::Policy;
use tokio::time::sleep;
use url::Url;

/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for one attempt.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Waits for the first answer below 400 from a URL and returns the moment when it came. Ends only then.
pub async fn first_answer(url: &str) -> Option<Instant> {
    let url = Url::parse(url).ok()?;
    let client = client(&url)?;
    loop {
        if let Ok(response) = client.get(url.clone()).send().await
            && response.status().as_u16() < 400
        {
            return Some(Instant::now());
        }
        sleep(PAUSE).await;
    }
}

fn client(url: &Url) -> Option<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("dinp/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
        .timeout(TIMEOUT);
    // Names below `localhost` are this machine (RFC 6761); browsers know that, most resolvers do not.
    if let Some(host) = url.host_str().filter(|host| host.ends_with(".localhost")) {
        builder = builder.resolve(host, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    }
    builder.build().ok()
}
