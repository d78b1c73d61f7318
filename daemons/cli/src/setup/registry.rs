//! Steps that are about the Docker registry on this machine.

use super::error::SetupError;
use super::files::{File, needed_credential};
use super::step::{State, Step, Steps, Task};
use super::system::{self, Access, run};
use super::units::Unit;
use dinp_common::credentials::Secret;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const SETTINGS: &str = "/etc/docker/registry/dinp.yml";
const ACCOUNTS: &str = "/etc/docker/registry/dinp.htpasswd";
const DROP_IN: &str = "/etc/systemd/system/docker-registry.service.d/dinp.conf";
const UNIT: &str = "docker-registry.service";
const ACCESS: Access = Access { user: "root", group: "docker-registry", mode: 0o640 };

/// Account and credential of who pushes, and of who pulls. The registry's own basic authentication knows no rights: both
/// may do both. They are two so that the one that every node sees can be renewed alone, and so that a registry with
/// rights can be put in its place.
pub const PUSH: (&str, &str) = ("dinp-push", "registry-push");
/// See [`PUSH`].
pub const PULL: (&str, &str) = ("dinp-pull", "registry-pull");

/// Settings, accounts, and the restart where they have changed.
pub fn steps(address: SocketAddr) -> Steps {
    vec![
        File::step(SETTINGS, settings(address), Access::PUBLIC),
        Box::new(Accounts),
        File::step(DROP_IN, drop_in(), Access::PUBLIC),
        Unit::step(UNIT, [SETTINGS, ACCOUNTS, DROP_IN]),
        Box::new(Answers { address }),
    ]
}

fn settings(address: SocketAddr) -> String {
    format!(
        "# Written by `dinp setup`.\n\
         version: 0.1\n\
         log:\n\
         \x20 level: info\n\
         \x20 accesslog:\n\
         \x20   disabled: true\n\
         storage:\n\
         \x20 cache:\n\
         \x20   blobdescriptor: inmemory\n\
         \x20 filesystem:\n\
         \x20   rootdirectory: /var/lib/docker-registry\n\
         \x20 delete:\n\
         \x20   enabled: true\n\
         http:\n\
         \x20 addr: \"{address}\"\n\
         \x20 headers:\n\
         \x20   X-Content-Type-Options: [nosniff]\n\
         auth:\n\
         \x20 htpasswd:\n\
         \x20   realm: dinp\n\
         \x20   path: {ACCOUNTS}\n\
         health:\n\
         \x20 storagedriver:\n\
         \x20   enabled: true\n\
         \x20   interval: 10s\n\
         \x20   threshold: 3\n"
    )
}

fn drop_in() -> String {
    format!(
        "# Written by `dinp setup`: its own settings, and it comes back by itself.\n\
         [Unit]\n\
         Wants=network-online.target\n\
         After=network-online.target\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         ExecStart=\n\
         ExecStart=/usr/bin/docker-registry serve {SETTINGS}\n\
         Restart=always\n\
         RestartSec=2\n"
    )
}

/// An account and its password out of a credential.
pub fn account(id: &str) -> Result<(String, Secret), SetupError> {
    let secret = needed_credential(id)?;
    let parts = secret.expose().split_once(':');
    let (user, password) =
        parts.ok_or_else(|| SetupError::Refused(format!("credential {id} is not an account and its password")))?;
    Ok((user.to_owned(), Secret::new(password)))
}

/// The file of accounts, with bcrypt hashes: the registry knows no other.
struct Accounts;

impl Step for Accounts {
    fn name(&self) -> String {
        ACCOUNTS.into()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let Some(found) = system::read(Path::new(ACCOUNTS))? else { return Ok(State::due("new file")) };
            if found.lines().count() != 2 {
                return Ok(State::due("other accounts"));
            }
            for (user, id) in [PUSH, PULL] {
                let (_, password) = account(id)?;
                if !system::succeeds("htpasswd", &["-v", "-i", ACCOUNTS, user], Some(&password)).await {
                    return Ok(State::due(format!("password of {user}")));
                }
            }
            Ok(if ACCESS.holds(Path::new(ACCOUNTS))? { State::Ok } else { State::due("owner or permissions") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let mut text = String::new();
            for (user, id) in [PUSH, PULL] {
                let (_, password) = account(id)?;
                text += run("htpasswd", &["-n", "-i", "-B", user], Some(&password)).await?.trim();
                text.push('\n');
            }
            system::write(Path::new(ACCOUNTS), &text, ACCESS)
        })
    }
}

/// Lets both accounts in, and nobody else.
struct Answers {
    address: SocketAddr,
}

impl Answers {
    async fn ask(&self) -> Result<(), SetupError> {
        let refused = |what: String| SetupError::Refused(format!("the registry at {} {what}", self.address));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
        let client = client.map_err(|error| refused(error.to_string()))?;
        let url = format!("http://{}/v2/", self.address);
        for (_, id) in [PUSH, PULL] {
            let (user, password) = account(id)?;
            let answer = client.get(&url).basic_auth(&user, Some(password.expose())).send().await;
            let answer = answer.map_err(|_| refused("does not answer".into()))?;
            if !answer.status().is_success() {
                return Err(refused(format!("does not let {user} in: it answers {}", answer.status())));
            }
        }
        let nobody = client.get(&url).send().await.map_err(|_| refused("does not answer".into()))?;
        if nobody.status().is_success() {
            return Err(refused("lets everybody in".into()));
        }
        Ok(())
    }
}

impl Step for Answers {
    fn name(&self) -> String {
        format!("registry answers at {}", self.address)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async { Ok(self.ask().await.map_or_else(|_| State::due("waited for it"), |()| State::Ok)) })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::retry(Duration::from_secs(20), async || self.ask().await).await })
    }
}
