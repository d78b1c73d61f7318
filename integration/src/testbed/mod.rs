//! Hosts, clusters, and the words that scenarios are written in.
//!
//! | module | what it knows |
//! |---|---|
//! | [`layout`] | names, addresses and packages of the hosts |
//! | [`images`] | root file systems of hosts, made from the machine's own apt sources |
//! | [`host`] | one host: commands, power, journal |
//! | `faults` | what is done to a host, and undone |
//! | `leader` | which server leads |
//! | [`cluster`] | the hosts of one name, found by their labels |
//! | [`bringup`] | from nothing to a cluster that serves, and back |
//! | [`cli`] | the `dinp` command line, logged in |
//! | [`apps`] | applications of a scenario |
//! | [`package`] | packages that scenarios hand in |
//! | [`load`] | the steady client |
//! | [`browser`] | a person's browser |
//! | [`eventually`] | assertions with a deadline |

pub mod apps;
pub mod bringup;
#[cfg(feature = "browser")]
pub mod browser;
pub mod cli;
pub mod cluster;
mod docker;
mod error;
pub mod eventually;
mod faults;
pub mod host;
pub mod images;
pub mod layout;
mod leader;
pub mod load;
pub mod package;
mod progress;
pub mod samples;
pub mod setup;
mod state;
pub mod tunnels;

pub use apps::{App, Instance};
#[cfg(feature = "browser")]
pub use browser::{Browser, Look, Scripts};
pub use cluster::Cluster;
pub use error::{Error, Failure, Result, Scenario};
pub use eventually::eventually;
pub use host::Host;
pub use leader::Status;
pub use load::{Report, Steady};
pub use package::Package;
pub use progress::Progress;
pub use tunnels::Tunnels;

/// Seconds, short to read in a scenario.
#[must_use]
pub const fn secs(seconds: u64) -> std::time::Duration {
    std::time::Duration::from_secs(seconds)
}
