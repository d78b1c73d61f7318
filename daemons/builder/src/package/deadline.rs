//! How long a package may be read. Every read of it looks, so that the thread that reads ends in time and not only its caller.

use super::error::{self, PackageError};
use std::io;
use std::time::{Duration, Instant};

/// The end of a time that was given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    begun: Instant,
    longest: Duration,
}

impl Deadline {
    /// So long from now on.
    pub(super) fn after(longest: Duration) -> Self {
        Self { begun: Instant::now(), longest }
    }

    /// An error once the time is over.
    pub(super) fn check(self) -> io::Result<()> {
        if self.begun.elapsed() < self.longest {
            return Ok(());
        }
        Err(error::wrap(PackageError::TooSlow(self.longest.as_secs())))
    }
}
