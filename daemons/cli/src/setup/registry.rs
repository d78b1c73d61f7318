//! Steps that are about the Docker registry on this machine: one storage, and two processes that listen.
//!
//! The registry's own basic authentication knows no rights: who is let in may push and delete. So there is one listener
//! for the builder alone, and a read-only one for everybody else; no credential that a node holds can change an image.

use super::error::SetupError;
use super::files::{File, needed_credential};
use super::step::{State, Step, Steps, Task};
use super::system::{self, Access, run};
use super::units::Unit;
use dinp_common::credentials::Secret;
use reqwest::{Method, StatusCode};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

const STORAGE: &str = "/var/lib/docker-registry";
const ACCESS: Access = Access { user: "root", group: "docker-registry", mode: 0o640 };

/// Account and credential of who pushes.
pub const PUSH: (&str, &str) = ("dinp-push", "registry-push");
/// Account and credential of who only pulls: every node sees it.
pub const PULL: (&str, &str) = ("dinp-pull", "registry-pull");

/// Settings, accounts and units of both listeners, and restarts where they have changed.
pub fn steps(pull: SocketAddr, push: SocketAddr) -> Steps {
    let (reader, writer) = (Listener::reader(pull), Listener::writer(push));
    let mut steps: Steps = Vec::new();
    for listener in [&writer, &reader] {
        steps.push(File::step(&listener.settings, listener.settings_text(Path::new(STORAGE)), Access::PUBLIC));
        steps.push(Box::new(Accounts { file: listener.accounts.clone(), accounts: listener.lets_in }));
    }
    steps.push(File::step(DROP_IN, WRITER_UNIT, Access::PUBLIC));
    steps.push(File::step(READER_FILE, READER_UNIT, Access::PUBLIC));
    // A writer that listens where the reader is to listen moves first.
    for (listener, unit, file) in [(writer, "docker-registry.service", DROP_IN), (reader, READER, READER_FILE)] {
        steps.push(Unit::step(unit, [listener.settings.clone(), listener.accounts.clone(), file.into()]));
        steps.push(Box::new(Answers { listener }));
    }
    steps.push(File::step(COLLECT_FILE, COLLECT_UNIT, Access::PUBLIC));
    steps.push(File::step(COLLECTOR_FILE, COLLECTOR_TIMER, Access::PUBLIC));
    steps.push(Unit::step(COLLECTOR, [PathBuf::from(COLLECTOR_FILE)]));
    steps
}

const DROP_IN: &str = "/etc/systemd/system/docker-registry.service.d/dinp.conf";
const WRITER_UNIT: &str = "\
# Written by `dinp setup`: its own settings, and it comes back by itself; the reader comes with it, and stays while
# garbage is collected.
[Unit]
Wants=network-online.target docker-registry-readonly.service
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=
ExecStart=/usr/bin/docker-registry serve /etc/docker/registry/dinp.yml
Restart=always
RestartSec=2
";

const READER: &str = "docker-registry-readonly.service";
const READER_FILE: &str = "/etc/systemd/system/docker-registry-readonly.service";
const READER_UNIT: &str = "\
# Written by `dinp setup`.
[Unit]
Description=Docker registry for nodes: what docker-registry.service keeps, read-only
Wants=network-online.target
After=network-online.target docker-registry.service
StartLimitIntervalSec=0

[Service]
User=docker-registry
ExecStart=/usr/bin/docker-registry serve /etc/docker/registry/dinp-readonly.yml
Restart=always
RestartSec=2
NoNewPrivileges=yes
ProtectSystem=strict
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
";

const COLLECTOR: &str = "docker-registry-gc.timer";
const COLLECTOR_FILE: &str = "/etc/systemd/system/docker-registry-gc.timer";
const COLLECTOR_TIMER: &str = "\
# Written by `dinp setup`.
[Unit]
Description=Docker registry: gives back what deleted images took, once a week

[Timer]
OnCalendar=Sun 03:30
RandomizedDelaySec=1h

[Install]
WantedBy=timers.target
";
const COLLECT_FILE: &str = "/etc/systemd/system/docker-registry-gc.service";
const COLLECT_UNIT: &str = "\
# Written by `dinp setup`: what is pushed while garbage is collected could be lost, so nobody can push meanwhile. Nodes pull on.
[Unit]
Description=Docker registry: gives back what deleted images took
Conflicts=docker-registry.service
After=docker-registry.service
OnSuccess=docker-registry.service
OnFailure=docker-registry.service

[Service]
Type=oneshot
User=docker-registry
ExecStart=/usr/bin/docker-registry garbage-collect /etc/docker/registry/dinp.yml
StandardOutput=null
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/var/lib/docker-registry
PrivateTmp=yes
";

/// One process of the registry.
#[derive(Debug, Clone)]
struct Listener {
    address: SocketAddr,
    settings: PathBuf,
    accounts: PathBuf,
    lets_in: &'static [(&'static str, &'static str)],
    keeps_out: &'static [(&'static str, &'static str)],
    read_only: bool,
}

impl Listener {
    /// For the builder alone.
    fn writer(address: SocketAddr) -> Self {
        Self {
            address,
            settings: "/etc/docker/registry/dinp.yml".into(),
            accounts: "/etc/docker/registry/dinp.htpasswd".into(),
            lets_in: &[PUSH],
            keeps_out: &[PULL],
            read_only: false,
        }
    }

    /// For nodes and dashboards, and for the builder, which looks at what nodes see.
    fn reader(address: SocketAddr) -> Self {
        Self {
            address,
            settings: "/etc/docker/registry/dinp-readonly.yml".into(),
            accounts: "/etc/docker/registry/dinp-readonly.htpasswd".into(),
            lets_in: &[PUSH, PULL],
            keeps_out: &[],
            read_only: true,
        }
    }

    fn settings_text(&self, storage: &Path) -> String {
        // What is deleted through the one must not be remembered by the other.
        let kind = if self.read_only {
            "\x20 maintenance:\n\x20   readonly:\n\x20     enabled: true\n"
        } else {
            "\x20 cache:\n\x20   blobdescriptor: inmemory\n\x20 delete:\n\x20   enabled: true\n"
        };
        format!(
            "# Written by `dinp setup`.\n\
             version: 0.1\n\
             log:\n\
             \x20 level: info\n\
             \x20 accesslog:\n\
             \x20   disabled: true\n\
             storage:\n\
             \x20 filesystem:\n\
             \x20   rootdirectory: {}\n\
             {kind}\
             http:\n\
             \x20 addr: \"{}\"\n\
             \x20 headers:\n\
             \x20   X-Content-Type-Options: [nosniff]\n\
             auth:\n\
             \x20 htpasswd:\n\
             \x20   realm: dinp\n\
             \x20   path: {}\n\
             health:\n\
             \x20 storagedriver:\n\
             \x20   enabled: true\n\
             \x20   interval: 10s\n\
             \x20   threshold: 3\n",
            storage.display(),
            self.address,
            self.accounts.display()
        )
    }
}

/// An account and its password out of a credential.
pub fn account(id: &str) -> Result<(String, Secret), SetupError> {
    let secret = needed_credential(id)?;
    let parts = secret.expose().split_once(':');
    let (user, password) =
        parts.ok_or_else(|| SetupError::Refused(format!("credential {id} is not an account and its password")))?;
    Ok((user.to_owned(), Secret::new(password)))
}

/// A file of accounts, with bcrypt hashes: the registry knows no other.
struct Accounts {
    file: PathBuf,
    accounts: &'static [(&'static str, &'static str)],
}

impl Step for Accounts {
    fn name(&self) -> String {
        self.file.display().to_string()
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async {
            let Some(found) = system::read(&self.file)? else { return Ok(State::due("new file")) };
            if found.lines().count() != self.accounts.len() {
                return Ok(State::due("other accounts"));
            }
            let file = self.file.display().to_string();
            for (user, id) in self.accounts {
                let (_, password) = account(id)?;
                if !system::succeeds("htpasswd", &["-v", "-i", &file, user], Some(&password)).await {
                    return Ok(State::due(format!("password of {user}")));
                }
            }
            Ok(if ACCESS.holds(&self.file)? { State::Ok } else { State::due("owner or permissions") })
        })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async {
            let mut text = String::new();
            for (user, id) in self.accounts {
                let (_, password) = account(id)?;
                text += run("htpasswd", &["-n", "-i", "-B", user], Some(&password)).await?.trim();
                text.push('\n');
            }
            system::write(&self.file, &text, ACCESS)
        })
    }
}

/// Lets its accounts in and nobody else, and takes images only if it is not read-only.
struct Answers {
    listener: Listener,
}

impl Answers {
    async fn ask(&self) -> Result<(), SetupError> {
        let accounts = |of: &[(&str, &str)]| of.iter().map(|(_, id)| account(id)).collect::<Result<Vec<_>, _>>();
        let (inside, outside) = (accounts(self.listener.lets_in)?, accounts(self.listener.keeps_out)?);
        self.listener.behaves(&inside, &outside).await
    }
}

impl Listener {
    /// Whether it is as it should be for these accounts, of which the second ones must not be known to it.
    async fn behaves(&self, inside: &[(String, Secret)], outside: &[(String, Secret)]) -> Result<(), SetupError> {
        let refused = |what: String| SetupError::Refused(format!("the registry at {} {what}", self.address));
        for account in inside {
            let status = self.status(Method::GET, "", Some(account)).await?;
            if !status.is_success() {
                return Err(refused(format!("does not let {} in: it answers {status}", account.0)));
            }
            if self.read_only {
                let begun = self.status(Method::POST, "dinp-setup/probe/blobs/uploads/", Some(account)).await?;
                if begun != StatusCode::METHOD_NOT_ALLOWED {
                    return Err(refused(format!("is not read-only: it answers {begun} to an upload")));
                }
            }
        }
        for account in outside {
            if self.status(Method::GET, "", Some(account)).await? != StatusCode::UNAUTHORIZED {
                return Err(refused(format!("lets {} in", account.0)));
            }
        }
        if self.status(Method::GET, "", None).await?.is_success() {
            return Err(refused("lets everybody in".into()));
        }
        Ok(())
    }

    async fn status(
        &self,
        method: Method,
        path: &str,
        account: Option<&(String, Secret)>,
    ) -> Result<StatusCode, SetupError> {
        let refused = |what: String| SetupError::Refused(format!("the registry at {} {what}", self.address));
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build();
        let client = client.map_err(|error| refused(error.to_string()))?;
        let mut request = client.request(method, format!("http://{}/v2/{path}", self.address));
        if let Some((user, password)) = account {
            request = request.basic_auth(user, Some(password.expose()));
        }
        let answer = request.send().await.map_err(|_| refused("does not answer".into()))?;
        Ok(answer.status())
    }
}

impl Step for Answers {
    fn name(&self) -> String {
        let kind = if self.listener.read_only { "read-only registry" } else { "registry" };
        format!("{kind} answers at {}", self.listener.address)
    }

    fn check(&self) -> Task<'_, State> {
        Box::pin(async { Ok(self.ask().await.map_or_else(|_| State::due("waited for it"), |()| State::Ok)) })
    }

    fn apply(&self) -> Task<'_, ()> {
        Box::pin(async { system::retry(Duration::from_secs(20), async || self.ask().await).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dinp_common::testing::{TestDir, free_port};
    use sha2::{Digest, Sha256};
    use std::process::{Child, Command, Stdio};

    /// A listener with these settings, until dropped.
    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    async fn started(listener: Listener, dir: &TestDir, accounts: &[(String, Secret)]) -> (Listener, Running) {
        let file = |name: &str| dir.path().join(format!("{}-{name}", listener.address.port()));
        let listener = Listener { accounts: file("accounts"), settings: file("settings"), ..listener };
        let hash = |(user, password): &(String, Secret)| {
            let output = Command::new("htpasswd").args(["-nbB", user, password.expose()]).output();
            String::from_utf8(output.expect("install the package apache2-utils").stdout).unwrap().trim().to_owned()
        };
        std::fs::write(&listener.accounts, accounts.iter().map(hash).collect::<Vec<_>>().join("\n")).unwrap();
        std::fs::write(&listener.settings, listener.settings_text(&dir.path().join("storage"))).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&listener.settings).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Running(command.spawn().expect("install the package docker-registry"));
        let answers = async || listener.status(Method::GET, "", None).await.map(drop);
        system::retry(Duration::from_secs(20), answers).await.unwrap();
        (listener, running)
    }

    fn local() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], free_port()))
    }

    fn sha256(bytes: &[u8]) -> String {
        format!("sha256:{}", dinp_common::auth::hex(&Sha256::digest(bytes)))
    }

    #[tokio::test]
    async fn what_a_node_holds_pulls_and_can_neither_push_nor_delete() {
        let dir = TestDir::new("registries");
        let (push, pull) =
            (("dinp-push".to_owned(), Secret::new("secret1")), ("dinp-pull".to_owned(), Secret::new("secret2")));
        let (writer, _writing) = started(Listener::writer(local()), &dir, std::slice::from_ref(&push)).await;
        let (reader, _reading) = started(Listener::reader(local()), &dir, &[push.clone(), pull.clone()]).await;
        writer.behaves(std::slice::from_ref(&push), std::slice::from_ref(&pull)).await.unwrap();
        reader.behaves(&[push.clone(), pull.clone()], &[]).await.unwrap();
        let pretends = Listener { read_only: true, ..writer.clone() };
        let error = pretends.behaves(std::slice::from_ref(&push), &[]).await.unwrap_err().to_string();
        assert!(error.contains("is not read-only: it answers 202"), "{error}");

        // An image of the platform, pushed as the builder does.
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let repository = |listener: &Listener| format!("http://{}/v2/dinp/base", listener.address);
        let send = async |method: Method, url: String, account: &(String, Secret), body: Vec<u8>| {
            let kind = "application/vnd.docker.distribution.manifest.v2+json";
            let request = client.request(method, url).header("accept", kind).header("content-type", kind).body(body);
            request.basic_auth(&account.0, Some(account.1.expose())).send().await.unwrap()
        };
        let begun = send(Method::POST, format!("{}/blobs/uploads/", repository(&writer)), &push, Vec::new()).await;
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let config = b"{}".to_vec();
        let digest = sha256(&config);
        let put = send(Method::PUT, format!("{location}&digest={digest}"), &push, config).await;
        assert_eq!(put.status(), 201);
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"{digest}"}},"layers":[]}}"#
        );
        let at = |listener: &Listener, name: &str| format!("{}/manifests/{name}", repository(listener));
        let put = send(Method::PUT, at(&writer, "bookworm"), &push, manifest.clone().into()).await;
        assert_eq!(put.status(), 201);

        // A node sees it at once, and that is all that it can do.
        let got = send(Method::GET, at(&reader, "bookworm"), &pull, Vec::new()).await;
        assert_eq!((got.status().as_u16(), got.text().await.unwrap()), (200, manifest.clone()));
        let changed = manifest.replace("\"layers\":[]", "\"layers\": []");
        let named = sha256(manifest.as_bytes());
        for (listener, expected) in [(&reader, 405), (&writer, 401)] {
            let status = async |method: Method, url: String| {
                send(method, url, &pull, changed.clone().into()).await.status().as_u16()
            };
            assert_eq!(status(Method::PUT, at(listener, "bookworm")).await, expected, "replace a tag");
            assert_eq!(status(Method::DELETE, at(listener, &named)).await, expected, "delete an image");
            assert_eq!(status(Method::DELETE, format!("{}/blobs/{digest}", repository(listener))).await, expected);
            assert_eq!(status(Method::POST, format!("{}/blobs/uploads/", repository(listener))).await, expected);
        }
        let got = send(Method::GET, at(&reader, "bookworm"), &pull, Vec::new()).await;
        assert_eq!(got.text().await.unwrap(), manifest);
    }
}
