//! The program `dinp-server`.

use std::process::ExitCode;

fn main() -> ExitCode {
    dinp_common::daemon::main("server", "Master of a DINP cluster: decides what runs where", dinp_server::run)
}
