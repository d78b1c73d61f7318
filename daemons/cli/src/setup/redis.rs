//! Steps that are about Redis on this machine: who may do what, and where it listens.

use super::error::SetupError;
use super::files::{File, needed_credential};
use super::step::{State, Step, Steps, Task};
use super::system::{self, Access};
use super::units::Unit;
use dinp_common::auth::hex;
use dinp_common::credentials::Secret;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use url::Url;

const SETTINGS: &str = "/etc/redis/dinp.conf";
const ACCOUNTS: &str = "/etc/redis/dinp.acl";
const DROP_IN: &str = "/etc/systemd/system/redis-server.service.d/dinp.conf";
const UNIT: &str = "redis-server.service";
const ACCESS: Access = Access { user: "redis", group: "redis", mode: 0o640 };

/// The server writes the keys of DINP, routers read them. Neither may change accounts or settings, or see other keys.
const RULES: [(&str, &str); 2] = [
    ("server", "~dinp:* resetchannels -@all +@read +@write +@connection +@scripting +@transaction -@dangerous +info"),
    ("router", "~dinp:* resetchannels -@all +@read +@connection -@dangerous +info"),
];

/// Settings, accounts, and the restart where they have changed.
pub fn steps(address: IpAddr) -> Steps {
    let port = SocketAddr::new(address, 6379);
    vec![
        File::step(SETTINGS, settings(address), ACCESS),
        Box::new(Accounts),
        File::step(DROP_IN, drop_in(), Access::PUBLIC),
        Unit::step(UNIT, [SETTINGS, ACCOUNTS, DROP_IN]),
        Box::new(Answers { address: port }),
    ]
}

fn settings(address: IpAddr) -> String {
    let bind = if address.is_loopback() { address.to_string() } else { format!("127.0.0.1 {address}") };
    format!(
        "# Written by `dinp setup`; read after redis.conf, which stays as it was packaged.\n\
         bind {bind}\n\
         protected-mode yes\n\
         aclfile {ACCOUNTS}\n"
    )
}

fn drop_in() -> String {
    format!(
        "# Written by `dinp setup`: what differs from redis.conf, and it comes back by itself.\n\
         [Unit]\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart=\n\
         ExecStart=/usr/bin/redis-server /etc/redis/redis.conf --include {SETTINGS} --supervised systemd --daemonize no\n\
         RestartSec=2\n"
    )
}

/// The file of accounts holds hashes; nobody may do anything without an account.
struct Accounts;

impl Accounts {
    fn text() -> Result<String, SetupError> {
        let mut text = "user default off resetpass resetkeys resetchannels -@all\n".to_owned();
        for (name, rules) in RULES {
            let password = needed_credential(&format!("redis-{name}"))?;
            let hash = hex(&Sha256::digest(password.expose().as_bytes()));
            text += &format!("user dinp_{name} on #{hash} {rules}\n");
        }
        Ok(text)
    }
}

impl Step for Accounts {
    fn name(&self) -> String {
        ACCOUNTS.into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let wanted = Self::text()?;
            let found = system::read(Path::new(ACCOUNTS))?;
            Ok(if found.is_some_and(|found| found == wanted) { State::Ok } else { State::due("accounts") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::write(Path::new(ACCOUNTS), &Self::text()?, ACCESS) })
    }
}

/// Both accounts are let in at the address that others use.
struct Answers {
    address: SocketAddr,
}

impl Answers {
    async fn ask(&self) -> Result<(), SetupError> {
        let url = format!("redis://{}", self.address);
        let url = Url::parse(&url).map_err(|error| SetupError::Refused(format!("{url} is not a URL: {error}")))?;
        for (name, _) in RULES {
            let password = needed_credential(&format!("redis-{name}"))?;
            ping(&url, &format!("dinp_{name}"), &password).await?;
        }
        Ok(())
    }
}

/// Signs in and asks for an answer.
async fn ping(redis: &Url, user: &str, password: &Secret) -> Result<(), SetupError> {
    let failed = |error: redis::RedisError| SetupError::Refused(format!("{redis} does not let {user} in: {error}"));
    let mut url = redis.clone();
    if url.set_username(user).and_then(|()| url.set_password(Some(password.expose()))).is_err() {
        return Err(SetupError::Refused(format!("{redis} cannot carry an account")));
    }
    let work = async {
        let mut connection = redis::Client::open(url.as_str())?.get_multiplexed_async_connection().await?;
        redis::cmd("PING").query_async::<String>(&mut connection).await
    };
    match tokio::time::timeout(Duration::from_secs(5), work).await {
        Ok(answer) => answer.map(drop).map_err(failed),
        Err(_) => Err(SetupError::Refused(format!("{redis} does not answer"))),
    }
}

impl Step for Answers {
    fn name(&self) -> String {
        format!("Redis answers at {}", self.address)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async { Ok(self.ask().await.map_or_else(|_| State::due("waited for it"), |()| State::Ok)) })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::retry(Duration::from_secs(20), async || self.ask().await).await })
    }
}

/// The Redis of another machine lets an account of ours in.
pub struct LetsIn {
    /// Where it is.
    pub url: Url,
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl Step for LetsIn {
    fn name(&self) -> String {
        format!("Redis lets {} in", self.user)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async { ping(&self.url, &self.user, &self.password).await.map(|()| State::Ok) })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_that_redis_refuses_is_named() {
        let redis = dinp_common::testing::Redis::start().await;
        let step = |password: &str| LetsIn {
            url: redis.url().parse().unwrap(),
            user: "test".into(),
            password: Secret::new(password),
        };
        assert_eq!(step("test").check().await.unwrap(), State::Ok);
        let error = step("geheim").check().await.unwrap_err().to_string();
        assert!(error.contains("does not let test in") && !error.contains("geheim"), "{error}");
    }
}
