//! `dinp-agent`: see the library.

use dinp_agent::config::AgentConfig;
use dinp_agent::firewall;
use dinp_common::daemon::Daemon;
use std::process::ExitCode;

fn main() -> ExitCode {
    Daemon::<AgentConfig>::new("agent", "Runs the instances of this node in its Docker Engine")
        .subcommand(firewall::command(), |_, loaded| async move { firewall::run(&loaded).await })
        .main(dinp_agent::run)
}
