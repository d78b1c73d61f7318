//! `dinp-dash`: the dashboard and the public API.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_common::daemon::main("dash", "Dashboard and public API of DINP", dinp_dash::run)
}
