//! Versions of what a leader puts out.

use super::InvalidValue;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Version of orders or of the route table: compared as `(epoch, seq)`, written `<epoch>-<seq>`.
///
/// The epoch rises at each change of leader, the sequence number at each change that one leader makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// Epoch of the leader that made it.
    pub epoch: u64,
    /// Number within the epoch, from 1.
    pub seq: u64,
}

impl Version {
    /// The version before any.
    pub const ZERO: Version = Version { epoch: 0, seq: 0 };

    /// A version.
    pub const fn new(epoch: u64, seq: u64) -> Self {
        Self { epoch, seq }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Version {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let parse = |text: &str| -> Option<Self> {
            let (epoch, seq) = text.split_once('-')?;
            Some(Self { epoch: epoch.parse().ok()?, seq: seq.parse().ok()? })
        };
        parse(text).ok_or_else(|| InvalidValue::new("version", text, "it must be <epoch>-<seq>"))
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_epoch_wins_over_any_sequence() {
        assert!(Version::new(2, 1) > Version::new(1, 999));
        assert!(Version::new(2, 2) > Version::new(2, 1));
    }

    #[test]
    fn text_and_back() {
        assert_eq!("3-14".parse::<Version>().unwrap(), Version::new(3, 14));
        assert_eq!(Version::new(3, 14).to_string(), "3-14");
        for bad in ["", "3", "-", "3-", "a-b", "3-1-4"] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
