//! What `dinp.toml` says: the settings that every daemon of a cluster shares.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use super::ConfigError;
use crate::credentials::{self, CredentialError, Secret};
use crate::network::Network;

/// The cluster-wide settings (`/etc/dinp/dinp.toml`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Name of the cluster; part of Redis keys and container labels.
    pub cluster: String,
    /// Apps are served at `<app>.<domain>`.
    pub domain: String,
    /// The servers, in the order in which they are tried.
    pub servers: Vec<Url>,
    /// Networks from which the status of routers and monitors may be read, besides each machine itself and the servers.
    pub status_networks: Vec<Network>,
    /// Where desired state lives.
    pub mysql: MysqlConfig,
    /// Where routes are published.
    pub redis: RedisConfig,
    /// Where images are kept.
    pub registry: RegistryConfig,
    /// Users, teams, sign-on.
    pub uic: UicEndpoint,
    /// The dashboard.
    pub dash: DashEndpoint,
    /// The image builder.
    pub builder: BuilderEndpoint,
    /// Logging.
    pub log: LogConfig,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            cluster: "dinp".into(),
            domain: "apps.localhost".into(),
            servers: vec![local_url(1980)],
            status_networks: Vec::new(),
            mysql: MysqlConfig::default(),
            redis: RedisConfig::default(),
            registry: RegistryConfig::default(),
            uic: UicEndpoint::default(),
            dash: DashEndpoint::default(),
            builder: BuilderEndpoint::default(),
            log: LogConfig::default(),
        }
    }
}

impl ClusterConfig {
    /// Checks what types cannot say.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let name_ok = |s: &str| {
            !s.is_empty()
                && s.len() <= 63
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !name_ok(&self.cluster) {
            return Err(ConfigError::invalid("cluster", "must be lower-case letters, digits and hyphens"));
        }
        let domain_ok = !self.domain.is_empty() && self.domain.split('.').all(name_ok);
        if !domain_ok {
            return Err(ConfigError::invalid("domain", "must be a lower-case DNS name"));
        }
        if self.servers.is_empty() {
            return Err(ConfigError::invalid("servers", "must name at least one server"));
        }
        let urls = self.servers.iter().map(|url| ("servers", url));
        let urls = urls.chain([("uic.url", &self.uic.url), ("builder.url", &self.builder.url)]);
        for (key, url) in urls {
            if url.scheme() != "http" || url.host_str().is_none() {
                return Err(ConfigError::invalid(key, format!("{url} is not an http:// URL with a host")));
            }
        }
        self.check_public("uic.public_url", &self.uic.public_url)?;
        self.check_public("dash.public_url", &self.dash.public_url)?;
        let (uic, dash) = (&self.uic.public_url, &self.dash.public_url);
        if dash.scheme() == "https" && uic.scheme() == "http" && *uic != local_url(1984) {
            let problem =
                format!("{uic} would take passwords in the clear, while dash.public_url ({dash}) is https://");
            return Err(ConfigError::invalid("uic.public_url", problem));
        }
        if self.redis.url.scheme() != "redis" {
            return Err(ConfigError::invalid("redis.url", "must start with redis://"));
        }
        if self.redis.url.password().is_some() {
            return Err(ConfigError::invalid("redis.url", "must not hold a password, use redis.password_credential"));
        }
        if self.mysql.host.is_empty() {
            return Err(ConfigError::invalid("mysql.host", "must not be empty"));
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.level).is_err() {
            return Err(ConfigError::invalid("log.level", "must be error, warn, info, debug, trace or a filter"));
        }
        Ok(())
    }

    /// Where browsers go: by TLS if a proxy in front speaks it. Never among the apps, any of which could set cookies
    /// for the whole of their domain, and so plant a sign-on.
    fn check_public(&self, key: &str, url: &Url) -> Result<(), ConfigError> {
        let host = url.host_str().unwrap_or_default();
        if !matches!(url.scheme(), "http" | "https") || host.is_empty() {
            return Err(ConfigError::invalid(key, format!("{url} is not an http:// or https:// URL with a host")));
        }
        let above = host.strip_suffix(&self.domain);
        if above.is_some_and(|above| above.is_empty() || above.ends_with('.')) {
            let domain = &self.domain;
            let problem = format!("{host} lies under {domain}, where apps answer and could set cookies for it");
            return Err(ConfigError::invalid(key, problem));
        }
        Ok(())
    }
}

/// `[mysql]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MysqlConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Schema.
    pub database: String,
    /// Account; by default `dinp_<daemon>`.
    pub user: Option<String>,
    /// Credential with the password; by default `mysql-<daemon>`.
    pub password_credential: Option<String>,
    /// File with the password, instead of a credential.
    pub password_file: Option<PathBuf>,
}

impl Default for MysqlConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 3306,
            database: "dinp".into(),
            user: None,
            password_credential: None,
            password_file: None,
        }
    }
}

impl MysqlConfig {
    /// The account that `daemon` uses.
    pub fn user_for(&self, daemon: &str) -> String {
        self.user.clone().unwrap_or_else(|| format!("dinp_{daemon}"))
    }

    /// The password of that account.
    pub fn password_for(&self, daemon: &str) -> Result<Secret, CredentialError> {
        credentials::resolve(
            self.password_credential.as_deref(),
            self.password_file.as_deref(),
            &format!("mysql-{daemon}"),
        )
    }
}

/// `[redis]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://host:port`, optionally with `/<database number>`.
    pub url: Url,
    /// ACL account; by default `dinp_<daemon>`. An empty text stands for Redis' default account.
    pub user: Option<String>,
    /// Credential with the password; by default `redis-<daemon>`.
    pub password_credential: Option<String>,
    /// File with the password, instead of a credential.
    pub password_file: Option<PathBuf>,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: url("redis://127.0.0.1:6379"), user: None, password_credential: None, password_file: None }
    }
}

impl RedisConfig {
    /// The account that `daemon` uses.
    pub fn user_for(&self, daemon: &str) -> String {
        self.user.clone().unwrap_or_else(|| format!("dinp_{daemon}"))
    }

    /// The password of that account.
    pub fn password_for(&self, daemon: &str) -> Result<Secret, CredentialError> {
        credentials::resolve(
            self.password_credential.as_deref(),
            self.password_file.as_deref(),
            &format!("redis-{daemon}"),
        )
    }
}

/// `[registry]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// `host:port` as it stands in image names: what images are pulled from. Nodes need no right to write there.
    pub address: String,
    /// `host:port` of the same images that they are pushed to; by default `address`.
    pub push_address: Option<String>,
    /// Speak plain HTTP to it.
    pub insecure: bool,
    /// Credential `user:password`; by default `registry-push` (builder) or `registry-pull` (server).
    pub credential: Option<String>,
    /// File with `user:password`, instead of a credential.
    pub credential_file: Option<PathBuf>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:5000".into(),
            push_address: None,
            insecure: true,
            credential: None,
            credential_file: None,
        }
    }
}

/// An account at the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryAccount {
    /// Account name.
    pub user: String,
    /// Its password.
    pub password: Secret,
}

impl RegistryConfig {
    /// Where images are pushed to.
    pub fn push_address(&self) -> &str {
        self.push_address.as_deref().unwrap_or(&self.address)
    }

    /// The account to use; `None` (anonymous) where nothing is configured and the credential
    /// `default_id` does not exist.
    pub fn account(&self, default_id: &str) -> Result<Option<RegistryAccount>, CredentialError> {
        let secret = credentials::resolve(self.credential.as_deref(), self.credential_file.as_deref(), default_id);
        let implicit = self.credential.is_none() && self.credential_file.is_none();
        let secret = match secret {
            Err(error) if implicit && error.is_missing() => return Ok(None),
            other => other?,
        };
        let Some((user, password)) = secret.expose().split_once(':') else {
            return Err(CredentialError::Malformed {
                id: self.credential.clone().unwrap_or_else(|| default_id.to_owned()),
                problem: "expected user:password".into(),
            });
        };
        Ok(Some(RegistryAccount { user: user.to_owned(), password: Secret::new(password) }))
    }
}

/// `[uic]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UicEndpoint {
    /// Where dash calls it.
    pub url: Url,
    /// Where browsers and the command line reach it.
    pub public_url: Url,
}

impl Default for UicEndpoint {
    fn default() -> Self {
        Self { url: local_url(1984), public_url: local_url(1984) }
    }
}

/// `[dash]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DashEndpoint {
    /// Where browsers and the command line reach it.
    pub public_url: Url,
}

impl Default for DashEndpoint {
    fn default() -> Self {
        Self { public_url: local_url(1985) }
    }
}

/// `[builder]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BuilderEndpoint {
    /// Where dash calls it.
    pub url: Url,
}

impl Default for BuilderEndpoint {
    fn default() -> Self {
        Self { url: local_url(1986) }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Where log lines go.
    pub sink: LogSink,
    /// Level (`info`) or filter (`info,dinp_server=debug`); the environment's `DINP_LOG` wins.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { sink: LogSink::Auto, level: "info".into() }
    }
}

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSink {
    /// journald where the daemon was started with its output connected to it, else stderr.
    #[default]
    Auto,
    /// journald.
    Journald,
    /// Standard error.
    Stderr,
    /// The local syslog daemon.
    Syslog,
}

fn local_url(port: u16) -> Url {
    url(&format!("http://127.0.0.1:{port}"))
}

fn url(text: &str) -> Url {
    Url::parse(text).expect("a URL written in this file is valid")
}
