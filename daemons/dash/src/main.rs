//! `dinp-dash`: the dashboard and the public API.

use dinp_common::daemon;
use dinp_common::man::Manual;
use std::process::ExitCode;

const MANUAL: Manual = Manual {
    about: "Dashboard and public API of DINP",
    description: "\
Serves the pages and the public JSON API, which the command dinp uses, too. It writes down what people want; the \
servers see to it. It keeps nothing itself, and several may run side by side.

While none runs, nobody can look at apps or change them by DINP; apps run on and are served.",
    unit: include_str!("../../../systemd/dinp-dash.service"),
};

fn main() -> ExitCode {
    daemon::main("dash", MANUAL, dinp_dash::run)
}
