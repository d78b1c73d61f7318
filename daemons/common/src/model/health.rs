//! How an instance is asked whether it is well.

use super::{DomainName, InvalidValue};
use serde::{Deserialize, Serialize};

/// What a probe does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// A GET request: any answer from 200 to 399 is well.
    #[default]
    Http,
    /// A connection: that it comes about is well. For what speaks no HTTP/1, such as gRPC.
    Tcp,
}

impl HealthKind {
    fn is_http(&self) -> bool {
        *self == Self::Http
    }
}

/// A health check. An app without one is asked `GET /` from its start until it has proved itself, where any HTTP answer
/// will do, and not after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What a probe does.
    #[serde(default, skip_serializing_if = "HealthKind::is_http")]
    pub kind: HealthKind,
    /// Path of the GET request, from `/`; empty for a connection.
    #[serde(default)]
    pub path: String,
    /// Host header of the request; by default the app's own name, as routers send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Time from one probe to the next, in seconds.
    #[serde(default = "default_interval")]
    pub interval_secs: u32,
    /// Time for a whole probe, in seconds; at most the interval.
    #[serde(default = "default_timeout")]
    pub timeout_secs: u32,
    /// Failures in a row that make the verdict "unfit", and successes in a row that take it back.
    #[serde(default = "default_threshold")]
    pub threshold: u32,
}

fn default_interval() -> u32 {
    5
}

fn default_timeout() -> u32 {
    2
}

fn default_threshold() -> u32 {
    3
}

impl HealthCheck {
    /// A check of this path with the default times.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            kind: HealthKind::Http,
            path: path.into(),
            host: None,
            interval_secs: default_interval(),
            timeout_secs: default_timeout(),
            threshold: default_threshold(),
        }
    }

    /// A check by connection with the default times.
    pub fn tcp() -> Self {
        Self { kind: HealthKind::Tcp, ..Self::new("") }
    }

    /// Whether it asks for there to be none: a request without a path.
    pub fn is_none(&self) -> bool {
        self.kind == HealthKind::Http && self.path.is_empty()
    }

    /// Checks path, host and times.
    pub fn check(&self) -> Result<(), InvalidValue> {
        match self.kind {
            HealthKind::Http => self.check_request()?,
            HealthKind::Tcp if self.path.is_empty() && self.host.is_none() => {}
            HealthKind::Tcp => {
                return Err(InvalidValue::new(
                    "health check",
                    "tcp",
                    "a check by connection has neither path nor host",
                ));
            }
        }
        if !(1..=300).contains(&self.interval_secs) {
            let rule = "it must be from 1 to 300 seconds";
            return Err(InvalidValue::new("health interval", self.interval_secs.to_string(), rule));
        }
        if !(1..=self.interval_secs).contains(&self.timeout_secs) {
            let rule = "it must be at least 1 second and at most the interval";
            return Err(InvalidValue::new("health timeout", self.timeout_secs.to_string(), rule));
        }
        if !(1..=100).contains(&self.threshold) {
            return Err(InvalidValue::new("health threshold", self.threshold.to_string(), "it must be from 1 to 100"));
        }
        Ok(())
    }

    fn check_request(&self) -> Result<(), InvalidValue> {
        let path = &self.path;
        if !path.starts_with('/') || path.len() > 1024 || path.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
            let rule = "it must start with / and hold at most 1024 visible ASCII characters";
            return Err(InvalidValue::new("health path", path, rule));
        }
        match &self.host {
            None => Ok(()),
            Some(host) => {
                let named = host.parse::<DomainName>();
                named.map(drop).map_err(|error| InvalidValue::new("health host", host, error.rule))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_times_are_checked() {
        assert!(HealthCheck::new("/health?x=1").check().is_ok());
        for bad in ["", "health", "/a b", "/a\r\nHost: x"] {
            assert!(HealthCheck::new(bad).check().is_err(), "{bad:?}");
        }
        let slow = HealthCheck { timeout_secs: 9, ..HealthCheck::new("/") };
        assert!(slow.check().unwrap_err().to_string().contains("at most the interval"));
        let host = |host: &str| HealthCheck { host: Some(host.into()), ..HealthCheck::new("/") };
        assert!(host("shop.example.org").check().is_ok());
        assert!(host("a b").check().unwrap_err().to_string().starts_with("health host \"a b\" is not valid"));
    }

    #[test]
    fn a_connection_has_neither_path_nor_host() {
        assert!(HealthCheck::tcp().check().is_ok());
        assert!(HealthCheck { path: "/".into(), ..HealthCheck::tcp() }.check().is_err());
        assert_eq!(serde_json::to_value(HealthCheck::new("/")).unwrap().get("kind"), None, "as version 0.1 wrote it");
    }
}
