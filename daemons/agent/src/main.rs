//! `dinp-agent`: see the library.

use dinp_agent::config::AgentConfig;
use dinp_agent::firewall;
use dinp_common::daemon::Daemon;
use dinp_common::man::Manual;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "Runs the instances of this node in its Docker Engine",
    description: "\
Reports the node and its containers to the leading server and carries out that server's orders with the local Docker \
Engine. Ports given out and the last orders are kept on disk, so that it goes on, and even starts, without any server.

While it is stopped, its instances run on and are served, but nobody restarts one that crashes. After a minute the \
server counts the node as lost, and starts replacements on others.",
    unit: include_str!("../../../systemd/dinp-agent.service"),
};

fn main() -> ExitCode {
    Daemon::<AgentConfig>::new("agent", MANUAL)
        .subcommand(firewall::command(), |_, loaded| async move { firewall::run(&loaded).await })
        .main(dinp_agent::run)
}
