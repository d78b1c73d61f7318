//! The most bytes that a package may have, and whose limit that is.

use std::fmt;

const MIB: u64 = 1 << 20;

/// The smaller one of two limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Most {
    /// This builder's.
    Builder(u64),
    /// That of whoever sends the package or has it fetched.
    Caller(u64),
}

impl Most {
    /// Of a builder that takes so many MiB, and of a caller.
    pub fn new(builder_mb: u32, caller: Option<u64>) -> Self {
        let builder = u64::from(builder_mb) * MIB;
        caller.filter(|bytes| *bytes < builder).map_or(Self::Builder(builder), Self::Caller)
    }

    /// How many bytes.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Builder(bytes) | Self::Caller(bytes) => bytes,
        }
    }

    /// What the limit is called where it is set.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder(_) => "package.max_mb",
            Self::Caller(_) => "max_bytes",
        }
    }
}

impl fmt::Display for Most {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builder(bytes) => write!(f, "{} MiB, which is the limit of this builder", bytes / MIB),
            Self::Caller(bytes) => write!(f, "{bytes} bytes, which is the limit of this upload"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_limit_counts_and_is_named() {
        for (caller, expected, text) in [
            (None, Most::Builder(MIB), "1 MiB, which is the limit of this builder"),
            (Some(MIB), Most::Builder(MIB), "1 MiB, which is the limit of this builder"),
            (Some(u64::MAX), Most::Builder(MIB), "1 MiB, which is the limit of this builder"),
            (Some(1000), Most::Caller(1000), "1000 bytes, which is the limit of this upload"),
            (Some(0), Most::Caller(0), "0 bytes, which is the limit of this upload"),
        ] {
            let most = Most::new(1, caller);
            assert_eq!((most, most.to_string().as_str()), (expected, text));
        }
    }
}
