//! The program `dinp-builder`.

use dinp_builder::upkeep;
use dinp_common::daemon::Daemon;
use dinp_common::man::Manual;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "Makes images of packages and pushes them to the registry",
    description: "\
Makes a container image of a package by the rules of a runtime in /etc/dinp/builder.d and pushes it to the registry. \
dinp-builder.socket starts it with the first request, and it exits when it has been idle for a while (idle_exit_secs).

While none can run, no package can be built; what has been built can be deployed, and apps run on and are served.",
    unit: include_str!("../../../systemd/dinp-builder.service"),
};

fn main() -> ExitCode {
    Daemon::new("builder", MANUAL).subcommand(upkeep::command(), upkeep::run).main(dinp_builder::run)
}
