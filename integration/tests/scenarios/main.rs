//! What DINP must show, on a cluster of real hosts with the real packages.
//!
//! Each file is one theme; `sudo scripts/test full --only THEME` runs it alone. All scenarios share the
//! cluster that `scripts/test` brings up, one after the other, and each finds it whole.

mod applications;
mod bad_input;
mod bad_releases;
mod browser;
mod builder_life;
mod builds;
mod deploy_time;
mod engine;
mod greedy_app;
mod health;
mod hostile_node;
mod instance_death;
mod isolation;
mod node_faults;
mod node_loss;
mod original;
mod outage;
mod packages;
mod power_cut;
mod rolling;
mod router_answers;
mod router_life;
mod samples;
mod scaling;
mod single_machine;
mod supervision;
mod two_servers;
