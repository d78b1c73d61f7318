//! The testbed of DINP: a small cluster of hosts on one machine, and what tests need to speak of it.
//!
//! A host is a container with systemd as PID 1, in which the project's real packages are installed
//! with apt. [`testbed::bringup`] makes a cluster (the binary `dinp-testbed` and `scripts/quickstart`
//! use it), [`testbed::Cluster::shared`] attaches a test to the one that `scripts/test` brought up.

pub mod testbed;
