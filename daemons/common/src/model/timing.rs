//! How patient the platform is with the instances of an app.

use super::InvalidValue;
use serde::{Deserialize, Serialize};

/// Times of an app, in seconds; what is absent is the cluster's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timing {
    /// From the start of an instance to being ready, after which the start has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_timeout_secs: Option<u32>,
    /// Of being ready without an exit, a restart or a failed probe, after which an instance has proved itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_healthy_secs: Option<u32>,
    /// For which all new instances must have proved themselves before a deployment has succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verify_secs: Option<u32>,
    /// Longest wait for requests in flight to an instance that is to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout_secs: Option<u32>,
    /// From SIGTERM to SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_grace_secs: Option<u32>,
}

impl Timing {
    /// `min_healthy_secs` of an app without a health check, where nobody says.
    pub const MIN_HEALTHY_SECS: u32 = 5;
    /// `min_healthy_secs` of an app with a health check, where nobody says.
    pub const MIN_HEALTHY_CHECKED_SECS: u32 = 2;

    /// What `other` says, laid over this.
    pub fn overlaid(self, other: Self) -> Self {
        Self {
            start_timeout_secs: other.start_timeout_secs.or(self.start_timeout_secs),
            min_healthy_secs: other.min_healthy_secs.or(self.min_healthy_secs),
            verify_secs: other.verify_secs.or(self.verify_secs),
            drain_timeout_secs: other.drain_timeout_secs.or(self.drain_timeout_secs),
            stop_grace_secs: other.stop_grace_secs.or(self.stop_grace_secs),
        }
    }

    /// Checks all of them.
    pub fn check(&self) -> Result<(), InvalidValue> {
        let bounds = [
            ("start timeout", self.start_timeout_secs, 1, 3600),
            ("minimum healthy time", self.min_healthy_secs, 0, 600),
            ("verify time", self.verify_secs, 0, 3600),
            ("drain timeout", self.drain_timeout_secs, 0, 3600),
            ("stop grace", self.stop_grace_secs, 1, 600),
        ];
        for (what, secs, least, most) in bounds {
            if let Some(secs) = secs.filter(|secs| !(least..=most).contains(secs)) {
                let rule = format!("it must be from {least} to {most} seconds");
                return Err(InvalidValue::new(what, secs.to_string(), rule));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_counts_over_what_was_said() {
        let before = Timing { start_timeout_secs: Some(90), verify_secs: Some(1), ..Timing::default() };
        let after = before.overlaid(Timing { verify_secs: Some(7), ..Timing::default() });
        assert_eq!(after, Timing { start_timeout_secs: Some(90), verify_secs: Some(7), ..Timing::default() });
    }

    #[test]
    fn times_have_bounds() {
        assert!(Timing::default().check().is_ok());
        let endless = Timing { start_timeout_secs: Some(90_000), ..Timing::default() };
        assert_eq!(
            endless.check().unwrap_err().to_string(),
            "start timeout \"90000\" is not valid: it must be from 1 to 3600 seconds"
        );
        assert!(Timing { stop_grace_secs: Some(0), ..Timing::default() }.check().is_err());
    }
}
