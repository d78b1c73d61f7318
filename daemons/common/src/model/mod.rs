//! The words of the domain as validated types: a value of one of these types has passed its rule.

mod health;
mod image;
mod names;
mod release;
mod timing;
mod version;

pub use health::{HealthCheck, HealthKind};
pub use image::{IMAGE_APP_LABEL, ImageRef, PLATFORM_OWNER};
pub use names::{AppName, DomainName, EnvName, InstanceId, NodeName, RuntimeName, ZoneName};
pub use release::ReleaseSpec;
pub use timing::Timing;
pub use version::Version;

use serde::{Deserialize, Serialize};

/// A value that breaks the rule of its type; the text names both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} \"{value}\" is not valid: {rule}")]
pub struct InvalidValue {
    /// What the value was meant to be, such as "app name".
    pub what: &'static str,
    /// The value, cut to 80 characters and without control characters, so that it may be shown and logged.
    pub value: String,
    /// The rule that it breaks, as a sentence a person can act on.
    pub rule: String,
}

impl InvalidValue {
    /// Builds the error from any user input.
    pub fn new(what: &'static str, value: impl AsRef<str>, rule: impl Into<String>) -> Self {
        let shown = value.as_ref().chars().filter(|c| !c.is_control()).take(80).collect();
        Self { what, value: shown, rule: rule.into() }
    }
}

/// What one instance may use, booked on its node when it is placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Memory limit in MiB, without swap.
    pub memory_mb: u32,
    /// Share of CPU in thousandths of a core: a weight, not a limit.
    pub cpu_millis: u32,
    /// Hard limit of CPU in thousandths of a core, where one is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u32>,
}

/// The bounds that an operator sets for what users may ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Least memory of an instance, in MiB.
    pub memory_min_mb: u32,
    /// Most memory of an instance, in MiB.
    pub memory_max_mb: u32,
    /// Most instances of one app.
    pub instances_max: u32,
    /// Most CPU of an instance, in thousandths of a core.
    pub cpu_max_millis: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_min_mb: 128, memory_max_mb: 10_240, instances_max: 500, cpu_max_millis: 64_000 }
    }
}

impl Limits {
    /// Checks a memory size.
    pub fn check_memory(&self, memory_mb: u32) -> Result<(), InvalidValue> {
        let (min, max) = (self.memory_min_mb, self.memory_max_mb);
        if (min..=max).contains(&memory_mb) {
            return Ok(());
        }
        Err(InvalidValue::new("memory", memory_mb.to_string(), format!("it must be from {min} to {max} MiB")))
    }

    /// Checks a number of instances.
    pub fn check_instances(&self, instances: u32) -> Result<(), InvalidValue> {
        let max = self.instances_max;
        if instances <= max {
            return Ok(());
        }
        Err(InvalidValue::new("instance count", instances.to_string(), format!("it must be from 0 to {max}")))
    }

    /// Checks a CPU share.
    pub fn check_cpu(&self, cpu_millis: u32) -> Result<(), InvalidValue> {
        let max = self.cpu_max_millis;
        if (1..=max).contains(&cpu_millis) {
            return Ok(());
        }
        Err(InvalidValue::new(
            "cpu",
            cpu_millis.to_string(),
            format!("it must be from 1 to {max} thousandths of a core"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_name_the_rule() {
        let limits = Limits::default();
        assert!(limits.check_memory(128).is_ok());
        assert_eq!(
            limits.check_memory(64).unwrap_err().to_string(),
            "memory \"64\" is not valid: it must be from 128 to 10240 MiB"
        );
        assert!(limits.check_instances(0).is_ok());
        assert!(limits.check_instances(501).is_err());
        assert!(limits.check_cpu(0).is_err());
    }
}
