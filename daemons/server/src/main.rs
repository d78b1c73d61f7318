//! The program `dinp-server`.

use dinp_common::daemon;
use dinp_common::man::Manual;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "Master of a DINP cluster: decides what runs where",
    description: "\
Reads from MySQL what is wanted and hears from the agents what is, decides what runs where, and gives out orders \
to agents and, by way of Redis, routes to routers. Of several servers one leads; another takes over within seconds.

While no server runs, apps run on and are served: agents restart what crashes, and routers keep their table. \
Deployments, changes of any kind, and replacements for what lost nodes ran wait until a server leads again.",
    unit: include_str!("../../../systemd/dinp-server.service"),
};

fn main() -> ExitCode {
    daemon::main("server", MANUAL, dinp_server::run)
}
