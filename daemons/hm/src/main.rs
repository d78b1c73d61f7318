//! `dinp-hm`: asks every instance whether it is well.

use dinp_common::daemon;
use dinp_common::man::Manual;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "DINP health monitor: probes every instance of apps with a health check",
    description: "\
Probes instances over HTTP, as the health check of their app says, and tells the servers which are unfit. They act: \
an unfit instance gets no requests while enough others of its app serve, and it is replaced where the agent of its \
node finds it unfit, too.

While no monitor runs, apps run on and are served. Agents go on probing, and what they find unfit gets no requests, \
but nothing is replaced for that.",
    unit: include_str!("../../../systemd/dinp-hm.service"),
};

fn main() -> ExitCode {
    daemon::main("hm", MANUAL, dinp_hm::run)
}
