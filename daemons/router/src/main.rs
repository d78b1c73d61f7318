//! `dinp-router`: HTTP for the apps, by host name.

use dinp_common::daemon::Daemon;
use dinp_common::man::Manual;
use dinp_router::top;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "DINP router: sends each request to an instance of the app that it is for",
    description: "\
Takes HTTP requests and sends each to an instance of the app that its host name stands for. The table comes from Redis \
and is kept on disk, so that it goes on, and even starts, without Redis and servers.

While it restarts, clients wait: dinp-router.socket keeps the address, and a request starts a router that was stopped. \
Only where the socket is stopped, too, are clients refused; apps run on, and other routers serve them. At the end \
requests under way are finished first (drain_timeout_secs).",
    unit: include_str!("../../../systemd/dinp-router.service"),
};

fn main() -> ExitCode {
    Daemon::new("router", MANUAL).subcommand(top::command(), top::run).main(dinp_router::run)
}
