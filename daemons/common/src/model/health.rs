//! How an instance is asked whether it is well.

use super::InvalidValue;
use serde::{Deserialize, Serialize};

/// A health check over HTTP. An app without one is checked by a TCP connection when it starts, and not after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// Path of the GET request, from `/`. Any answer from 200 to 399 is well.
    pub path: String,
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
            path: path.into(),
            interval_secs: default_interval(),
            timeout_secs: default_timeout(),
            threshold: default_threshold(),
        }
    }

    /// Checks path and times.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let path = &self.path;
        if !path.starts_with('/') || path.len() > 1024 || path.bytes().any(|b| !(0x21..0x7f).contains(&b)) {
            return Err(InvalidValue::new(
                "health path",
                path,
                "it must start with / and hold at most 1024 visible ASCII characters",
            ));
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
    }
}
